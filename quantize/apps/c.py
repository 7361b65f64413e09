"""C++ for desktops and boards: llama.cpp for generators, onnxruntime for classifiers and embedders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _native

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact
    from ...runtime.text.codec import Codec

FITS = {("generate", "gguf"): "c/generate", ("classify", "onnx"): "c/encode", ("embed", "onnx"): "c/encode"}
NOTE = ""


def check(task: str, codec: Codec) -> None:
    """See `_native.check`."""
    _native.check(task, codec)


def write(packed: Artifact, codec: Codec, folder: Path) -> None:
    """Add the shared sources, and the headers that hold what this model needs."""
    _native.write(packed, codec, folder)
