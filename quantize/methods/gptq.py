"""Round weights one column at a time and let the columns not yet rounded make up for each error (GPTQ).

What a layer gets wrong is tr(E H E^T), with E the error of its weights and H = E[x x^T] of its inputs: inputs that go
together let errors cancel. Three steps, each in the metric H:

1. Scales and codes of scale_search, with the diagonal of H.
2. GPTQ (Frantar et al., arXiv:2210.17323) at those scales, the columns of the largest inputs first. With
   H = (I + U) D (I + U)^T, U strictly upper triangular and D diagonal, the error is sum_k D_k (E_k + sum_j E_j U_jk)^2
   over j before k: column k is rounded to what lies nearest to its weight plus the errors before it times U.
3. Rows where that helped keep it. Then coordinate descent: block by block, every code moves to its best value given
   all others, and the scale to its least-squares value. No step of it can raise the error.

On weights that nothing gains on (already on the grid) no step has an error to move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ...models.scheme import BLOCK_SIZE
from ...models.strict import limited
from ..grid.codes import Codes, by_rows
from ..grid.scaled_grids import Q4_0, Grid
from . import scale_search
from .scale_search import inverse_of

GRAM = True
"""Asks for the whole second moments E[x x^T] of a layer's input, not for their diagonal alone."""

CHUNK_WEIGHTS = 1 << 21
"""Weights worked on at once by a thread: steps go column by column, so a chunk needs many rows."""

TOGETHER = 8
"""Columns that are worked on one by one; what they change of the others is one product of matrices."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Config:
    """How far the inputs of the calibration rows are trusted, and how long codes are refined."""

    damp: float = limited(0.05, minimum=1e-6, maximum=10.0)
    """Added to the diagonal of H, as a share of its mean: the fewer the rows, the more it takes."""
    sweeps: int = limited(3, minimum=0, maximum=100)
    """Rounds of coordinate descent; beyond 3 the error falls by less than 1 %."""


def quantize(weight: Floats, moments: Floats | None, config: Config, grid: Grid = Q4_0) -> Codes:
    """Quantize `weight` [rows, columns] for inputs of second moments `moments` [columns, columns].

    Without moments (a table that only looks rows up) it is scale_search. Raises ArtifactError for moments of another
    shape, that are not finite or that cannot be inverted, and what scale_search raises.
    """
    if moments is None:
        return scale_search.quantize(weight, None, scale_search.Config(), grid)
    rows, columns = weight.shape
    if moments.shape != (columns, columns) or not np.isfinite(moments).all():
        raise ArtifactError(f"second moments of shape {moments.shape} for {columns} columns, or not finite",
                            "calibrate this model again")
    diagonal = np.ascontiguousarray(np.diag(moments))
    start = scale_search.quantize(weight, diagonal, scale_search.Config(), grid)
    mean = float(diagonal.mean(dtype=np.float64))
    if mean <= 0:
        return start
    metric = moments / np.float32(mean) + np.float32(config.damp) * np.eye(columns, dtype=np.float32)
    order = np.argsort(-diagonal, kind="stable")
    try:
        feedback = _feedback(metric[np.ix_(order, order)])
    except np.linalg.LinAlgError as error:
        raise ArtifactError(f"second moments of {columns} inputs cannot be inverted with damp = {config.damp:g}",
                            "set a larger damp in export.method, or calibrate on more rows") from error

    def work(part: slice) -> Codes:
        rounding = _Rounding(weight[part], Codes(start.values[part], start.scales[part], grid), metric)
        rounding.feed_back(order, feedback)
        for _ in range(config.sweeps):
            rounding.descend()
        return rounding.codes()
    return Codes.join(by_rows(work, rows, columns, CHUNK_WEIGHTS))


def _feedback(metric: Floats) -> Floats:
    """I + U of metric = (I + U) D (I + U)^T: upper triangular, ones on its diagonal."""
    # The Cholesky factor of the metric with its columns in reverse is, in reverse, an upper triangular one.
    upper = np.linalg.cholesky(metric[::-1, ::-1].astype(np.float64))[::-1, ::-1]
    return (upper / np.diag(upper)).astype(np.float32)


class _Rounding:
    """Rows in the making. Everything lies transposed, [columns, rows]: one column is one run of memory."""

    def __init__(self, weight: Floats, start: Codes, metric: Floats) -> None:
        self.weight, self.grid = np.ascontiguousarray(weight.T), start.grid
        self.steps = start.grid.table[np.ascontiguousarray(start.values.T)]
        self.scales = start.scales.T.astype(np.float32)
        self.metric = metric
        self.error = self.weight - self.steps * np.repeat(self.scales, BLOCK_SIZE, axis=0)

    def feed_back(self, order: NDArray[np.intp], feedback: Floats) -> None:
        """One pass of GPTQ over the columns in `order`; rows that it makes worse stay as they are."""
        weight = self.weight[order]
        blocks = order // BLOCK_SIZE
        inverse = inverse_of(self.scales)
        steps, errors = np.empty_like(weight), np.empty_like(weight)
        for start in range(0, len(order), TOGETHER):
            end = start + TOGETHER
            wanted = weight[start:end] + feedback[:start, start:end].T @ errors[:start]
            for column in range(start, end):
                block = blocks[column]
                self.grid.nearest(wanted[column - start], inverse[block], steps[column])
                errors[column] = weight[column] - steps[column] * self.scales[block]
                wanted[column - start + 1 :] += feedback[column, column + 1 : end, None] * errors[column]
        found = steps[np.argsort(order)]
        error = self.weight - found * np.repeat(self.scales, BLOCK_SIZE, axis=0)
        better = self._lost(error) < self._lost(self.error)
        np.copyto(self.steps, found, where=better)
        np.copyto(self.error, error, where=better)

    def descend(self) -> None:
        """One round of coordinate descent over all codes and scales."""
        for block in range(len(self.scales)):
            part = slice(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE)
            own = np.ascontiguousarray(self.metric[part, part])
            weight, steps, error, scale = self.weight[part], self.steps[part], self.error[part], self.scales[block]
            pull = self.metric[part] @ self.error
            change = self._choose(weight, steps, error, scale, own, pull.copy())
            pull += own @ change
            more = _refit(steps, scale, own, pull)
            scale += more
            error -= steps * more

    def _choose(self, weight: Floats, steps: Floats, error: Floats, scale: Floats, own: Floats,
                pull: Floats) -> Floats:
        """Move the codes of one block in place, column by column; returns by how much the error changed. `pull` is half
        the gradient of what is lost; it is kept true for the columns to come."""
        inverse, change = inverse_of(scale), np.empty_like(error)
        for start in range(0, BLOCK_SIZE, TOGETHER):
            end = start + TOGETHER
            for column in range(start, end):
                wanted = weight[column] - error[column] + pull[column] / own[column, column]
                self.grid.nearest(wanted, inverse, steps[column])
                now = weight[column] - steps[column] * scale
                np.subtract(now, error[column], out=change[column])
                error[column] = now
                pull[column + 1 : end] += own[column + 1 : end, column, None] * change[column]
            pull[end:] += own[end:, start:end] @ change[start:end]
        return change

    def _lost(self, error: Floats) -> Floats:
        """What every row [rows] loses by `error`."""
        lost: Floats = np.einsum("cr,cr->r", self.metric @ error, error)
        return lost

    def codes(self) -> Codes:
        """What was found, rows first."""
        values = np.ascontiguousarray(self.grid.codes(self.steps).T)
        return Codes(values, np.ascontiguousarray(self.scales.T).astype(np.float16), self.grid)


def _refit(steps: Floats, scale: Floats, own: Floats, gradient: Floats) -> Floats:
    """What to add to the scales [rows] of one block, so that they stay float16 numbers and the error does not rise."""
    square = np.einsum("cr,cr->r", own @ steps, steps)
    product = np.einsum("cr,cr->r", gradient, steps)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        change = (scale + product / square).astype(np.float16).astype(np.float32) - scale
        gains = change * (change * square - 2 * product) < 0
    return np.where(gains & np.isfinite(change), change, np.float32(0))
