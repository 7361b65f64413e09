"""C++ for desktops and boards: llama.cpp for generators, onnxruntime for classifiers and embedders."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from ...models import files
from . import TEMPLATES, _encoder, _prompt, _tables

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact
    from ...runtime.text import Codec

FITS = {("generate", "gguf"): "c/generate", ("classify", "onnx"): "c/encode", ("embed", "onnx"): "c/encode"}
NOTE = ""


def write(packed: Artifact, codec: Codec, folder: Path) -> None:
    """Add the shared sources, and the headers that hold what this model needs."""
    sources(packed, codec, folder)


def sources(packed: Artifact, codec: Codec, folder: Path) -> None:
    """Put the C++ that every native app is made of into `folder`: shared files, and the headers of this model."""
    folder.mkdir(parents=True, exist_ok=True)
    generates = packed.manifest.task.kind == "generate"
    for name in ("profile.h", *(("generator.h",) if generates else ("answer.h", "tokenizer.h", "tokenizer.cpp"))):
        shutil.copyfile(TEMPLATES / "core" / name, folder / name)
    if generates:
        files.write_text(folder / "prompt.h", _prompt.header(packed, codec))
    else:
        files.write_text(folder / "tables.h", _tables.header(codec))
        files.write_text(folder / "task.h", _encoder.header(packed))
