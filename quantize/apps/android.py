"""An Android app in Kotlin: llama.cpp for generators, onnxruntime for classifiers and embedders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import TEMPLATES, _model, _native, copy

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact
    from ...runtime.text.codec import Codec

FITS = {("generate", "gguf"): "android/generate", ("classify", "onnx"): "android/encode",
        ("embed", "onnx"): "android/encode"}
NOTE = "written, and neither built nor run here: that needs the Android SDK, see README.md"


def check(task: str, codec: Codec) -> None:
    """See `_native.check`."""
    _native.check(task, codec)


def write(packed: Artifact, codec: Codec, folder: Path) -> None:
    """Add the Gradle project, the C++ sources and the model as assets, all in one folder: assets are listed flat."""
    copy(TEMPLATES / "android" / "common", folder)
    main = folder / "app" / "src" / "main"
    _native.write(packed, codec, main / "cpp", bridge=True)
    _model.copy_flat(packed, main / "assets" / "model")
