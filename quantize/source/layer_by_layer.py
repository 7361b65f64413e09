"""Rows on their way through a decoder, one layer at a time: every layer runs once over all rows, and only its own
numbers have to be held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from .float_model import FloatModel

CLOSE = 1e-3
"""Of the length of a layer's output: walking and running the whole model differ by rounding alone."""


def stack(module: Any) -> tuple[str, Any]:
    """Name and modules of the decoder's layers: the longest list of modules."""
    import torch

    stacks = {name: each for name, each in module.named_modules() if isinstance(each, torch.nn.ModuleList)}
    if not stacks:
        return "", torch.nn.ModuleList()
    name = max(stacks, key=lambda name: len(stacks[name]))
    return name, stacks[name]


@contextmanager
def watched(layers: Mapping[str, Any], collect: Callable[[str, Any], None]) -> Iterator[None]:
    """Hand every input of `layers` to `collect` inside the block, as a tensor [tokens, channels]."""
    def hook(name: str) -> Any:
        return lambda _module, inputs: collect(name, inputs[0].detach().reshape(-1, inputs[0].shape[-1]))

    with ExitStack() as handles:
        for name, module in layers.items():
            handles.callback(module.register_forward_pre_hook(hook(name)).remove)
        yield


@contextmanager
def replaced(layers: Sequence[Any], forwards: Sequence[Callable[..., Any]]) -> Iterator[None]:
    """Let the first layers compute `forwards` instead of their own, one each."""
    with ExitStack() as handles:
        for layer, forward in zip(layers, forwards, strict=False):
            own = {name: value for name, value in vars(layer).items() if name == "forward"}
            layer.forward = forward
            handles.callback(vars(layer).update, own)
            handles.callback(vars(layer).pop, "forward")
        yield


@dataclass(frozen=True)
class _Call:
    """What a layer is called with beside the hidden states: masks and positions, which no layer changes."""

    inputs: tuple[Any, ...]
    named: dict[str, Any]


class Walk:
    """The hidden states of `chunks` before decoder layer `at`."""

    def __init__(self, model: FloatModel, chunks: Sequence[Sequence[int]]) -> None:
        """Computes the embeddings and no layer, but for those of the first chunk: see `faithful`."""
        import torch

        self._model, self._chunks = model, chunks
        _, self.layers = stack(model.module)
        self.at = 0
        with torch.inference_mode():
            outputs = self._whole(chunks[0])
            self._beside = [output[1:] if isinstance(output, tuple) else None for output in outputs]
            self._calls: list[list[_Call]] = []
            self._states: list[Any] = []
            for ids in chunks if len(outputs) == len(self.layers) > 0 else ():
                calls, state = self._recorded(ids)
                self._calls.append(calls)
                self._states.append(state)
            self.faithful = bool(self._states) and self._agrees(_state(outputs[-1]))
            """Whether layers called one by one compute what the model computes; families that hand more than hidden
            states from layer to layer do not."""

    def step(self) -> None:
        """Run layer `at` over all rows."""
        import torch

        with torch.inference_mode():
            for index, state in enumerate(self._states):
                self._states[index] = self._called(index, state, self.at)
        self.at += 1

    def finish(self) -> None:
        """Run what follows the last layer on the states as they are; they stay."""
        import torch

        with torch.inference_mode():
            for ids, state in zip(self._chunks, self._states, strict=True):
                def stub(*_: Any, index: int, state: Any = state, **__: Any) -> Any:
                    return self._shaped(index, state)
                with replaced(self.layers, [_bound(stub, index) for index in range(len(self.layers))]):
                    self._run(ids)

    def _called(self, chunk: int, state: Any, layer: int) -> Any:
        call = self._calls[chunk][layer]
        return _state(self.layers[layer](state, *call.inputs, **call.named))

    def _whole(self, ids: Sequence[int]) -> list[Any]:
        """Every layer's output for a chunk, computed as the model does."""
        seen: list[Any] = []
        with ExitStack() as handles:
            for layer in self.layers:
                handles.callback(layer.register_forward_hook(lambda _m, _i, output: seen.append(output)).remove)
            self._run(ids)
        return seen

    def _recorded(self, ids: Sequence[int]) -> tuple[list[_Call], Any]:
        """What every layer is called with, and the state that the first one gets."""
        calls: list[_Call] = []
        first: list[Any] = []

        def stub(*inputs: Any, index: int, **named: Any) -> Any:
            state = inputs[0] if inputs else named.pop("hidden_states")
            first.append(state)
            calls.append(_Call(inputs[1:], named))
            return self._shaped(index, state)
        with replaced(self.layers, [_bound(stub, index) for index in range(len(self.layers))]):
            self._run(ids)
        return calls, first[0]

    def _shaped(self, layer: int, state: Any) -> Any:
        """A state in the form that the layer returns it in."""
        beside = self._beside[layer]
        return state if beside is None else (state, *beside)

    def _agrees(self, wanted: Any) -> bool:
        """Whether walking the first chunk ends in `wanted`."""
        if any(len(calls) != len(self.layers) for calls in self._calls):
            return False
        state = self._states[0]
        for layer in range(len(self.layers)):
            state = self._called(0, state, layer)
        return bool((state - wanted).norm() <= CLOSE * wanted.norm())

    def _run(self, ids: Sequence[int]) -> None:
        import torch

        self._model.module(input_ids=torch.tensor([list(ids)], device=self._model.device), use_cache=False)


def _bound(stub: Callable[..., Any], index: int) -> Callable[..., Any]:
    return lambda *inputs, **named: stub(*inputs, index=index, **named)


def _state(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output
