"""The C++ that every native app is made of: shared sources, and headers of this one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...models import files
from . import TEMPLATES, _encoder, _prompt, _tables

if TYPE_CHECKING:
    from pathlib import Path

    from ...models.artifact import Artifact
    from ...runtime.text.codec import Codec

GENERATE, ENCODE = ("profile.h", "generator.h"), ("profile.h", "answer.h", "tokenizer.h", "tokenizer.cpp")


def check(task: str, codec: Codec) -> None:
    """Raise UsageError or DataError naming the part of the tokenizer or the template that the sources do not know."""
    if task == "generate":
        _prompt.around(codec)
    else:
        _tables.header(codec)


def write(packed: Artifact, codec: Codec, folder: Path, bridge: bool = False) -> None:
    """Put the sources into `folder`; `bridge` adds plain C functions over them, for Kotlin and Swift."""
    generates = packed.manifest.task.kind == "generate"
    name = "generate" if generates else "encode"
    folder.mkdir(parents=True, exist_ok=True)
    bridges = (f"{name}_bridge.h", f"{name}_bridge.cpp") if bridge else ()
    for source in (*(GENERATE if generates else ENCODE), *bridges):
        (folder / source).write_bytes((TEMPLATES / "core" / source).read_bytes())
    if generates:
        files.write_text(folder / "prompt.h", _prompt.header(packed, codec))
    else:
        files.write_text(folder / "tables.h", _tables.header(codec))
        files.write_text(folder / "task.h", _encoder.header(packed))
