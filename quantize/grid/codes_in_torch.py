"""The float model with the weights that 4-bit codes stand for: what a packed file is, but for an engine's rounding.

From the float model itself a sound 4-bit file may lie as far away as a mild fault. From its own codes it does not: what
differs there is the engine, the graph or the packing, not the quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from numpy.typing import NDArray

from ..source import replaced_weights
from ..source.float_model import FloatModel
from .codes import Codes, dequantize
from .encode import Encoder, Stored
from .scaled_grids import Q4_0, Grid


class Coded:
    """An encoder that remembers where the codes it gave stand, and puts them into a float model."""

    def __init__(self, encode: Encoder, turned: bool = False) -> None:
        """`turned`: the float model keeps its matrices as [in, out]."""
        self._encode, self._turned = encode, turned
        self._stored: dict[str, Stored] = {}

    def __call__(self, name: str, weight: NDArray[np.float32], grid: Grid = Q4_0) -> Codes:
        """Its codes on `grid`."""
        self._stored[name] = self._encode.find(name, weight, grid)
        return self._stored[name].read()

    def each(self) -> Iterator[tuple[str, Codes, bool]]:
        """Name and codes [out, in] of every matrix, and whether the float model keeps it as [in, out]."""
        for name, stored in self._stored.items():
            yield name, stored.read(), self._turned

    def placed(self, model: FloatModel) -> AbstractContextManager[FloatModel | None]:
        """The model on its codes; None where none were given, or the format splits or turns its matrices first."""
        return self._on(model, lambda name, _: self._stored[name].read())

    def rounded(self, model: FloatModel) -> AbstractContextManager[FloatModel | None]:
        """The model with the same matrices rounded to the nearest step of a block, as the plainest method does."""
        return self._on(model, Encoder({"kind": "rtn"}, None))

    def _on(self, model: FloatModel, make: Callable[[str, NDArray[np.float32]], Codes]
            ) -> AbstractContextManager[FloatModel | None]:
        """The model on what `make` gives for the name and weight [out, in] of each coded matrix."""
        if not self._stored:
            return nullcontext(None)
        if self._turned:
            return replaced_weights.placed(model, self._stored, lambda name, kept: dequantize(
                make(name, np.ascontiguousarray(kept.T))).T)
        return replaced_weights.placed(model, self._stored, lambda name, kept: dequantize(make(name, kept)))
