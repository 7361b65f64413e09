"""Search each block's signed scale for the least importance-weighted squared error.

Candidates are m / k, where m is the block's value of largest magnitude and k runs, on Q4_0's grid, from 5 to 11 with
both signs. Each gives codes c; for codes, the best scale is d = sum(w c x) / sum(w c c), and what it takes off the
error is sum(w c x)^2 / sum(w c c): one number for every candidate, without computing its error. The best candidate's
codes are chosen once more for its scale as float16, and rtn's stand where even that is no better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ...models.scheme import BLOCK_SIZE
from ...models.strict import limited
from ..grid.codes import Codes, blocks_of, by_rows, choose, full_scales, to_half
from ..grid.scaled_grids import Q4_0, Grid

GRAM = False
SMALLEST, LARGEST = 5, 11
"""Bounds of k in eighths of the grid's largest step. Every whole number between them is tried, so weights that stand on
a grid of whole numbers stay where they are."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Config:
    """How finely scales are searched."""

    steps: int = limited(2, minimum=1, maximum=16)
    """Candidates for each eighth of the largest step; time grows with it, and beyond 2 the error falls by less than
    0.5 %."""


def quantize(weight: Floats, moments: Floats | None, config: Config, grid: Grid = Q4_0) -> Codes:
    """Quantize `weight` [rows, columns], weighting errors by `moments`: the mean square of every input, [columns].

    None counts all columns alike. Raises ArtifactError when rows are no whole number of blocks, a scale is above
    float16's limit, or the moments are of another length, negative or not finite.
    """
    rows, columns = weight.shape
    blocks = blocks_of(weight)
    importance = None if moments is None else checked(moments, columns)
    ks = candidates(config.steps, grid)

    def work(part: slice) -> Codes:
        count = len(blocks[part])
        # One block a column: sums over a block then run along rows of memory, for thousands of blocks at once.
        values = np.ascontiguousarray(blocks[part].reshape(-1, BLOCK_SIZE).T)
        weights = None if importance is None else np.tile(importance.reshape(-1, BLOCK_SIZE).T, count)
        steps, scales = _search(values, weights, ks, grid)
        found = grid.codes(steps).T.reshape(-1, columns)
        return _better(Codes(found, scales.reshape(count, -1), grid), blocks[part], importance)
    return Codes.join(by_rows(work, rows, columns))


def candidates(steps: int, grid: Grid = Q4_0) -> list[float]:
    """The values of k. Up to half a step below the largest both signs reach the same weights of an even grid, since no
    code is cut off."""
    found = [(SMALLEST + index / steps) * grid.reach / 8 for index in range((LARGEST - SMALLEST) * steps + 1)]
    return [sign * k for k in found for sign in (-1.0, 1.0) if sign < 0 or k > grid.reach - 0.5 or not grid.even]


def checked(importance: Floats, columns: int) -> Floats:
    """Importance [columns] scaled to a mean of about one, with a small floor; ArtifactError when it is none."""
    if importance.shape != (columns,) or not np.isfinite(importance).all() or (importance < 0).any():
        raise ArtifactError(f"importance of shape {importance.shape} for {columns} columns, or with values that are "
                            "negative or not finite", "calibrate this model again")
    mean = float(importance.mean(dtype=np.float64))
    # A column no calibration row used still counts a little: other rows may use it.
    return (importance / mean + 1e-4 if mean > 0 else np.ones(columns)).astype(np.float32)


def _search(values: Floats, weights: Floats | None, ks: list[float],
            grid: Grid) -> tuple[Floats, NDArray[np.float16]]:
    """Steps of the grid [32, n] and scales [n] of blocks `values` [32, n]."""
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=0)[None], axis=0)[0]
    weighted = values if weights is None else values * weights
    most, best = np.zeros_like(largest), np.zeros_like(largest)
    steps = np.empty_like(values)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse = np.where(largest == 0, np.float32(0), np.float32(1) / largest)
        for k in ks:
            grid.nearest(values, inverse * np.float32(k), steps)
            fitted, gain = _fit(steps, weighted, weights)
            better = gain > most
            np.copyto(most, gain, where=better)
            np.copyto(best, fitted, where=better)
        for _ in range(2):
            half = np.nan_to_num(best, nan=0, posinf=0, neginf=0).astype(np.float16)
            grid.nearest(values, inverse_of(half), steps)
            best, _ = _fit(steps, weighted, weights)
    return steps, half


def _fit(steps: Floats, weighted: Floats, weights: Floats | None) -> tuple[Floats, Floats]:
    """The best scale [n] for `steps` [32, n], and what it takes off the squared error."""
    product = np.einsum("in,in->n", steps, weighted)
    square = np.einsum("in,in->n", steps, steps if weights is None else steps * weights)
    fitted = product / square
    return fitted, product * fitted


def inverse_of(scales: NDArray[np.floating]) -> Floats:
    """1 / scale as float32; zero for a scale of zero, or one that float32 cannot invert."""
    with np.errstate(divide="ignore"):
        inverse = np.float32(1) / scales.astype(np.float32)
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _better(found: Codes, blocks: Floats, importance: Floats | None) -> Codes:
    """Block by block `found`, or rtn's codes where they have less error: what is found is never worse."""
    grid = found.grid
    full = full_scales(blocks, grid)
    plain, half = choose(blocks, full, grid), to_half(full)
    values = found.values.reshape(blocks.shape)
    worse = ~(_error(grid.table[values], found.scales, blocks, importance)
              < _error(grid.table[plain], half, blocks, importance))
    return Codes(np.where(worse[..., None], plain, values).reshape(found.values.shape),
                 np.where(worse, half, found.scales), grid)


def _error(steps: Floats, scales: NDArray[np.float16], blocks: Floats, importance: Floats | None) -> Floats:
    """The weighted squared error of every block, float32 [rows, blocks]."""
    difference = steps * scales.astype(np.float32)[..., None]
    difference -= blocks
    np.square(difference, out=difference)
    if importance is not None:
        difference *= importance.reshape(blocks.shape[1:])
    error: Floats = difference.sum(axis=-1)
    return error
