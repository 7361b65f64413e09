"""The model's own files inside an app that must bring them along."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from ...models.scheme import Scheme
from ..layouts import transformers_js

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact


def copy(packed: Artifact, folder: Path, beside: tuple[str, ...] = ()) -> None:
    """Copy what a browser loads into `folder`, at the same place as in the artifact, and the files `beside` it."""
    for name in [*_browser_files(packed), *(name for name in beside if name in packed.manifest.files)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packed.folder / name, folder / name)


def copy_flat(packed: Artifact, folder: Path) -> None:
    """Copy what the engine loads right into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in packed.model_files():
        shutil.copyfile(packed.folder / name, folder / name.rpartition("/")[2])


def _browser_files(packed: Artifact) -> list[str]:
    """The model files, with transformers.js's graph in the place of one that is for other programs."""
    scheme, own = Scheme.parse(packed.manifest.scheme), packed.manifest.model_file
    read = transformers_js.model_file(scheme.type) if scheme.format == transformers_js.FORMAT else own
    return [read if name == own else name for name in packed.model_files()]
