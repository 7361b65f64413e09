"""The types that a mixed GGUF file may give a tensor, and the weights that engines then see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..grid.codes import Encode, dequantize, exact
from ..grid.scaled_grids import GRIDS
from ..mixed.choose_types import Part
from ..source.checkpoint import Checkpoint
from . import llama_quantizer
from .tensors import Tensor
from .weight_changes import VALUES

SUPER_BLOCK = 256
WIDE_ROWS = ("IQ4_XS", "IQ4_NL", "Q5_0", "Q6_K", "Q8_0")
"""For rows of whole super-blocks. Below four bits, models of this size lose more than bytes can buy back. The types of
grids.py are made by the run file's method; Q4_K and Q5_K take as many bytes as those and lose more."""
OTHER_ROWS = ("IQ4_NL", "Q5_0", "Q8_0")
TRAINED = ("Q4_0", "Q8_0")
"""For weights that training put on the grid of Q4_0."""


def parts(tensors: Sequence[Tensor], checkpoint: Checkpoint) -> list[Part]:
    """The matrices of a plan for Q8_0 that it stores in blocks, with the bytes that each candidate takes."""
    found = []
    for tensor in tensors:
        if tensor.type == "Q8_0":
            types: tuple[str, ...] = OTHER_ROWS if tensor.shape[-1] % SUPER_BLOCK else WIDE_ROWS
            if exact(weight_of(tensor, checkpoint)) is not None:
                types = TRAINED
            found.append(Part((tensor.source,), {type: replace(tensor, type=type).bytes for type in types}))
    return found


def restored(tensor: Tensor, type_name: str, checkpoint: Checkpoint, encode: Encode,
             importance: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The weight [out, in] that engines see when `tensor` is stored as `type_name`; rows in the checkpoint's order.
    `importance` of its columns weights the errors of llama.cpp's types."""
    from gguf import GGMLQuantizationType, quants

    weight = weight_of(tensor, checkpoint)
    if type_name in GRIDS:
        return dequantize(encode(tensor.source, weight, GRIDS[type_name]))
    stored = llama_quantizer.quantize(weight, type_name, importance)
    return np.asarray(quants.dequantize(stored, GGMLQuantizationType[type_name]), np.float32)


def weight_of(tensor: Tensor, checkpoint: Checkpoint) -> NDArray[np.float32]:
    """The float weight [out, in] that a tensor is made from."""
    weight = checkpoint.tensor(tensor.source)
    return np.ascontiguousarray(VALUES[tensor.change](weight)) if tensor.change in VALUES else weight
