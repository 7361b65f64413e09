"""The float model with the weights that 4-bit codes stand for: what a packed file is, but for an engine's rounding.

From the float model itself a sound 4-bit file may lie as far away as a mild fault. From its own codes it does not: what
differs there is the engine, the graph or the packing, not the quantization.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .codes import Codes, dequantize
from .encoding import Encoder, Stored
from .float_model import FloatModel
from .grids import Q4_0, Grid

FAR = 0.5
"""Of a matrix's length: 4 bits lie at a tenth of it, rows in another order at 1.4 times."""


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

    def placed(self, model: FloatModel) -> AbstractContextManager[FloatModel | None]:
        """The model on its codes; None where none were given, or the format splits or turns its matrices first."""
        return self._on(model, lambda name, _: self._stored[name].read())

    def rounded(self, model: FloatModel) -> AbstractContextManager[FloatModel | None]:
        """The model with the same matrices rounded to the nearest step of a block, as the plainest method does."""
        return self._on(model, Encoder({"kind": "rtn"}, None))

    @contextmanager
    def _on(self, model: FloatModel,
            make: Callable[[str, NDArray[np.float32]], Codes]) -> Iterator[FloatModel | None]:
        """The model on what `make` gives for the name and weight [out, in] of each coded matrix.

        A matrix is on its codes while its layer computes: two of the whole model would not fit.
        """
        modules = dict(model.module.named_modules())
        with ExitStack() as hooks:
            whole = bool(self._stored)
            for name in self._stored:
                module = modules.get(name.removesuffix(".weight"))
                placed = None if module is None else self._made(name, module.weight.data, make)
                whole = whole and placed is not None
                if not whole:
                    break
                del placed
                hooks.enter_context(self._while_computing(name, module, make))
            yield FloatModel(model.folder, model.module) if whole else None  # a new one, without the logits of before

    def _made(self, name: str, kept: Any, make: Callable[[str, NDArray[np.float32]], Codes]) -> Any:
        """The matrix on its codes; None where it is another than the one that was packed."""
        import torch

        if kept.ndim != 2:
            return None
        weight = dequantize(make(name, np.ascontiguousarray((kept.T if self._turned else kept).cpu().numpy())))
        placed = torch.from_numpy(np.ascontiguousarray(weight.T) if self._turned else weight).to(kept.device)
        near = kept.shape == placed.shape and bool((placed - kept).norm() <= FAR * kept.norm())
        return placed if near else None

    @contextmanager
    def _while_computing(self, name: str, module: Any,
                         make: Callable[[str, NDArray[np.float32]], Codes]) -> Iterator[None]:
        kept = module.weight.data

        def before(*_: Any) -> None:
            module.weight.data = self._made(name, kept, make)

        def after(*_: Any) -> None:
            module.weight.data = kept
        handles = module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            after()
