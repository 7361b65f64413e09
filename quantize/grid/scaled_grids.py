"""The grids that a block of 32 weights may stand on: what its float16 scale is multiplied by, code by code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """One of ggml's types with a scale and no minimum. `steps` rise; the first is the largest in magnitude."""

    type: str
    """ggml's name of it."""
    steps: tuple[int, ...]

    @property
    def reach(self) -> int:
        """The largest magnitude of a step."""
        return -self.steps[0]

    @cached_property
    def even(self) -> bool:
        """Whether steps are neighbouring whole numbers."""
        return self.steps == tuple(range(self.steps[0], self.steps[-1] + 1))

    @cached_property
    def table(self) -> Floats:
        """The steps by code."""
        return np.array(self.steps, np.float32)

    @cached_property
    def _nearest(self) -> Floats:
        """The nearest step of every half from -reach - 1 to reach + 1."""
        halves = np.arange(-2 * self.reach - 2, 2 * self.reach + 3) / 2
        found: Floats = self.table[np.abs(halves[:, None] - self.table).argmin(axis=1)]
        return found

    @cached_property
    def _codes(self) -> NDArray[np.uint8]:
        """The code of every whole number from the first step to the last."""
        return np.searchsorted(self.steps, np.arange(self.steps[0], self.steps[-1] + 1)).astype(np.uint8)

    def nearest(self, values: Floats, inverse: Floats | np.float32, out: Floats) -> Floats:
        """The steps nearest to `values` [..., n] for inverse scales [n], written to `out`."""
        np.multiply(values, inverse, out=out)
        if self.even:
            np.rint(out, out=out)
            return np.clip(out, self.steps[0], self.steps[-1], out=out)
        # To halves first: steps lie so far apart that a value between two halves decides nothing.
        np.multiply(out, np.float32(2), out=out)
        np.rint(out, out=out)
        np.clip(out, -2 * self.reach - 2, 2 * self.reach + 2, out=out)
        out += np.float32(2 * self.reach + 2)
        return np.take(self._nearest, out.astype(np.intp), out=out)

    def codes(self, steps: Floats) -> NDArray[np.uint8]:
        """The codes of `steps`, each of which is one of the grid's."""
        return self._codes[(steps - np.float32(self.steps[0])).astype(np.intp)]


Q4_0 = Grid("Q4_0", tuple(range(-8, 8)))
Q5_0 = Grid("Q5_0", tuple(range(-16, 16)))
IQ4_NL = Grid("IQ4_NL", (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113))
"""Steps close together where weights lie close together: a quarter less error than Q4_0 in the same bytes."""
GRIDS = {grid.type: grid for grid in (Q4_0, Q5_0, IQ4_NL)}
