"""How far the model's predictions move when some of its weights are replaced: forward KL, measured in torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .float_model import FloatModel

TOKENS = 2048
LOGITS_BYTES = 1 << 29
"""What the float model's log-probabilities may take: a large vocabulary is measured on fewer tokens."""


class Sensitivity:
    """A float model, the tokens it is measured on, and its answers to them."""

    def __init__(self, model: FloatModel, sequences: Sequence[Sequence[int]]) -> None:
        """`sequences` are read in their order, up to TOKENS tokens."""
        import torch

        self._module = model.module
        # transformers' Conv1D holds its matrix as [in, out].
        self._turned = {f"{name}.weight" for name, module in model.linear_layers()
                        if not hasattr(module, "in_features")}
        self._path, self._layers = _layers(self._module)
        self._inputs = [torch.tensor([ids]) for ids in _cut(sequences, model)]
        self.tokens = sum(ids.shape[1] for ids in self._inputs)
        self._answers: list[Any] = []
        self._outputs: list[list[Any]] = []
        for ids in self._inputs:
            seen: list[Any] = []
            handles = [layer.register_forward_hook(lambda _module, _inputs, output, seen=seen: seen.append(output))
                       for layer in self._layers]
            self._answers.append(self._log_probabilities(ids))
            for handle in handles:
                handle.remove()
            self._outputs.append(seen)

    def weight(self, name: str) -> NDArray[np.float32]:
        """The float weight [out, in] of a Hugging Face name."""
        weight: NDArray[np.float32] = self._module.get_parameter(name).detach().numpy()
        return weight.T if name in self._turned else weight

    def kl(self, replaced: Mapping[str, NDArray[np.float32]]) -> float:
        """Mean KL(float || changed) in nats over all tokens, with the weights [out, in] of these names exchanged."""
        with self._exchanged(replaced):
            total = 0.0
            for ids, answer, outputs in zip(self._inputs, self._answers, self._outputs, strict=True):
                with self._known(outputs[: self._first(replaced)]):
                    found = self._log_probabilities(ids)
                wide = answer.double()
                total += float((wide.exp() * (wide - found.double())).sum())
                del found, wide
        return float(max(total / self.tokens, 0.0))

    def _first(self, names: Mapping[str, Any]) -> int:
        """Layers before the first changed one compute what they did before."""
        found = [re.match(rf"{re.escape(self._path)}\.(\d+)\.", name) for name in names]
        return min((int(match[1]) if match else 0 for match in found), default=0)

    def _log_probabilities(self, ids: Any) -> Any:
        import torch

        with torch.inference_mode():
            return torch.log_softmax(self._module(input_ids=ids, use_cache=False).logits[0].float(), dim=-1)

    @contextmanager
    def _exchanged(self, replaced: Mapping[str, NDArray[np.float32]]) -> Iterator[None]:
        import torch

        kept = {}
        try:
            for name, weight in replaced.items():
                parameter = self._module.get_parameter(name)
                kept[name] = parameter.data
                parameter.data = torch.from_numpy(np.ascontiguousarray(weight.T if name in self._turned else weight))
            yield
        finally:
            for name, data in kept.items():
                self._module.get_parameter(name).data = data

    @contextmanager
    def _known(self, outputs: Sequence[Any]) -> Iterator[None]:
        """Let the first layers give the outputs that they gave to the float model, without computing them."""
        with ExitStack() as stack:
            for layer, output in zip(self._layers, outputs, strict=False):
                layer.forward = lambda *_inputs, output=output, **_named: output
                stack.callback(layer.__dict__.pop, "forward")
            yield


def _layers(module: Any) -> tuple[str, Any]:
    """Name and modules of the stack of decoder layers."""
    import torch

    stacks = {name: each for name, each in module.named_modules() if isinstance(each, torch.nn.ModuleList)}
    name = max(stacks, key=lambda name: len(stacks[name]))
    return name, stacks[name]


def _cut(sequences: Sequence[Sequence[int]], model: FloatModel) -> Iterator[list[int]]:
    left = min(TOKENS, LOGITS_BYTES // (4 * model.vocabulary_size))
    for ids in sequences:
        part = list(ids)[: min(left, model.context_length)]
        left -= len(part)
        if part:
            yield part
