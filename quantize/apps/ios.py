"""A Swift package for iOS apps: llama.cpp for generators, onnxruntime for classifiers and embedders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import TEMPLATES, _model, _native, copy

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact
    from ...runtime.text.codec import Codec

FITS = {("generate", "gguf"): "ios/generate", ("classify", "onnx"): "ios/encode", ("embed", "onnx"): "ios/encode"}
NOTE = "written, and neither built nor run here: that needs Xcode, see README.md"


def check(task: str, codec: Codec) -> None:
    """See `_native.check`."""
    _native.check(task, codec)


def write(packed: Artifact, codec: Codec, folder: Path) -> None:
    """Add the shared Swift, the C++ sources with the headers that Swift sees apart, and the model as a resource."""
    copy(TEMPLATES / "ios" / "common", folder)
    core = folder / "Sources" / "Core"
    _native.write(packed, codec, core, bridge=True)
    (core / "include").mkdir()
    for name in ("generate_bridge.h", "encode_bridge.h", "tokenizer.h"):
        if (core / name).is_file():
            (core / name).rename(core / "include" / name)
    _model.copy_flat(packed, folder / "Sources" / "SmallModel" / "model")
