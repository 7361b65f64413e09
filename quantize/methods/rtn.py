"""Round to nearest: the grid's own scale for every block, as llama.cpp makes Q4_0. The baseline of all methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..grid.codes import Codes, blocks_of, by_rows, choose, full_scales, to_half
from ..grid.scaled_grids import Q4_0, Grid

GRAM = False


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def quantize(weight: NDArray[np.float32], moments: NDArray[np.float32] | None, config: Config,
             grid: Grid = Q4_0) -> Codes:
    """Quantize `weight` [rows, columns]; `moments` play no part.

    Raises ArtifactError when rows are no whole number of blocks, or a scale is above float16's limit.
    """
    rows, columns = weight.shape
    blocks = blocks_of(weight)

    def work(part: slice) -> Codes:
        full = full_scales(blocks[part], grid)
        return Codes(choose(blocks[part], full, grid).reshape(-1, columns), to_half(full), grid)
    return Codes.join(by_rows(work, rows, columns))
