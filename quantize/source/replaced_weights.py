"""The float model with other numbers in its matrices, one layer at a time: two of the whole model would not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .float_model import FloatModel

FAR = 0.5
"""Of a matrix's length: 4 bits lie at a tenth of it, rows in another order at 1.4 times."""
_AT_ONCE = 2**22
"""Weights that are compared at once."""
Make = Callable[[str, NDArray[np.float32]], NDArray[np.float32]]
"""What takes the place of the weight of a name, both as the float model keeps it."""


@contextmanager
def placed(model: FloatModel, names: Iterable[str], make: Make) -> Iterator[FloatModel | None]:
    """The model with what `make` gives for each of the weights `names`, wherever one is used.

    A weight is replaced while its layer computes. None where a name is no matrix of the model, or what is given for it
    is of another shape or is another matrix altogether.
    """
    modules = list(model.module.modules())
    with ExitStack() as hooks:
        whole = True
        for name in names:
            weight = _weight(model, name)
            whole = weight is not None and weight.ndim == 2 and _near(_made(name, weight.data, make), weight.data)
            if not whole:
                break
            for user in [each for each in modules if getattr(each, "weight", None) is weight]:
                hooks.enter_context(_while_computing(name, user, make))
        yield FloatModel(model.folder, model.module) if whole else None  # a new one, without the logits of before


def _weight(model: FloatModel, name: str) -> Any:
    """The parameter of a checkpoint's name; None where the model has none."""
    try:
        return model.parameter(name)
    except AttributeError:
        return None


def _made(name: str, kept: Any, make: Make) -> Any:
    """What takes the place of `kept`."""
    import torch

    weight = np.ascontiguousarray(make(name, np.ascontiguousarray(kept.cpu().numpy())))
    return torch.from_numpy(weight).to(kept.device)


def _near(made: Any, kept: Any) -> bool:
    """Whether a matrix is what another one was rounded to; some rows at a time, for the largest are a gigabyte."""
    if made.shape != kept.shape:
        return False
    rows = max(1, _AT_ONCE // kept.shape[1])
    pairs = [(float((one - other).square().sum()), float(other.square().sum()))
             for one, other in zip(made.split(rows), kept.split(rows), strict=True)]
    apart, length = (sum(part) for part in zip(*pairs, strict=True))
    return bool(apart <= FAR**2 * length)


@contextmanager
def _while_computing(name: str, module: Any, make: Make) -> Iterator[None]:
    kept = module.weight.data

    def before(*_: Any) -> None:
        module.weight.data = _made(name, kept, make)

    def after(*_: Any) -> None:
        module.weight.data = kept
    handles = module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        after()
