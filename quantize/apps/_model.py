"""The model's own files inside an app that must bring them along."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact


def copy(packed: Artifact, folder: Path, beside: tuple[str, ...] = ()) -> None:
    """Copy what the engine loads into `folder`, at the same place as in the artifact, and the files `beside` it."""
    model = packed.manifest.model_file
    names = [name for name in packed.manifest.files if name == model or name.startswith(f"{model}_")]
    for name in [*names, *(name for name in beside if name in packed.manifest.files)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packed.folder / name, folder / name)
