"""A decoder that computes with the very weights its 4-bit file will hold, and learns their codes and scales.

Every matrix that a 4-bit file stores in blocks (quantize/grid/codes.py) is replaced by two parameters, both in steps of
its own grid: `places`, where each weight stands before it is rounded to a code, and `growth`, how many steps a block's
largest code moves because the block's scale has grown. So one learning rate suits both, whatever the weights' size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models.scheme import BLOCK_SIZE
from ...quantize.grid.codes import ZERO_POINT, Codes, dequantize, exact

if TYPE_CHECKING:
    from torch import Tensor

MARGIN = 1 / 64
"""Least distance from the border between two codes that a weight starts at, in steps."""
LARGEST_SCALE = 65504.0

Read = Callable[[str], NDArray[np.float32]]
"""The float weight [out, in] of a parameter's name."""


class Grid:
    """The 4-bit self of a model, which it changes in place; `merge` gives the plain model back.

    The weights are filled in whenever the model's body is called, so whoever reads them sees those of the last call.
    """

    def __init__(self, model: Any, names: Mapping[str, bool]) -> None:
        """`names` of the parameters to hold on the grid, each with whether it is stored as [in, out]."""
        import torch

        self.model, self.transposed = model, dict(names)
        self._modules = {name: model.get_submodule(name.rpartition(".")[0]) for name in names}
        self._scales: dict[str, Tensor] = {}
        for name, module in self._modules.items():
            rows, columns = module.weight.shape[::-1] if names[name] else module.weight.shape
            device = module.weight.device
            del module.weight
            module.places = torch.nn.Parameter(torch.zeros(rows, columns, device=device))
            module.growth = torch.nn.Parameter(torch.zeros(rows, columns // BLOCK_SIZE, device=device))
        self._hook = model.base_model.register_forward_pre_hook(self._fill)

    def start(self, codes: Mapping[str, Codes], read: Read) -> None:
        """Stand exactly where `codes` are; `read` gives the float weights that they were made from."""
        import torch

        for name, module in self._modules.items():
            places, scales = places_of(read(name), codes[name]), codes[name].scales.astype(np.float32)
            self._scales[name] = torch.from_numpy(scales).to(module.places.device)
            with torch.no_grad():
                module.places.copy_(torch.from_numpy(places))
                module.growth.zero_()

    def codes(self, name: str) -> Codes:
        """The codes of a parameter as it stands; where several give the same weights, those an export finds."""
        import torch

        module = self._modules[name]
        with torch.no_grad():
            values = (steps(module.places) + ZERO_POINT).to(torch.uint8).cpu().numpy()
            scales = half_scales(self._scales[name], module.growth).half().cpu().numpy()
        found = exact(dequantize(Codes(values, scales)))
        assert found is not None  # they came from the grid
        return found

    def merge(self) -> Any:
        """The plain model with the weights of the grid in float32, which holds them exactly."""
        import torch

        self._hook.remove()
        for name, module in self._modules.items():
            weight = torch.from_numpy(dequantize(self.codes(name))).to(module.places.device)
            weight = weight.T.contiguous() if self.transposed[name] else weight
            del module.places, module.growth
            if "weight" in vars(module):
                del module.weight
            module.weight = torch.nn.Parameter(weight)
        return self.model

    def _fill(self, _module: Any, _inputs: Any) -> None:
        for name, module in self._modules.items():
            weight = _snap().apply(module.places, module.growth, self._scales[name])
            module.weight = weight.T if self.transposed[name] else weight


def places_of(weight: NDArray[np.float32], codes: Codes) -> NDArray[np.float32]:
    """Where the weights [rows, columns] start, in steps of their scales, always within half a step of their codes.

    A method may have chosen the farther code, to make up for the errors of others. Such a weight starts as far inside
    its code's half step as it lies outside: at the border, the first noise would undo the choice.
    """
    chosen = codes.values.astype(np.float32) - np.float32(ZERO_POINT)
    scales = np.repeat(codes.scales.astype(np.float32), BLOCK_SIZE, axis=1)
    off = np.divide(weight, scales, out=chosen.copy(), where=scales != 0) - chosen
    inside = np.minimum(np.abs(off), np.clip(1 - np.abs(off), 0, 0.5 - MARGIN))
    starts: NDArray[np.float32] = chosen + np.copysign(inside, off)
    return starts


def steps(places: Tensor) -> Tensor:
    """Codes less the zero point, -8..7, as float32: the torch twin of quantize.codes.choose at scales of one."""
    return (places + (ZERO_POINT + 0.5)).trunc().clamp(0, 2 * ZERO_POINT - 1) - ZERO_POINT


def half_scales(scales: Tensor, growth: Tensor) -> Tensor:
    """Scales after their growth, rounded to float16, as float32."""
    grown = scales * (1 + growth / ZERO_POINT)
    return grown.clamp(-LARGEST_SCALE, LARGEST_SCALE).half().float()


@cache
def _snap() -> Any:
    import torch

    class Snap(torch.autograd.Function):  # type: ignore[misc]
        """(places [rows, columns], growth [rows, blocks], scales [rows, blocks]) → the weights of the grid.

        Both roundings pass the gradient straight through (Bengio, Léonard and Courville 2013, arXiv 1308.3432); that
        of a scale is taken at the codes that it multiplies.
        """

        @staticmethod
        def forward(ctx: Any, places: Tensor, growth: Tensor, scales: Tensor) -> Tensor:
            taken, grown = steps(places).view(*growth.shape, BLOCK_SIZE), half_scales(scales, growth)
            ctx.save_for_backward(taken.to(torch.int8), grown, scales)
            return (taken * grown[..., None]).view(places.shape)

        @staticmethod
        def backward(ctx: Any, *outputs: Tensor) -> tuple[Any, ...]:
            taken, grown, scales = ctx.saved_tensors
            grad = outputs[0].view(taken.shape)
            of_growth = (grad * taken).sum(-1) * scales / ZERO_POINT
            return (grad * grown[..., None]).view(outputs[0].shape), of_growth, None

    return Snap
