"""The block-quantized matrices of a graph that anyone may have packed: their numbers, and what they stand for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ..source.checkpoint import Checkpoint
from .decoder import LAYERS, rows_of
from .storage import constant

_LAYER = re.compile(r"(?:^|[./_])(?:layers?|blocks?|h)[./_](\d+)[./_]")


@dataclass(frozen=True)
class Packed:
    """One matrix of MatMulNBits as the kernels see it."""

    name: str
    """The node's and its weight's, which say where in the model it stands."""
    bits: int
    values: NDArray[np.float32]
    """[out, in]."""
    steps: NDArray[np.float32]
    """Between two codes, [out, blocks]."""
    block: int

    def bias(self, expected: NDArray[np.float32]) -> float:
        """How far the values lie above the expected ones on average, in steps: rounding lies as often below."""
        rows, columns = self.values.shape
        beside = np.zeros((rows, self.steps.shape[1] * self.block), np.float32)
        beside[:, :columns] = self.values - expected
        sums = beside.reshape(rows, -1, self.block).sum(axis=2)
        known = self.steps != 0
        return float((sums[known] / self.steps[known]).sum() / (rows * columns))


def each(path: Path) -> Iterator[Packed]:
    """Every such matrix, one at a time. ArtifactError for sizes that contradict each other."""
    import onnx_ir as ir

    for node in ir.load(path).graph.all_nodes():
        if node.op_type == "MatMulNBits":
            try:
                found = _unpacked(node)
            except (ValueError, KeyError, IndexError, TypeError) as error:
                raise ArtifactError(f"{path}: the sizes of {node.name!r} contradict each other: {error}",
                                    "it is damaged: get it again") from error
            if found is not None:
                yield found


def sources(name: str, checkpoint: Checkpoint) -> list[str]:
    """The checkpoint's matrices, one below the other, that a matrix of this name stands for; none where the name does
    not say it."""
    words, layer = re.split(r"[./]", name), _LAYER.search(name)
    family, known = checkpoint.family, checkpoint.entries
    if "lm_head" in words:
        return [family.head if family.head in known else checkpoint.embedding]
    if layer is None:
        return []
    fused = {key.rpartition(".")[2]: modules for key, modules in (LAYERS | family.builder.layers).items()}
    own = {match[2].rpartition(".")[2]: each for each, entry in known.items() if len(entry.shape) == 2
           and (match := re.fullmatch(rf".*?\.({layer[1]})\.(.+)\.weight", each))}
    for word in reversed(words):
        if word in own:
            return [own[word]]
        parts = [part.partition(":") for part in fused.get(word, [])]
        if parts and all(module.rpartition(".")[2] in own for module, _, _ in parts):
            return [own[module.rpartition(".")[2]] + colon + share for module, colon, share in parts]
    return []


def expected(names: list[str], checkpoint: Checkpoint) -> NDArray[np.float32]:
    """Those matrices, [out, in]."""
    whole = np.concatenate([rows_of(checkpoint.tensor, name) for name in names])
    turned = checkpoint.family.plain.turned and not {checkpoint.family.head, checkpoint.embedding} & set(names)
    return np.ascontiguousarray(whole.T) if turned else whole


def _unpacked(node: Any) -> Packed | None:
    """None where its weights are made at run time, or their columns stand in another order."""
    inputs = [*node.inputs, None, None, None]
    codes, scales, zeros, order = (constant(inputs[place]) for place in (1, 2, 3, 4))
    size = {name: node.attributes[name].as_int() for name in ("N", "K", "bits", "block_size")}
    rows, columns, bits, block = (size[name] for name in ("N", "K", "bits", "block_size"))
    if codes is None or scales is None or (inputs[4] is not None and (order is None or order.size)) \
            or (inputs[3] is not None and zeros is None):
        return None
    if bits not in (2, 4, 8) or block < 1 or rows < 1 or columns < 1:
        raise ValueError(f"{bits} bits, blocks of {block}")
    count = -(-columns // block)
    steps = scales.astype(np.float32).reshape(rows, count)
    if zeros is None:
        middle: Any = np.float32(2 ** (bits - 1))
    elif zeros.dtype == np.uint8:
        middle = _parted(zeros.reshape(rows, -1), bits)[:, :count, None].astype(np.float32)
    else:
        middle = zeros.astype(np.float32).reshape(rows, count, 1)
    whole = _parted(codes.reshape(rows, count, -1), bits)
    if whole.shape[2] != block:
        raise ValueError(f"blocks of {whole.shape[2]} codes, {block} were told")
    values = (whole.astype(np.float32) - middle) * steps[..., None]
    return Packed(f"{node.name}/{inputs[1].name}", bits, values.reshape(rows, -1)[:, :columns], steps, block)


def _parted(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """The numbers in bytes [..., n], the lowest bits first: [..., n * 8 // bits]."""
    parts = (packed[..., None] >> np.arange(0, 8, bits, dtype=np.uint8)) & np.uint8(2**bits - 1)
    found: NDArray[np.uint8] = parts.reshape(*packed.shape[:-1], -1)
    return found
