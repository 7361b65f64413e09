"""Tracing an encoder takes seconds, and most tests export the same few: each is traced once in a whole test run."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def once(trace: Callable[[Path], Any], kept: Path) -> Callable[[Path], Any]:
    """`trace`, whose graphs are kept in the folder `kept`, which test processes share, by all that it reads of a model:
    config.json and the weights."""

    @functools.wraps(trace)
    def exported(source: Path) -> Any:
        import onnx_ir as ir

        content = hashlib.sha256()
        for path in (source / "config.json", *sorted(source.glob("*.safetensors"))):
            content.update(hashlib.sha256(path.read_bytes()).digest())
        file = kept / f"{content.hexdigest()}.onnx"
        if not file.is_file():
            handle, aside = tempfile.mkstemp(dir=kept)
            os.write(handle, ir.to_proto(trace(source)).SerializeToString())
            os.close(handle)
            os.replace(aside, file)  # another process never reads half of it
        return ir.load(file)

    return exported
