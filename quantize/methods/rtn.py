"""Round to nearest: the grid's own scale for every block, as llama.cpp makes Q4_0. The baseline of all methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..codes import Codes, blocks_of, choose, full_scales, row_chunks, to_half


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def quantize(weight: NDArray[np.float32], importance: NDArray[np.float32] | None, config: Config) -> Codes:
    """Quantize `weight` [rows, columns]; `importance` plays no part.

    Raises ArtifactError when rows are no whole number of blocks, or a scale is above float16's limit.
    """
    rows, columns = weight.shape
    blocks = blocks_of(weight)
    values = np.empty((rows, columns), np.uint8)
    scales = np.empty(blocks.shape[:2], np.float16)
    for part in row_chunks(rows, columns):
        full = full_scales(blocks[part])
        values[part] = choose(blocks[part], full).reshape(-1, columns)
        scales[part] = to_half(full)
    return Codes(values, scales)
