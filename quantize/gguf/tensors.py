"""Which tensors a GGUF file holds, in which type and order, and how each is made from the checkpoint's."""

from __future__ import annotations

import math
import re
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ...runtime.files import gguf_header
from ..grid.codes import Encode, by_rows, fits, to_bytes
from ..grid.scaled_grids import GRIDS
from ..source.checkpoint import Checkpoint
from . import llama_quantizer
from .metadata import rope_factors
from .weight_changes import ORDERS, VALUES

FLOATS = ("F32", "F16", "BF16")
PLAIN = (*FLOATS, "Q8_0")
WIDE = {"token_embd.weight", "output.weight"}
"""Kept at 8 bits in a 4-bit file: their error reaches every logit."""
POSITIONS = "position_embd.weight"
"""llama.cpp numbers positions from 0 on."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file."""

    name: str
    source: str
    """Its name in the checkpoint; empty for the rotary factors, which come from the config."""
    shape: tuple[int, ...]
    type: str
    """PLAIN, Q4_0, or a type that llama.cpp makes."""
    change: str = ""
    """Its name in gguf_changes; empty for none."""

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[self.type]]
        return int(math.prod(self.shape) // block * size)


def plan(checkpoint: Checkpoint, type_name: str) -> tuple[list[Tensor], list[str]]:
    """The tensors of a file of `type_name` (F32, F16, BF16, Q8_0, Q4_0), and notes for the user.

    Raises ArtifactError for a tensor that the architecture has no place for, or an output layer that is missing.
    """
    import gguf

    family, config = checkpoint.family, checkpoint.config
    rules = family.gguf
    assert rules is not None, "the caller refuses families without GGUF"
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == rules.architecture)
    names = gguf.get_tensor_name_map(architecture, int(family.of(config, "layers")))
    tied = config.get("tie_word_embeddings", family.head not in checkpoint.entries)
    tensors, narrow = [], []
    for source in sorted(checkpoint.entries, key=_natural):
        if source.endswith(tuple(rules.skip)) or (tied and source == family.head):
            continue
        known = next((source.removesuffix(end) + other for end, other in rules.names.items() if source.endswith(end)),
                     source)
        name = names.get_name(known, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ArtifactError(f"{checkpoint.folder}: {source} has no place in llama.cpp's architecture "
                                f"{rules.architecture!r}", "choose a model without this tensor, or export to ONNX")
        stem = source.removesuffix(".weight").removesuffix(".bias")
        change = next((change for end, change in rules.changes.items() if stem.endswith(end)), "")
        shape = checkpoint.entries[source].shape
        # Zeros that take no memory: what happens to lie in memory may be a NaN that warns when 1 is added to it.
        shape = VALUES[change](np.broadcast_to(np.float32(0), shape)).shape if change in VALUES else shape
        if name == POSITIONS:
            shape = (shape[0] - family.unused_positions(config), *shape[1:])
        chosen = "F32" if change == "squeeze" else _type(name, shape, type_name)  # convolutions run in F32
        if chosen == "F16" != type_name:
            narrow.append(name)
        tensors.append(Tensor(name, source, shape, chosen, change))
    for name, factors in rope_factors(family, config).items():
        tensors.append(Tensor(name, "", factors.shape, "F32"))
    notes = [f"{len(narrow)} tensors of {len(tensors)} are F16, since their rows are no whole number of blocks of 32: "
             f"{', '.join(narrow[:3])} …"] if narrow else []
    return tensors, notes


def make(tensor: Tensor, checkpoint: Checkpoint, encode: Encode,
         importance: NDArray[np.float32] | None = None, coded: Container[str] = ("Q4_0",)) -> NDArray[Any]:
    """The tensor's content as it stands in the file; `importance` of its columns weights llama.cpp's types. Types in
    `coded`, all of them of grids.GRIDS, are made by `encode`.

    Raises ArtifactError for values that are not finite or too large for the type.
    """
    if not tensor.source:
        return rope_factors(checkpoint.family, checkpoint.config)[tensor.name]
    weight, order = _changed(tensor, checkpoint)
    if tensor.type in coded:
        codes = encode(tensor.source, weight, GRIDS[tensor.type])
        return to_bytes(codes if order is None else codes.take(order))
    if order is not None:
        weight = weight[order]
    if tensor.type in PLAIN:
        return _stored(weight, tensor)
    return llama_quantizer.quantize(weight, tensor.type, importance)


def wanted(tensor: Tensor, checkpoint: Checkpoint) -> NDArray[np.float32]:
    """The numbers that `tensor` stands for, as its type would hold them if it lost nothing."""
    if not tensor.source:
        return rope_factors(checkpoint.family, checkpoint.config)[tensor.name]
    weight, order = _changed(tensor, checkpoint)
    return weight if order is None else weight[order]


def stored(path: Path, tensor: gguf_header.Tensor) -> NDArray[np.float32]:
    """The numbers of a tensor in the file `path`, in the file's order."""
    from gguf import GGMLQuantizationType, quants

    raw = np.memmap(path, np.uint8, "r", tensor.offset, (tensor.bytes,)).reshape(math.prod(tensor.shape[1:]), -1)
    return np.asarray(quants.dequantize(raw, GGMLQuantizationType[tensor.type]), np.float32).reshape(tensor.shape[::-1])


def as_in_checkpoint(tensor: Tensor, values: NDArray[np.float32], checkpoint: Checkpoint) -> NDArray[np.float32]:
    """A matrix of the file in the order of the checkpoint's."""
    if tensor.change in ORDERS:
        order = ORDERS[tensor.change](len(values), len(values) // checkpoint.family.head_size(checkpoint.config))
        values = values[np.argsort(order)]
    return values.T if tensor.change == "transpose" else values


def _changed(tensor: Tensor, checkpoint: Checkpoint) -> tuple[NDArray[np.float32], NDArray[np.intp] | None]:
    """The checkpoint's tensor as llama.cpp wants it, but for the order of its rows, which comes with it."""
    weight = checkpoint.tensor(tensor.source)
    if tensor.change in VALUES:
        weight = np.ascontiguousarray(VALUES[tensor.change](weight))
    if tensor.name == POSITIONS:
        weight = weight[checkpoint.family.unused_positions(checkpoint.config):]
    if tensor.change not in ORDERS:
        return weight, None
    return weight, ORDERS[tensor.change](len(weight), len(weight) // checkpoint.family.head_size(checkpoint.config))


def _stored(weight: NDArray[np.float32], tensor: Tensor) -> NDArray[Any]:
    from gguf import GGMLQuantizationType, quants

    if tensor.type == "F32":
        return weight
    if tensor.type == "F16" and np.abs(weight).max(initial=0) > np.finfo(np.float16).max:
        raise ArtifactError(f"{tensor.source}: a value of {float(np.abs(weight).max()):.4g} is above float16's limit "
                            "65504", "export to gguf:BF16 or gguf:F32")
    kind = GGMLQuantizationType[tensor.type]
    if weight.ndim < 2:
        return np.asarray(quants.quantize(weight, kind))
    parts = by_rows(lambda part: quants.quantize(np.ascontiguousarray(weight[part]), kind), *weight.shape)
    return np.concatenate(parts)


def _type(name: str, shape: tuple[int, ...], type_name: str) -> str:
    """The type one tensor gets in a file of `type_name`; vectors and position embeddings stay F32, as in llama.cpp."""
    if len(shape) < 2 or name.startswith(("position_embd", "token_types")):
        return "F32"
    if type_name in ("Q4_0", "Q8_0") and not fits(shape[-1]):
        return "F16"
    return "Q8_0" if type_name == "Q4_0" and name in WIDE else type_name


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 behind layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
