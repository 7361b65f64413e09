"""The model's own files inside an app that must bring them along."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact


def copy(packed: Artifact, folder: Path, beside: tuple[str, ...] = ()) -> None:
    """Copy what the engine loads into `folder`, at the same place as in the artifact, and the files `beside` it."""
    for name in [*_engine_files(packed), *(name for name in beside if name in packed.manifest.files)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packed.folder / name, folder / name)


def copy_flat(packed: Artifact, folder: Path) -> None:
    """Copy what the engine loads right into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _engine_files(packed):
        shutil.copyfile(packed.folder / name, folder / name.rpartition("/")[2])


def _engine_files(packed: Artifact) -> list[str]:
    """The model file and its external data."""
    model = packed.manifest.model_file
    return [name for name in packed.manifest.files if name == model or name.startswith(f"{model}_")]
