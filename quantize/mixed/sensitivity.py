"""How far the model's predictions move when some of its weights are replaced: forward KL, measured in torch, and what
an error of a layer's output costs of it, from gradients."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..source.float_model import FloatModel
from ..source.layer_by_layer import stack

TOKENS = 2048
LOGITS_BYTES = 1 << 29
"""What the float model's log-probabilities may take: a large vocabulary is measured on fewer tokens."""
BACKWARD_TOKENS = 256
"""Tokens that gradients are taken over at once: what every layer computed is held for them."""


class Sensitivity:
    """A float model, the tokens it is measured on, and its answers to them."""

    def __init__(self, model: FloatModel, sequences: Sequence[Sequence[int]]) -> None:
        """`sequences` are read in their order, up to TOKENS tokens."""
        import torch

        self._model, self._module = model, model.module
        # transformers' Conv1D holds its matrix as [in, out].
        self._turned = {f"{name}.weight" for name, module in model.linear_layers()
                        if not hasattr(module, "in_features")}
        self._path, _ = stack(self._module)
        self._inputs = [torch.tensor([ids], device=model.device) for ids in _cut(sequences, model)]
        self.tokens = sum(ids.shape[1] for ids in self._inputs)
        self._answers = [self._log_probabilities(ids) for ids in self._inputs]

    def weight(self, name: str) -> NDArray[np.float32]:
        """The float weight [out, in] of a Hugging Face name."""
        weight: NDArray[np.float32] = self._model.parameter(name).detach().cpu().numpy()
        return weight.T if name in self._turned else weight

    def kl(self, changed: Mapping[str, NDArray[np.float32]]) -> float:
        """Mean KL(float || changed) in nats over all tokens, with the weights [out, in] of these names exchanged."""
        with self._exchanged(changed):
            total = 0.0
            for ids, answer in zip(self._inputs, self._answers, strict=True):
                found = self._log_probabilities(ids)
                wide = answer.double()
                total += float((wide.exp() * (wide - found.double())).sum())
                del found, wide
        return float(max(total / self.tokens, 0.0))

    def costs(self) -> dict[str, NDArray[np.float32]]:
        """What errors of a layer's output cost, float32 [out] by weight name: KL is about sum_o costs_o E[error_o^2].

        For small errors KL is their square in the Fisher metric: half the mean square of the gradients of log p(token),
        for tokens drawn from the model's own distribution, with respect to the output. Errors of different channels
        and tokens are taken for independent.
        """
        import torch

        sums: dict[str, Any] = {}
        generator = torch.Generator().manual_seed(0)

        def output_hook(name: str) -> Any:
            def add(gradient: Any) -> None:
                square = gradient.detach().reshape(-1, gradient.shape[-1]).square().sum(dim=0)
                sums[name] = sums[name] + square if name in sums else square
            return lambda _module, _inputs, output: output.register_hook(add) and None

        layers = {f"{name}.weight": module for name, module in self._model.linear_layers()}
        frozen = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        with ExitStack() as stack:
            for parameter in frozen:
                parameter.requires_grad_(False)
                stack.callback(parameter.requires_grad_, True)
            # Gradients begin at the embeddings, so that none of weights are computed.
            embedding = self._module.get_input_embeddings()
            stack.callback(embedding.register_forward_hook(
                lambda _module, _inputs, output: output.detach().requires_grad_(True)).remove)
            for name, module in layers.items():
                stack.callback(module.register_forward_hook(output_hook(name)).remove)
            for ids in self._inputs:
                for part in ids.split(BACKWARD_TOKENS, dim=1):
                    with torch.enable_grad():
                        logits = self._module(input_ids=part, use_cache=False).logits[0].float()
                        logs = torch.log_softmax(logits, dim=-1)
                        drawn = torch.multinomial(logs.detach().exp().cpu(), 1, generator=generator).to(logs.device)
                        logs.gather(1, drawn).sum().backward()
        return {name: (total / (2 * self.tokens)).cpu().numpy() for name, total in sums.items()}

    def inside(self, name: str) -> bool:
        """Whether a weight belongs to one of the decoder's layers."""
        return re.match(rf"{re.escape(self._path)}\.\d+\.", name) is not None

    def _log_probabilities(self, ids: Any) -> Any:
        import torch

        with torch.inference_mode():
            return torch.log_softmax(self._module(input_ids=ids, use_cache=False).logits[0].float(), dim=-1)

    @contextmanager
    def _exchanged(self, changed: Mapping[str, NDArray[np.float32]]) -> Iterator[None]:
        import torch

        kept = {}
        try:
            for name, weight in changed.items():
                parameter = self._model.parameter(name)
                kept[name] = parameter.data
                placed = np.ascontiguousarray(weight.T if name in self._turned else weight)
                parameter.data = torch.from_numpy(placed).to(self._model.device)
            yield
        finally:
            for name, data in kept.items():
                self._model.parameter(name).data = data


def _cut(sequences: Sequence[Sequence[int]], model: FloatModel) -> Iterator[list[int]]:
    left = min(TOKENS, LOGITS_BYTES // (4 * model.vocabulary_size))
    for ids in sequences:
        part = list(ids)[: min(left, model.context_length)]
        left -= len(part)
        if part:
            yield part
