"""The 4-bit grid that GGUF's Q4_0 and onnxruntime's MatMulNBits (block 32, zero point 8) share.

A block of 32 neighbours along a row holds codes 0..15 and one signed float16 scale; a weight is
`(code - 8) * scale`. Mixed GGUF files hold codes of further grids (grids.py), in the same blocks.
 Rounding is that of ggml's reference (quantize_row_q4_0_ref): codes are chosen with the
float32 scale `m / -8`, where m is the block's value of largest magnitude, and the scale is stored as float16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ...models.scheme import BLOCK_SIZE
from ...runtime.machine.cores import allowed_cores
from .scaled_grids import Q4_0, Grid

Part = TypeVar("Part")
ZERO_POINT = 8
BLOCK_BYTES = 2 + BLOCK_SIZE // 2
"""A Q4_0 block on disk: the scale, then byte j with element j in the low half and element j + 16 in the high one."""
CHUNK_WEIGHTS = 1 << 17
"""Weights worked on at once: bounds memory and stays in the processor's cache."""


@dataclass(frozen=True)
class Codes:
    """Quantized rows: `values` uint8 [rows, columns], codes of `grid`, `scales` float16 [rows, columns // 32]."""

    values: NDArray[np.uint8]
    scales: NDArray[np.float16]
    grid: Grid = Q4_0

    def __post_init__(self) -> None:
        rows, columns = self.values.shape
        if columns % BLOCK_SIZE or self.scales.shape != (rows, columns // BLOCK_SIZE):
            raise ValueError(f"codes {self.values.shape} do not go with scales {self.scales.shape}: "
                             f"one scale for {BLOCK_SIZE} columns")

    def take(self, rows: NDArray[np.intp] | slice) -> Codes:
        """The codes of these rows, in this order."""
        return Codes(self.values[rows], self.scales[rows], self.grid)

    @classmethod
    def join(cls, parts: list[Codes]) -> Codes:
        """The rows of `parts`, all of one grid, one below the other."""
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([part.scales for part in parts]),
                   parts[0].grid)


class Encode(Protocol):
    """Quantizes the weight [out, in] of a Hugging Face name."""

    def __call__(self, name: str, weight: NDArray[np.float32], grid: Grid = Q4_0) -> Codes:
        """Its codes on `grid`."""


def fits(columns: int) -> bool:
    """Whether rows of this length can be stored in blocks."""
    return columns % BLOCK_SIZE == 0


def blocks_of(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """`weight` [rows, columns] as [rows, blocks, 32]; ArtifactError when rows are no whole number of blocks."""
    rows, columns = weight.shape
    if not fits(columns):
        raise ArtifactError(f"a weight with rows of {columns} values cannot be stored in blocks of {BLOCK_SIZE}",
                            "store this tensor in a wider type")
    return np.ascontiguousarray(weight, np.float32).reshape(rows, columns // BLOCK_SIZE, BLOCK_SIZE)


def row_chunks(rows: int, columns: int, weights: int = CHUNK_WEIGHTS) -> Iterator[slice]:
    """Slices over rows of at most `weights` weights each (one row at least)."""
    step = max(1, weights // max(1, columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def by_rows(work: Callable[[slice], Part], rows: int, columns: int, weights: int = CHUNK_WEIGHTS,
            threads: int = 0) -> list[Part]:
    """`work` on every slice of `row_chunks`, in their order, on `threads` threads (0: the cores of this process).

    Slices do not depend on the number of threads, so results do not either.
    """
    chunks = list(row_chunks(rows, columns, weights))
    if len(chunks) == 1:
        return [work(chunks[0])]
    with ThreadPoolExecutor(threads or allowed_cores()) as pool:
        return list(pool.map(work, chunks))


def full_scales(blocks: NDArray[np.float32], grid: Grid = Q4_0) -> NDArray[np.float32]:
    """A grid's own scale of every block [..., 32] → float32 [...]: the first value of largest magnitude over the
    first step, -8 for Q4_0."""
    largest = np.abs(blocks).argmax(axis=-1)[..., None]
    return np.take_along_axis(blocks, largest, axis=-1)[..., 0] / np.float32(-grid.reach)


def choose(blocks: NDArray[np.float32], scales: NDArray[np.float32], grid: Grid = Q4_0) -> NDArray[np.uint8]:
    """The nearest codes of blocks [..., 32] for float32 scales [...]; a zero scale gives the code nearest to zero.

    ggml multiplies by the reciprocal, so dividing would differ in the last bit.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        inverse = np.where(scales == 0, np.float32(0), np.float32(1) / scales)[..., None]
        scaled = np.nan_to_num(blocks * inverse, nan=0)
    if not grid.even:
        return grid.codes(grid.nearest(scaled, np.float32(1), np.empty_like(scaled)))
    codes = np.trunc(scaled + np.float32(grid.reach + 0.5))
    chosen: NDArray[np.uint8] = codes.clip(0, len(grid.steps) - 1).astype(np.uint8)
    return chosen


def to_half(scales: NDArray[np.float32]) -> NDArray[np.float16]:
    """Scales as they are stored; ArtifactError where float16 cannot hold one."""
    with np.errstate(over="ignore"):
        half = scales.astype(np.float16)
    if not np.isfinite(half).all():
        raise ArtifactError(f"a 4-bit scale of {float(np.abs(scales).max()):.3g} is above float16's limit 65504",
                            "the weights are far too large: look at the training, or export gguf:F32")
    return half


def dequantize(codes: Codes) -> NDArray[np.float32]:
    """The weights [rows, columns] that an engine sees."""
    rows, columns = codes.values.shape
    steps = codes.grid.table[codes.values].reshape(rows, -1, BLOCK_SIZE)
    steps *= codes.scales.astype(np.float32)[..., None]
    return steps.reshape(rows, columns)


def exact(weight: NDArray[np.float32]) -> Codes | None:
    """The codes of a weight [rows, columns] whose blocks all stand on the grid already; None for any other weight.

    A block stands on the grid when some float16 scale d makes every value a step -8..7 times d, bit for bit. Of equal
    codes, those with the largest steps are taken, as Q4_0's own rule does.
    """
    rows, columns = weight.shape
    if not fits(columns):
        return None
    blocks = blocks_of(weight)
    values, scales = np.empty((rows, columns), np.uint8), np.empty(blocks.shape[:2], np.float16)
    # One row tells almost every other weight apart.
    for part in (slice(0, 1), *row_chunks(rows, columns)):
        found = _exact(blocks[part])
        if found is None:
            return None
        values[part], scales[part] = found[0].reshape(-1, columns), found[1]
    return Codes(values, scales)


def _exact(blocks: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float16]] | None:
    largest = full_scales(blocks) * np.float32(-ZERO_POINT)
    steps, scales = np.zeros(blocks.shape, np.float32), np.zeros(blocks.shape[:-1], np.float16)
    open_blocks = largest != 0
    for divisor in (-ZERO_POINT, *range(ZERO_POINT - 1, 0, -1)):
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            half = (largest[open_blocks] / np.float32(divisor)).astype(np.float16)
            wide = half.astype(np.float32)[..., None]
            tried = np.rint(blocks[open_blocks] / wide)
            same = (tried * wide == blocks[open_blocks]).all(-1) & (np.abs(tried + 0.5) < ZERO_POINT).all(-1)
        places = np.flatnonzero(open_blocks)[same]
        steps.reshape(-1, BLOCK_SIZE)[places], scales.reshape(-1)[places] = tried[same], half[same]
        open_blocks.reshape(-1)[places] = False
    if open_blocks.any():
        return None
    return (steps + ZERO_POINT).astype(np.uint8), scales


def to_bytes(codes: Codes) -> NDArray[np.uint8]:
    """The bytes of a tensor of the codes' grid, uint8 [rows, bytes of a row].

    A block is its scale, the codes' fifth bits where there are 32 codes, and 16 bytes with element j in the low half
    and element j + 16 in the high one.
    """
    rows, columns = codes.values.shape
    count = columns // BLOCK_SIZE
    values = codes.values.reshape(rows, count, 2, BLOCK_SIZE // 2)
    parts: list[NDArray[np.uint8]] = [
        np.ascontiguousarray(codes.scales, "<f2").view(np.uint8).reshape(rows, count, 2)]
    if len(codes.grid.steps) > 16:
        parts.append(np.packbits(values.reshape(rows, count, BLOCK_SIZE) >> 4, axis=-1, bitorder="little"))
    parts.append((values[..., 0, :] & np.uint8(15)) | (values[..., 1, :] << np.uint8(4)))
    return np.concatenate(parts, axis=-1).reshape(rows, -1)


def from_bytes(data: NDArray[np.uint8], grid: Grid = Q4_0) -> Codes:
    """The codes in the bytes of a tensor, [rows, bytes of a row]; ArtifactError when rows are no whole number of
    blocks."""
    rows, length = data.shape
    fifth = BLOCK_SIZE // 8 if len(grid.steps) > 16 else 0
    if length % (BLOCK_BYTES + fifth):
        raise ArtifactError(f"a {grid.type} row of {length} bytes is no whole number of {BLOCK_BYTES + fifth}-byte "
                            "blocks", "the file is damaged: copy it again")
    packed = np.ascontiguousarray(data).reshape(rows, -1, BLOCK_BYTES + fifth)
    scales = np.ascontiguousarray(packed[..., :2]).view("<f2").reshape(rows, -1).astype(np.float16)
    low = packed[..., 2 + fifth :]
    values = np.concatenate([low & 0x0F, low >> 4], axis=-1)
    if fifth:
        values |= np.unpackbits(packed[..., 2 : 2 + fifth], axis=-1, bitorder="little") << 4
    return Codes(values.reshape(rows, -1), scales, grid)
