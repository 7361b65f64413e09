"""Low-rank adapters over linear layers in 4 bits (QLoRA: Dettmers and others 2023, arXiv 2305.14314).

The model's own matrices are rounded to NF4 and stay as they are; in the end the adapters are merged into the rounded
matrices, in float32: those are what they were trained to correct. Embeddings and heads stay whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...models.errors import MissingExtra, UsageError
from . import lora

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Config(lora.Config):
    """Size and strength of the adapters, as of lora."""

    def __post_init__(self) -> None:
        if find_spec("bitsandbytes") is None:
            raise MissingExtra("bitsandbytes", "bitsandbytes")


def attach(model: Any, config: Config, task_kind: str, seed: int) -> tuple[Any, Callable[[], Any]]:
    """The model to train, and a function that gives the plain trained model.

    Raises UsageError for a model without linear layers in its body.
    """
    from torch import nn

    body = model.base_model
    linear = [(name, layer) for name, layer in body.named_modules() if type(layer) is nn.Linear]
    if not linear:
        raise UsageError(f"adapter: qlora holds linear layers in 4 bits, and {type(model).__name__} has none",
                         'choose {kind = "lora"}')
    for name, layer in linear:
        body.set_submodule(name, _four_bit()(layer))
    adapted, merge = lora.attach(model, config, task_kind, seed)

    def unpack_and_merge() -> Any:
        for layer in list(adapted.modules()):
            if isinstance(getattr(layer, "base_layer", None), _four_bit()):
                layer.base_layer = layer.base_layer.plain()
        return merge()

    return adapted, unpack_and_merge


@cache
def _four_bit() -> Any:
    import bitsandbytes
    import torch

    class FourBit(bitsandbytes.nn.Linear4bit):  # type: ignore[misc]
        """A linear layer whose matrix is held in NF4 and whose bias is whole."""

        def __init__(self, layer: Any) -> None:
            super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, quant_type="nf4",
                             device="meta")
            weight = bitsandbytes.nn.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
            self.weight = weight.to(layer.weight.device)  # which rounds it
            self.bias = layer.bias

        def forward(self, states: Tensor) -> Tensor:
            """In the type of the autocast around it. bitsandbytes' own keeps the first type that it sees, rounds the
            bias to it for good, and on some processors packs what it evaluates so that it trains no more."""
            kind = states.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
            bias = None if self.bias is None else self.bias.to(dtype)
            product: Tensor = bitsandbytes.matmul_4bit(states.to(dtype), self.weight, self.weight.quant_state,
                                                       bias=bias)
            return product.to(states.dtype)

        def plain(self) -> Any:
            """The layer in float32, with the matrix as it was rounded."""
            found = torch.nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
            weight = bitsandbytes.functional.dequantize_4bit(self.weight.data, self.weight.quant_state)
            found.weight, found.bias = torch.nn.Parameter(weight.float()), self.bias
            return found

    return FourBit
