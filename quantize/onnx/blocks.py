"""Blocks of 32 weights with one scale, in the bytes that onnxruntime's block-quantized kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.scheme import BLOCK_SIZE
from ..grid.codes import Codes, row_chunks, to_half


@dataclass(frozen=True)
class Blocks:
    """One matrix: `packed` uint8 [rows, ceil(columns / 32), 32 * bits / 8], `scales` float32 [rows, blocks].

    A weight is (code - 2 ** (bits - 1)) * scale. Scales are float16 numbers, as in GGUF, widened because the CPU
    kernels take scales in the type of the activations.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[np.float32]
    bits: int
    columns: int

    @property
    def rows(self) -> int:
        return int(self.packed.shape[0])

    def attributes(self) -> dict[str, Any]:
        """What MatMulNBits must be told; accuracy level 4 quantizes the activations to int8, the fast path on CPUs."""
        return {"K": self.columns, "N": self.rows, "bits": self.bits, "block_size": BLOCK_SIZE, "accuracy_level": 4}


def four_bit(parts: list[Codes]) -> Blocks:
    """Codes of matrices that share their input, one below the other; the low nibble comes first."""
    values = np.concatenate([part.values for part in parts])
    scales = np.concatenate([part.scales for part in parts])
    grouped = values.reshape(values.shape[0], -1, BLOCK_SIZE)
    packed = grouped[..., 0::2] | (grouped[..., 1::2] << 4)
    return Blocks(packed.astype(np.uint8), scales.astype(np.float32), 4, int(values.shape[1]))


def eight_bit(weight: NDArray[np.float32]) -> Blocks:
    """GGUF's Q8_0 rule for `weight` [rows, columns]: scale = max |w| / 127, code = round(w / scale) + 128.

    Rows whose length does not divide by 32 are padded with zeros, which the kernels skip.
    """
    rows, columns = weight.shape
    count = -(-columns // BLOCK_SIZE)
    packed = np.empty((rows, count, BLOCK_SIZE), np.uint8)
    scales = np.empty((rows, count), np.float32)
    for chunk in row_chunks(rows, columns):
        padded = np.pad(np.asarray(weight[chunk], np.float32), ((0, 0), (0, count * BLOCK_SIZE - columns)))
        grouped = padded.reshape(-1, count, BLOCK_SIZE)
        scale = np.abs(grouped).max(axis=-1) / np.float32(127)
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
        scaled = grouped * inverse[..., None]
        packed[chunk] = np.copysign(np.floor(np.abs(scaled) + np.float32(0.5)), scaled) + 128
        scales[chunk] = to_half(scale)
    return Blocks(packed, scales, 8, columns)


def dequantize(blocks: Blocks) -> NDArray[np.float32]:
    """The weights as the kernels see them, float32 [rows, columns]."""
    codes = blocks.packed
    if blocks.bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], BLOCK_SIZE)
    centred = codes.astype(np.float32) - 2 ** (blocks.bits - 1)
    return np.asarray((centred * blocks.scales[..., None]).reshape(blocks.rows, -1)[:, : blocks.columns], np.float32)
