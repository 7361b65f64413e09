"""From hidden states to a loss without ever holding all logits.

With 151,936 tokens in the vocabulary, the logits of 4,096 positions take 2.5 GB, and a loss needs several tensors
of that size. Here the head is applied to a few positions at a time, and each chunk's gradient is computed at once,
while its logits are still there; so nothing is kept, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ..models.errors import UsageError
from .signals import ATTENTION, HIDDEN, Inner

if TYPE_CHECKING:
    from torch import Tensor

    from .data.batches import Batch

LOGITS_AT_ONCE = {"cpu": 2**23, "cuda": 2**25}
"""Logits of one chunk (32 and 128 MiB in float32); a loss holds about ten tensors of this size for a moment."""

PlaceLoss = Callable[["Tensor", slice], "Tensor"]
"""(logits [c, v] in float32, which of the n positions) → loss of each position [c]."""


@dataclass(frozen=True)
class Head:
    """How a decoder turns hidden states into logits."""

    weight: Tensor
    """[vocabulary, hidden]"""
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float = 0.0
    """Above 0: logits become softcap * tanh(logits / softcap), as Gemma 2 has them."""

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """hidden [c, hidden] → float32 logits [c, vocabulary]; weight and bias may be copies in another type."""
        from torch.nn import functional

        return self.scaled(functional.linear(hidden, weight, bias))

    def scaled(self, product: Tensor) -> Tensor:
        """The float32 logits of the matrix product alone."""
        logits = product.float() * self.scale
        return (logits / self.softcap).tanh() * self.softcap if self.softcap else logits

    def rows(self, index: Tensor) -> Head:
        """The head of the tokens in `index` only; where they are the first ones in order, it takes no memory."""
        import torch

        first = torch.equal(index, torch.arange(len(index), device=index.device))
        some = slice(len(index)) if first else index
        return Head(self.weight[some], None if self.bias is None else self.bias[some], self.scale, self.softcap)


def head_of(model: Any) -> Head:
    """The head of a decoder, proven on a few tokens to give the model's own logits.

    Raises UsageError for a model that computes its logits in another way.
    """
    import torch

    config = model.config.get_text_config()
    output = model.get_output_embeddings()
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    head = Head(output.weight, getattr(output, "bias", None), scale,
                float(getattr(config, "final_logit_softcapping", None) or 0.0))
    ids = torch.arange(4, device=output.weight.device)[None] % config.vocab_size
    training = model.training
    model.eval()
    with torch.no_grad():
        wanted = model(input_ids=ids, use_cache=False).logits[0].float()
        found = head.logits(hidden_states(model, ids)[0], head.weight, head.bias)
    model.train(training)
    if not torch.allclose(wanted, found, rtol=1e-3, atol=1e-3):
        raise UsageError(f"{type(model).__name__}: its logits are not a linear map of its last hidden states",
                         "choose a model of a family that `edgestill models` lists")
    return head


def hidden_states(model: Any, ids: Tensor) -> Tensor:
    """The last hidden states [batch, length, hidden] of a decoder for right-padded ids.

    No attention mask is given: what is padded on the right lies in the future of every real token, so the
    causal mask hides it, and the attention kernel needs no mask in memory.
    """
    states: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return states


def inner_states(model: Any, ids: Tensor, wanted: Collection[Inner]) -> tuple[Tensor, dict[Inner, Tensor]]:
    """As hidden_states, and what else is `wanted` of a decoder on the way: hidden states [batch, length, hidden], and
    attention [batch, length, length], the mean over heads. UsageError for attention of a model whose layers do not all
    have it."""
    kinds = {what for what, _ in wanted}
    found = model.base_model(input_ids=ids, use_cache=False, output_hidden_states=HIDDEN in kinds,
                             output_attentions=ATTENTION in kinds)
    if ATTENTION in kinds and len(found.attentions) != model.config.get_text_config().num_hidden_layers:
        raise UsageError(f"attention: {len(found.attentions)} layers of {type(model).__name__} have one",
                         "compare hidden states instead")
    return found.last_hidden_state, {
        (what, layer): found.hidden_states[layer] if what == HIDDEN else found.attentions[layer - 1].mean(1)
        for what, layer in wanted}


def at(positions: Tensor, inside: Mapping[Inner, Tensor]) -> dict[Inner, Tensor]:
    """What `inner_states` gave, in float32 at flat places of [batch, length]."""
    return {what: value.flatten(0, 1)[positions].float() for what, value in inside.items()}


def class_logits(model: Any, batch: Batch, precision: str) -> Tensor:
    """Logits [rows, labels] in float32 of a classifier for a batch of texts."""
    with autocast(batch.ids.device.type, precision):
        logits: Tensor = model(input_ids=batch.ids, attention_mask=batch.mask).logits
    return logits.float()


def autocast(device: str, precision: str) -> Any:
    """The context in which a model's forward pass is computed."""
    import torch

    return torch.autocast(device, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def summed_loss(hidden: Tensor, head: Head, place_loss: PlaceLoss, dtype: Any,
                parameters: Sequence[Tensor] = ()) -> Tensor:
    """The sum of `place_loss` over all positions as a scalar with gradients for `hidden` [n, h], the head and the
    loss's own `parameters`, each of which every place is to depend on.

    `dtype` is the type that the head's product is computed in; logits and losses are float32.
    """
    import torch

    if torch.is_grad_enabled() and any(value.requires_grad for value in (hidden, head.weight, *parameters)):
        result: Tensor = _function().apply(head, place_loss, dtype, hidden, head.weight, head.bias, *parameters)
        return result
    weight, bias = head.weight.to(dtype), None if head.bias is None else head.bias.to(dtype)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for part in chunks(len(hidden), len(weight), hidden.device.type):
        total += place_loss(head.logits(hidden[part].to(dtype), weight, bias), part).sum()
    return total


def chunks(positions: int, vocabulary: int, device: str = "cpu") -> list[slice]:
    """Slices of positions that hold about LOGITS_AT_ONCE logits each."""
    size = max(16, LOGITS_AT_ONCE[device] // vocabulary)
    return [slice(start, min(start + size, positions)) for start in range(0, positions, size)]


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add leftᵀ right [v, h] to `total` in float32; left [c, v], right [c, h].

    In place where the types allow it: a matrix of the head's size is neither made nor read again for each chunk.
    """
    if left.dtype == total.dtype:
        total.addmm_(left.T, right)
    else:
        total += left.T @ right


@cache
def _function() -> Any:
    import torch
    from torch.nn import functional

    class ChunkedLoss(torch.autograd.Function):  # type: ignore[misc]
        """The forward pass computes the gradients too; the backward pass only scales them."""

        @staticmethod
        def forward(ctx: Any, head: Head, place_loss: PlaceLoss, dtype: Any, hidden: Tensor, weight: Tensor,
                    bias: Tensor | None, *parameters: Tensor) -> Tensor:
            values = (hidden, weight, bias, *parameters)
            needed = [place for place in range(len(values)) if ctx.needs_input_grad[3 + place]]
            # Chunks are added up in float32: in bfloat16 the small ones would be rounded away.
            sums: dict[int, Any] = {place: torch.zeros_like(values[place], dtype=torch.float32) for place in needed}
            cast = weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            for part in chunks(len(hidden), len(weight), hidden.device.type):
                states = hidden[part].detach().to(dtype)
                product = functional.linear(states, *cast).requires_grad_()
                with torch.enable_grad():
                    loss = place_loss(head.scaled(product), part).sum()
                grad, *others = torch.autograd.grad(loss, [product, *(values[place] for place in needed if place > 2)])
                if 0 in needed:
                    sums[0][part] = grad @ cast[0]
                if 1 in needed:
                    _add_product(sums[1], grad, states)
                if 2 in needed:
                    sums[2] += grad.sum(0, dtype=torch.float32)
                for place, other in zip((place for place in needed if place > 2), others, strict=True):
                    sums[place] += other
                total += loss.detach()
            ctx.grads = [sums[place].to(value.dtype) if value is not None and place in needed else None
                         for place, value in enumerate(values)]
            return total

        @staticmethod
        def backward(ctx: Any, *outputs: Tensor) -> tuple[Any, ...]:
            scale, grads, ctx.grads = outputs[0], ctx.grads, None
            return (None, None, None, *(None if grad is None else grad.mul_(scale.to(grad.dtype)) for grad in grads))

    return ChunkedLoss
