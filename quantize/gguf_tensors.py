"""Which tensors a GGUF file holds, in which type and order, and how each is made from the checkpoint's."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.errors import ArtifactError
from .checkpoint import Checkpoint
from .codes import Codes, fits, to_bytes
from .gguf_metadata import head_dim, rope_factors

Encode = Callable[[str, NDArray[np.float32]], Codes]
"""Quantizes the weight [out, in] of a Hugging Face name."""

WIDE = {"token_embd.weight", "output.weight"}
"""Kept at 8 bits in a 4-bit file: their error reaches every logit."""


@dataclass(frozen=True)
class Tensor:
    """One tensor of the file."""

    name: str
    source: str
    """Its name in the checkpoint; empty for the rotary factors, which come from the config."""
    shape: tuple[int, ...]
    type: str
    """F32, F16, BF16, Q8_0 or Q4_0."""
    transpose: bool = False
    heads: int = 0
    """Heads whose rows are reordered; 0 for none."""

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
    heads = int(family.of(config, "heads"))
    heads_kv = int(family.of(config, "heads_kv", heads)) if "heads_kv" in family.keys else heads
    tied = config.get("tie_word_embeddings", "lm_head.weight" not in checkpoint.entries)
    if not tied and "lm_head.weight" not in checkpoint.entries:
        raise ArtifactError(f"{checkpoint.folder}: config.json says the output layer is its own, and there is no "
                            "lm_head.weight", "set tie_word_embeddings = true if it is shared, or save the model again")
    tensors, narrow = [], []
    for source in sorted(checkpoint.entries, key=_natural):
        stem, _, kind = source.rpartition(".")
        if source.endswith(tuple(rules.skip)) or (tied and source == "lm_head.weight"):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ArtifactError(f"{checkpoint.folder}: {source} has no place in llama.cpp's architecture "
                                f"{rules.architecture!r}", "choose a model without this tensor, or export to ONNX")
        transpose = kind == "weight" and stem.endswith(tuple(rules.transpose))
        shape = checkpoint.entries[source].shape
        shape = shape[::-1] if transpose else shape
        chosen = _type(name, shape, type_name)
        if chosen == "F16" != type_name:
            narrow.append(name)
        permuted = 0
        if stem.endswith(tuple(rules.permute)):
            permuted = heads if stem.endswith("q_proj") else heads_kv
        tensors.append(Tensor(name, source, shape, chosen, transpose, permuted))
    if "heads_kv" in family.keys and rope_factors(config, head_dim(family, config)) is not None:
        tensors.append(Tensor("rope_freqs.weight", "", (head_dim(family, config) // 2,), "F32"))
    notes = [f"{len(narrow)} tensors of {len(tensors)} are F16, since their rows are no whole number of blocks of 32: "
             f"{', '.join(narrow[:3])} …"] if narrow else []
    return tensors, notes


def make(tensor: Tensor, checkpoint: Checkpoint, encode: Encode) -> NDArray[Any]:
    """The tensor's content as it stands in the file.

    Raises ArtifactError for values that are not finite or too large for the type.
    """
    if not tensor.source:
        factors = rope_factors(checkpoint.config, head_dim(checkpoint.family, checkpoint.config))
        assert factors is not None
        return factors
    weight = checkpoint.tensor(tensor.source)
    if tensor.transpose:
        weight = np.ascontiguousarray(weight.T)
    order = rotation_order(len(weight), tensor.heads) if tensor.heads else None
    if tensor.type == "Q4_0":
        codes = encode(tensor.source, weight)
        return to_bytes(codes if order is None else codes.take(order))
    if order is not None:
        weight = weight[order]
    return _stored(weight, tensor)


def rotation_order(rows: int, heads: int) -> NDArray[np.intp]:
    """llama.cpp's order of the rows of a query or key layer.

    transformers rotates channel i of a head with channel i + half, llama.cpp with its neighbour.
    """
    return np.arange(rows).reshape(heads, 2, rows // heads // 2).swapaxes(1, 2).reshape(-1)


def _stored(weight: NDArray[np.float32], tensor: Tensor) -> NDArray[Any]:
    from gguf import GGMLQuantizationType, quants

    if tensor.type == "F32":
        return weight
    if tensor.type == "F16" and np.abs(weight).max(initial=0) > np.finfo(np.float16).max:
        raise ArtifactError(f"{tensor.source}: a value of {float(np.abs(weight).max()):.4g} is above float16's limit "
                            "65504", "export to gguf:BF16 or gguf:F32")
    stored: NDArray[Any] = quants.quantize(np.ascontiguousarray(weight), GGMLQuantizationType[tensor.type])
    return stored


def _type(name: str, shape: tuple[int, ...], type_name: str) -> str:
    """The type one tensor gets in a file of `type_name`; vectors and position embeddings stay F32, as in llama.cpp."""
    if len(shape) < 2 or name.startswith("position_embd"):
        return "F32"
    if type_name in ("Q4_0", "Q8_0") and not fits(shape[-1]):
        return "F16"
    return "Q8_0" if type_name == "Q4_0" and name in WIDE else type_name


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 behind layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
