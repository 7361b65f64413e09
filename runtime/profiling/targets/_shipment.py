"""All that another machine needs to measure a model: our runtime, packages, the model's files, and the job."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from ....models import files
from ....models.artifact import MANIFEST, Artifact
from ...loading.foreign import is_foreign
from . import _packages, _worker
from ._base import Asked, Swept

_ROOT = __name__.partition(".")[0]
PROGRAM = "edgestill.zip"
_ROOMS = ("models", "runtime")
_LEFT_OUT = ("__pycache__", "demo", "catalog")
_SMALL = 64 * 2**20
"""Bytes up to which a file beside a model that was made elsewhere goes along: tokenizers, settings, templates."""


@dataclass(frozen=True)
class Shipment:
    """What is sent, and what is done with it there."""

    contents: Mapping[str, Path]
    """Files here, by their SHA-256."""
    run: Mapping[str, Any]
    """What _far.start reads."""

    @property
    def name(self) -> str:
        """The same for the same model, job and program: so what was broken off is taken up again."""
        return hashlib.sha256(json.dumps(self.run, sort_keys=True).encode()).hexdigest()[:16]


def modules(artifacts: Sequence[Artifact], asked: Asked | Swept) -> Mapping[str, str]:
    """The packages that the models need, by the names of their modules."""
    found = dict(_packages.BASE)
    for artifact in artifacts:
        found |= _packages.OF_ENGINE.get(artifact.manifest.scheme.partition(":")[0], {})
        if artifact.manifest.task.schema or isinstance(asked, Asked) and asked.options.get("schema"):
            found |= _packages.STRUCTURE
    return found


def pack(artifacts: Sequence[Artifact], asked: Asked | Swept, there: Mapping[str, Any], folder: Path) -> Shipment:
    """Gather it, with what has to be made in `folder`; errors as in `_packages.wheels`."""
    contents: dict[str, Path] = {}

    def content(path: Path) -> str:
        name = files.sha256(path)
        contents[name] = path
        return name

    inside, places = {PROGRAM: content(_program(folder / PROGRAM))}, []
    for number, artifact in enumerate(artifacts):
        for path in _model_files(artifact):
            inside[f"models/{number}/{path.relative_to(artifact.folder).as_posix()}"] = content(path)
        place = artifact.model_path if is_foreign(artifact) else artifact.folder
        places.append(f"models/{number}/{place.relative_to(artifact.folder).as_posix()}".removesuffix("/."))
    packages = [content(path) for path in _packages.wheels(modules(artifacts, asked), there, folder)]
    return Shipment(contents, {"files": inside, "packages": packages, "program": PROGRAM, "job": _job(asked, places),
                               "module": _worker.__name__})


def _job(asked: Asked | Swept, places: Sequence[str]) -> dict[str, Any]:
    """What `_worker.measured` takes, with the models where they lie there."""
    if isinstance(asked, Swept):
        return {**vars(asked), "models": dict(zip(asked.models, places, strict=True))}
    return {**vars(asked), "model": places[0], "held_to": list(asked.held_to), "options": dict(asked.options),
            "prompts": None if asked.prompts is None else [_worker.row_table(row) for row in asked.prompts]}


def _model_files(artifact: Artifact) -> list[Path]:
    listed = [artifact.folder / name for name in artifact.manifest.files]
    if not is_foreign(artifact):
        return [*listed, artifact.folder / MANIFEST]
    if artifact.model_path.suffix == ".gguf":
        return listed
    beside = [path for path in artifact.folder.iterdir() if path.is_file() and path.stat().st_size < _SMALL]
    return sorted({*listed, *beside})


def _program(path: Path) -> Path:
    """Our runtime and what it stands on as one archive, the same bytes for the same files."""
    root = importlib.resources.files(_ROOT)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in [("__init__.py", root / "__init__.py"),
                           *(found for room in _ROOMS for found in _walk(root / room, room))]:
            archive.writestr(zipfile.ZipInfo(f"{_ROOT}/{name}", _packages.WHEN), file.read_bytes(),
                             zipfile.ZIP_DEFLATED)
    return path


def _walk(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        inside = f"{name}/{entry.name}"
        if entry.is_dir():
            if entry.name not in _LEFT_OUT:
                yield from _walk(entry, inside)
        else:
            yield inside, entry
