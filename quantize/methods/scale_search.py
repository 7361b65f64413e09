"""Search each block's signed scale for the least importance-weighted squared error.

Candidates are m / k, where m is the block's value of largest magnitude and k runs from 5 to 11 with both signs.
Each is rounded to float16 first, and codes are chosen for the rounded scale, so the error that is compared is the
error that ships. The best one is then refitted by least squares, d = sum(w c x) / sum(w c c), kept where it helps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ...models.strict import limited
from ..codes import ZERO_POINT, Codes, blocks_of, choose, full_scales, row_chunks, to_half

SMALLEST, LARGEST = 5, 11
"""Bounds of k. Every whole number between them is tried, so weights that stand on the grid stay where they are."""


@dataclass(frozen=True)
class Config:
    """How finely scales are searched."""

    steps: int = limited(4, minimum=1, maximum=16)
    """Candidates for each unit of k; time grows with it."""


def quantize(weight: NDArray[np.float32], importance: NDArray[np.float32] | None, config: Config) -> Codes:
    """Quantize `weight` [rows, columns], weighting errors by `importance` [columns] (None: all alike).

    Raises ArtifactError when rows are no whole number of blocks, a scale is above float16's limit, or the importance
    is of another length, negative or not finite.
    """
    rows, columns = weight.shape
    blocks = blocks_of(weight)
    roots = _roots(importance, columns)
    values = np.empty((rows, columns), np.uint8)
    scales = np.empty(blocks.shape[:2], np.float16)
    for part in row_chunks(rows, columns):
        found, half = _search(blocks[part], roots, candidates(config.steps))
        values[part] = found.reshape(-1, columns)
        scales[part] = half
    return Codes(values, scales)


def candidates(steps: int) -> list[float]:
    """The values of k. Up to 7.5 both signs reach the same weights, since no code is cut off."""
    grid = [SMALLEST + index / steps for index in range((LARGEST - SMALLEST) * steps + 1)]
    return [sign * k for k in grid for sign in (-1.0, 1.0) if sign < 0 or k > ZERO_POINT - 0.5]


def _roots(importance: NDArray[np.float32] | None, columns: int) -> NDArray[np.float32] | None:
    """Square roots of the importance as [blocks, 32], scaled to a mean square of one."""
    if importance is None:
        return None
    if importance.shape != (columns,) or not np.isfinite(importance).all() or (importance < 0).any():
        raise ArtifactError(f"importance of shape {importance.shape} for {columns} columns, or with values that are "
                            "negative or not finite", "calibrate this model again")
    mean = float(importance.mean(dtype=np.float64))
    # A column no calibration row used still counts a little: other rows may use it.
    weights = importance / mean + 1e-4 if mean > 0 else np.ones(columns)
    return np.sqrt(weights, dtype=np.float32).reshape(blocks_of(importance[None]).shape[1:])


def _search(blocks: NDArray[np.float32], roots: NDArray[np.float32] | None,
            ks: list[float]) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Codes [rows, blocks, 32] and scales [rows, blocks] of one chunk."""
    full = full_scales(blocks)
    best = to_half(full)
    codes = choose(blocks, full)  # rtn's own codes: what is found is never worse
    error = _error(blocks, codes.astype(np.float32) - np.float32(ZERO_POINT), best, roots)
    scratch = np.empty_like(blocks)
    for k in ks:
        half = (full * np.float32(-ZERO_POINT / k)).astype(np.float16)
        steps = _nearest(blocks, half, scratch)
        _keep(half, _error(blocks, steps, half, roots), best, error)
    found = _nearest(blocks, best, np.empty_like(blocks))
    # rtn chooses its codes with the unrounded scale: where nothing beat it, its codes stand.
    kept = _error(blocks, found, best, roots) > error
    found[kept] = codes[kept].astype(np.float32) - np.float32(ZERO_POINT)

    weighted = found if roots is None else found * roots * roots
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        fitted = (np.einsum("rbi,rbi->rb", weighted, blocks) / np.einsum("rbi,rbi->rb", weighted, found))
        half = np.where(np.isfinite(fitted), fitted, 0).astype(np.float16)
    refitted = _nearest(blocks, half, scratch)
    # The largest code stays at 5 or more, where a search over the result meets the same scale again.
    better = (_error(blocks, refitted, half, roots) < error) & (np.abs(refitted).max(axis=-1) >= SMALLEST)
    found[better] = refitted[better]
    best[better] = half[better]
    return (found + np.float32(ZERO_POINT)).astype(np.uint8), best


def _nearest(blocks: NDArray[np.float32], half: NDArray[np.float16], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest steps -8..7 for stored scales, into `out`; zero where the scale is zero or not finite."""
    scales = half.astype(np.float32)
    with np.errstate(divide="ignore"):
        inverse = np.where((scales == 0) | ~np.isfinite(scales), np.float32(0), np.float32(1) / scales)
    np.multiply(blocks, inverse[..., None], out=out)
    np.rint(out, out=out)
    return np.clip(out, -ZERO_POINT, ZERO_POINT - 1, out=out)


def _error(blocks: NDArray[np.float32], steps: NDArray[np.float32], half: NDArray[np.float16],
           roots: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """The weighted squared error of every block; infinite where the scale is."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = steps * half.astype(np.float32)[..., None]
        difference -= blocks
        if roots is not None:
            difference *= roots
        error: NDArray[np.float32] = np.einsum("rbi,rbi->rb", difference, difference)
    return np.where(np.isfinite(error), error, np.float32(np.inf))


def _keep(half: NDArray[np.float16], found: NDArray[np.float32], best: NDArray[np.float16],
          error: NDArray[np.float32]) -> None:
    """Take over, in place, the scales that have less error than the best so far."""
    better = found < error
    best[better] = half[better]
    error[better] = found[better]
