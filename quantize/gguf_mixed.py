"""The types that a mixed GGUF file may give a tensor, and the weights that engines then see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from . import llama_quantizer
from .checkpoint import Checkpoint
from .codes import dequantize
from .gguf_changes import VALUES
from .gguf_tensors import Encode, Tensor
from .mixing import Part

SUPER_BLOCK = 256
WIDE_ROWS = ("IQ4_XS", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
"""For rows of whole super-blocks. Below four bits, models of this size lose more than bytes can buy back."""
OTHER_ROWS = ("Q4_0", "IQ4_NL", "Q5_0", "Q5_1", "Q8_0")


def parts(tensors: Sequence[Tensor]) -> list[Part]:
    """The matrices of a plan for Q8_0 that it stores in blocks, with the bytes that each candidate takes."""
    found = []
    for tensor in tensors:
        if tensor.type == "Q8_0":
            types = OTHER_ROWS if tensor.shape[-1] % SUPER_BLOCK else WIDE_ROWS
            found.append(Part((tensor.source,), {type: replace(tensor, type=type).bytes for type in types}))
    return found


def restored(tensor: Tensor, type_name: str, checkpoint: Checkpoint, encode: Encode,
             importance: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The weight [out, in] that engines see when `tensor` is stored as `type_name`; rows in the checkpoint's order."""
    from gguf import GGMLQuantizationType, quants

    weight = checkpoint.tensor(tensor.source)
    if tensor.change in VALUES:
        weight = np.ascontiguousarray(VALUES[tensor.change](weight))
    if type_name == "Q4_0":
        return dequantize(encode(tensor.source, weight))
    stored = llama_quantizer.quantize(weight, type_name, importance.get(tensor.name))
    return np.asarray(quants.dequantize(stored, GGMLQuantizationType[type_name]), np.float32)
