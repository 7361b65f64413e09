"""From hidden states to a loss without ever holding all logits.

With 151,936 tokens in the vocabulary, the logits of 4,096 positions take 2.5 GB, and a loss needs several tensors
of that size. Here the head is applied to a few positions at a time, and each chunk's gradient is computed at once,
while its logits are still there; so nothing is kept, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ..models.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

LOGITS_AT_ONCE = 2**23
"""Logits of one chunk (32 MiB in float32); a loss holds about ten tensors of this size for a moment."""

RowLoss = Callable[["Tensor", slice], "Tensor"]
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

        logits = functional.linear(hidden, weight, bias).float() * self.scale
        return (logits / self.softcap).tanh() * self.softcap if self.softcap else logits

    def rows(self, index: Tensor) -> Head:
        """The head of the tokens in `index` only."""
        bias = None if self.bias is None else self.bias[index]
        return Head(self.weight[index].contiguous(), bias, self.scale, self.softcap)


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


def summed_loss(hidden: Tensor, head: Head, row_loss: RowLoss, dtype: Any) -> Tensor:
    """The sum of `row_loss` over all positions as a scalar with gradients for `hidden` [n, h] and the head.

    `dtype` is the type that the head's product is computed in; logits and losses are float32.
    """
    import torch

    if torch.is_grad_enabled() and (hidden.requires_grad or head.weight.requires_grad):
        result: Tensor = _function().apply(hidden, head.weight, head.bias, head, row_loss, dtype)
        return result
    weight, bias = head.weight.to(dtype), None if head.bias is None else head.bias.to(dtype)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for part in chunks(len(hidden), len(weight)):
        total += row_loss(head.logits(hidden[part].to(dtype), weight, bias), part).sum()
    return total


def chunks(positions: int, vocabulary: int) -> list[slice]:
    """Slices of positions that hold about LOGITS_AT_ONCE logits each."""
    size = max(16, LOGITS_AT_ONCE // vocabulary)
    return [slice(start, min(start + size, positions)) for start in range(0, positions, size)]


@cache
def _function() -> Any:
    import torch

    class ChunkedLoss(torch.autograd.Function):  # type: ignore[misc]
        """The forward pass computes the gradients too; the backward pass only scales them."""

        @staticmethod
        def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, head: Head, row_loss: RowLoss,
                    dtype: Any) -> Tensor:
            values = (hidden, weight, bias)
            needed = [value is not None and ctx.needs_input_grad[place] for place, value in enumerate(values)]
            # Leaves of their own, cast once for all chunks.
            leaves: list[Any] = [
                None if value is None else value.detach().to(dtype).requires_grad_(place > 0 and needed[place])
                for place, value in enumerate(values)]
            # Chunks are added up in float32: in bfloat16 the small ones would be rounded away.
            sums: list[Any] = [torch.zeros_like(value, dtype=torch.float32) if is_needed else None
                               for value, is_needed in zip(values, needed, strict=True)]
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            for part in chunks(len(hidden), len(weight)):
                states = leaves[0][part].detach().requires_grad_(needed[0])
                with torch.enable_grad():
                    loss = row_loss(head.logits(states, leaves[1], leaves[2]), part).sum()
                places = [place for place in range(3) if needed[place]]
                grads = torch.autograd.grad(loss, [states if place == 0 else leaves[place] for place in places])
                for place, grad in zip(places, grads, strict=True):
                    (sums[0][part] if place == 0 else sums[place]).add_(grad)
                total += loss.detach()
            ctx.grads = [None if grad is None else grad.to(value.dtype)
                         for grad, value in zip(sums, values, strict=True)]
            return total

        @staticmethod
        def backward(ctx: Any, *outputs: Tensor) -> tuple[Any, ...]:
            scale, grads, ctx.grads = outputs[0], ctx.grads, None
            return (*(None if grad is None else grad.mul_(scale.to(grad.dtype)) for grad in grads), None, None, None)

    return ChunkedLoss
