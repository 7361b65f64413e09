"""llama.cpp's own quantizer, for the K-quants: driven through its C interface, with our importance matrix."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..models.errors import EdgestillError
from ..runtime.engines._llama import library

TYPES = ("Q6_K", "Q5_K_M", "Q4_K_M")
ERROR = 4
"""ggml's level of error messages."""

log = logging.getLogger(__name__)


def quantize(source: Path, target: Path, type_name: str, importance: Mapping[str, NDArray[np.float32]],
             threads: int = 0) -> None:
    """Quantize the F32 or F16 GGUF file `source` into `target`.

    `importance` holds the mean square of each layer's input by GGUF tensor name; empty for none. `threads` 0 is all
    cores; the bytes do not depend on it. Raises EdgestillError when llama.cpp fails, MissingExtra without it.
    """
    llama_cpp = library()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{type_name}")
    parameters.nthread = threads
    # The arrays must live as long as the call, so they stand in names of their own.
    matrices = {name: floored(values) for name, values in importance.items() if values.any()}
    entries = (llama_cpp.llama_model_imatrix_data * (len(matrices) + 1))()
    for entry, (name, values) in zip(entries, matrices.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    if matrices:
        parameters.imatrix = entries
    with _messages() as messages:
        code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters))
    if code or not target.is_file():
        reason = " ".join(text for level, text in messages if level >= ERROR) or f"code {code}"
        raise EdgestillError(f"llama.cpp could not quantize to {type_name}: {reason}",
                             "make sure there is disk space for the file; gguf:Q4_0 and gguf:Q8_0 do without llama.cpp")
    fallen = sum("falling back" in text for _, text in messages)
    if fallen:
        log.warning("%s: %d tensors are of a larger type, since their rows are no multiple of 256", target.name, fallen)


@contextmanager
def _messages() -> Iterator[list[tuple[int, str]]]:
    """Collect llama.cpp's messages as (level, text) instead of printing them, and give its log back afterwards."""
    llama_cpp = library()
    collected: list[tuple[int, str]] = []

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def collect(level: int, text: bytes, _data: object) -> None:
        collected.append((level, text.decode("utf-8", "replace").strip()))

    callback, data = llama_cpp.llama_log_callback(), ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(callback), ctypes.byref(data))
    llama_cpp.llama_log_set(collect, ctypes.c_void_p())
    try:
        yield collected
    finally:
        llama_cpp.llama_log_set(callback, data)


def floored(importance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Importance with a small floor: llama.cpp divides by sums of it, and a channel no row used may still be used."""
    return np.ascontiguousarray(importance + 1e-4 * importance.mean(dtype=np.float64), np.float32)
