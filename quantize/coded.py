"""The float model with the weights that 4-bit codes stand for: what a packed file is, but for an engine's rounding.

From the float model itself a sound 4-bit file may lie as far away as a mild fault. From its own codes it does not: what
differs there is the engine, the graph or the packing, not the quantization.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from .codes import Codes, dequantize
from .encoding import Encode
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

    @contextmanager
    def placed(self, model: FloatModel) -> Iterator[FloatModel | None]:
        """The model on its codes; None where none were given, or the format splits or turns its matrices first."""
        import torch

        parameters = dict(model.module.named_parameters())
        before: dict[str, torch.Tensor] = {}
        try:
            for name, parts in self._codes.items():
                weight = dequantize(Codes.join(parts))
                placed = torch.from_numpy(np.ascontiguousarray(weight.T) if self._turned else weight)
                kept = parameters[name].data if name in parameters else None
                if kept is None or kept.shape != placed.shape or (placed - kept).norm() > FAR * kept.norm():
                    break
                before[name], parameters[name].data = kept, placed
            whole = len(before) == len(self._codes) > 0
            yield FloatModel(model.folder, model.module) if whole else None  # a new one, without the logits of before
        finally:
            for name, data in before.items():
                parameters[name].data = data
