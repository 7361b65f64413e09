"""The shape of a model folder or file, and of a packed file its bytes by type; weights are not read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...models.artifact import is_artifact
from ...models.errors import ArtifactError
from ...models.shape import Shape, shape_of
from ..files import gguf_header
from ..files.model_files import read_table
from ..loading.foreign import open_model
from .variants import Variant, of_gguf, planned, shape_of_gguf

_PACKED = ("*.gguf", "*.onnx", "onnx/*.onnx")


def read(path: Path) -> tuple[Shape, Variant | None]:
    """What is at `path`: an artifact, a GGUF file, an ONNX folder, or a folder with config.json, which no file of
    weights need stand beside. The variant is None where it is not packed yet.

    Raises what `open_model` raises, ArtifactError where no config.json says the shape, and UsageError for a model that
    is no decoder whose layers are all attention.
    """
    config = path / "config.json"
    if config.is_file() and not is_artifact(path) and not any(list(path.glob(each)) for each in _PACKED):
        return shape_of(read_table(config)), None
    artifact = open_model(path)
    if artifact.model_path.suffix == ".gguf":
        header = gguf_header.read(artifact.model_path)
        return shape_of_gguf(header), of_gguf(header, artifact.model_path.stat().st_size)
    found = read_table(artifact.folder / "config.json")
    if not found:
        raise ArtifactError(f"{artifact.folder}: no config.json in it, which says the model's shape",
                            "copy the whole model folder")
    shape = shape_of(found)
    if not artifact.manifest.scheme.startswith("onnx:"):
        return shape, None
    return shape, replace(planned(shape, artifact.manifest.scheme), file_bytes=artifact.model_bytes())
