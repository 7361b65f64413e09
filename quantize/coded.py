"""The float model with the weights that 4-bit codes stand for: what a packed file is, but for an engine's rounding.

From the float model itself a sound 4-bit file may lie as far away as a mild fault. From its own codes it does not: what
differs there is the engine, the graph or the packing, not the quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from numpy.typing import NDArray

from .codes import Codes, dequantize
from .encoding import Encode, encoder
from .float_model import FloatModel

FAR = 0.5
"""Of a matrix's length: 4 bits lie at a tenth of it, rows in another order at 1.4 times."""


class Coded:
    """An encoder that remembers the codes it gave, and puts them into a float model."""

    def __init__(self, encode: Encode, turned: bool = False) -> None:
        """`turned`: the float model keeps its matrices as [in, out]."""
        self._encode, self._turned = encode, turned
        self._codes: dict[str, list[Codes]] = {}

    def __call__(self, name: str, weight: NDArray[np.float32]) -> Codes:
        codes = self._encode(name, weight)
        self._codes.setdefault(name, []).append(codes)  # shares of one matrix come one after the other
        return codes

    def placed(self, model: FloatModel) -> AbstractContextManager[FloatModel | None]:
        """The model on its codes; None where none were given, or the format splits or turns its matrices first."""
        return self._on(model, lambda name, _: dequantize(Codes.join(self._codes[name])))

    def rounded(self, model: FloatModel) -> AbstractContextManager[FloatModel | None]:
        """The model with the same matrices rounded to the nearest step of a block, as the plainest method does."""
        nearest = encoder({"kind": "rtn"}, None)
        return self._on(model, lambda name, weight: dequantize(nearest(name, weight)))

    @contextmanager
    def _on(self, model: FloatModel,
            make: Callable[[str, NDArray[np.float32]], NDArray[np.float32]]) -> Iterator[FloatModel | None]:
        """The model with what `make` gives for the name and weight [out, in] of each coded matrix."""
        import torch

        parameters = dict(model.module.named_parameters())
        before: dict[str, torch.Tensor] = {}
        try:
            for name in self._codes:
                given = parameters[name].data if name in parameters else None
                if given is None or given.ndim != 2:
                    break
                weight = make(name, np.ascontiguousarray((given.T if self._turned else given).numpy()))
                placed = torch.from_numpy(np.ascontiguousarray(weight.T) if self._turned else weight)
                if given.shape != placed.shape or (placed - given).norm() > FAR * given.norm():
                    break
                before[name], parameters[name].data = given, placed
            whole = len(before) == len(self._codes) > 0
            yield FloatModel(model.folder, model.module) if whole else None  # a new one, without the logits of before
        finally:
            for name, data in before.items():
                parameters[name].data = data
