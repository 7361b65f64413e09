"""llama.cpp's own quantizers through its C interface: which type each tensor of a mixture gets, and the bytes of it."""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import EdgestillError
from ...runtime.engines._llama import library
from ...runtime.files import gguf_header
from ..grid.codes import by_rows

MIXTURES = ("Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_NL", "IQ4_XS")
"""Export types whose tensors llama.cpp deals out: a K-quant file is of several types."""
ERROR = 4
"""ggml's level of error messages."""

log = logging.getLogger(__name__)


def mixture(header: Path, type_name: str, importance: Mapping[str, NDArray[np.float32]]) -> dict[str, str]:
    """The type that llama.cpp gives each quantized tensor of the F32 file `header` in a file of `type_name`.

    Only names and shapes are read, so the tensors' bytes may be a hole. `importance` by tensor name matters to some
    mixtures. Raises EdgestillError when llama.cpp refuses the file or does not say what it would do with each of its
    tensors, MissingExtra without it.
    """
    llama_cpp = library()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{type_name}")
    parameters.dry_run = True
    entries = imatrix(importance)
    if importance:
        parameters.imatrix = entries
    with _messages() as messages:
        target = header.with_suffix(".none")
        code = llama_cpp.llama_model_quantize(str(header).encode(), str(target).encode(), ctypes.byref(parameters))
    if code:
        reason = " ".join(text for level, text in messages if level >= ERROR) or f"code {code}"
        raise EdgestillError(f"llama.cpp could not quantize to {type_name}: {reason}",
                             "gguf:Q4_0 and gguf:Q8_0 are made without llama.cpp")
    fallen = sum("falling back" in text for _, text in messages)
    if fallen:
        log.warning("%s: %d tensors are of a larger type, since their rows are no multiple of 256", type_name, fallen)
    said = "\n".join(text for _, text in messages)
    # "[ 3/ 92] NAME - [ shape ], type = f32,", other messages, "size = 1.0 MiB -> 0.1 MiB (q4_K)"
    found = re.findall(r"^\[ *\d+/ *\d+\] (\S+) |-> +[\d.]+ MiB \((\w+)\)", said, re.MULTILINE)
    types, name = {}, ""
    for started, chosen in found:
        name = started or name
        if chosen:
            types[name] = chosen.upper()
    named = {name for name, _ in found if name}
    silent = sorted({tensor.name for tensor in gguf_header.read(header).tensors} - named)
    if silent or not types:
        missing = f"{len(silent)} tensors are not named, the first is {silent[0]}" if silent else "no type is named"
        raise EdgestillError(f"llama.cpp's messages do not say which types it gives: {missing}",
                             "install the llama-cpp-python version of constraints.txt")
    return types


def imatrix(importance: Mapping[str, NDArray[np.float32]]) -> Any:
    """`importance` by tensor name as llama.cpp's C interface takes it; the arrays must outlive it."""
    llama_cpp = library()
    entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = values.size
    return entries


def quantize(weight: NDArray[np.float32], type_name: str, importance: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """The bytes, uint8 [rows, bytes of a row], of `weight` [rows, columns] in the ggml type `type_name`.

    `importance` [columns] is the mean square of each input, None for none. Raises MissingExtra without llama.cpp.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType[type_name]
    block, size = GGML_QUANT_SIZES[kind]
    rows, columns = weight.shape
    weight = np.ascontiguousarray(weight, np.float32)
    weights = None if importance is None or not importance.any() else floored(importance)
    out = np.empty((rows, columns // block * size), np.uint8)
    call = _ggml()

    def work(part: slice) -> int:
        source, target = weight[part], out[part]
        written: int = call(int(kind), source.ctypes.data, target.ctypes.data, 0, len(source), columns,
                            None if weights is None else weights.ctypes.data)
        return written
    if sum(by_rows(work, rows, columns)) != out.nbytes:
        raise EdgestillError(f"llama.cpp wrote another number of bytes than {type_name} takes",
                             "install the versions of gguf and llama-cpp-python that constraints.txt names")
    return out


def floored(importance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Importance with a small floor: llama.cpp divides by sums of it, and a channel no row used may still be used."""
    return np.ascontiguousarray(importance + 1e-4 * importance.mean(dtype=np.float64), np.float32)


def _ggml() -> Any:
    """ggml_quantize_chunk; ctypes lets other threads run while it works."""
    # A library that is loaded finds the functions of those that it is linked with.
    chunk = library()._lib.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64,
                      ctypes.c_void_p]
    return chunk


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
