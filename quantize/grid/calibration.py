"""What a model's linear layers see: the second moments of their inputs over the user's own rows.

A weight matters as much as the input it is multiplied with: for a linear layer y = W x with E the error of W, the
expected squared error of y is tr(E H E^T), H = E[x x^T]. The diagonal of H, the mean square of each input channel, is
the weight that scale_search and llama.cpp's quantizer (which calls it an importance matrix) put on columns; gptq asks
for the whole of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import progress
from ...models.errors import DataError
from ..source.float_model import FloatModel
from ..source.layer_by_layer import Walk, stack, watched

CHUNK_TOKENS = 512
"""Tokens in one forward pass: bounds memory, and a fixed cut keeps the sums the same on every run."""
GROUP_BYTES = 1 << 30
"""Second moments held at once, where layers cannot be walked one by one."""
WAITING_BYTES = 1 << 26
"""Inputs of a layer that are multiplied at once: products of few tokens are slow, the more so between other work."""
Moments = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Importance by Hugging Face weight name: float32 [input channels], the mean square of the layer's input."""

    importance: Mapping[str, Moments]
    tokens: int
    """Tokens the means were taken over."""
    gram: Callable[[str], Moments | None] = lambda name: None
    """E[x x^T] of a layer's input, float32 [channels, channels], by weight name; None for what is no layer. Costs
    forward passes, so it is computed when asked for, and cheapest when layers are asked for first to last."""
    release: Callable[[], None] = lambda: None
    """Let go of what is kept between two layers, and of the model."""


def calibrate(source: Path, sequences: Sequence[Sequence[int]]) -> Calibration:
    """Run the float model in the Hugging Face folder `source` over token `sequences` and collect its calibration.

    Raises DataError when there is no token to run over.
    """
    return measure(FloatModel.from_folder(source), sequences)


def measure(model: FloatModel, sequences: Sequence[Sequence[int]]) -> Calibration:
    """`calibrate` for a model that is already loaded; nothing is run before it is asked for."""
    chunks = list(_chunks(sequences, min(CHUNK_TOKENS, model.context_length)))
    if not chunks:
        raise DataError("calibration: the rows hold no tokens",
                        "give rows with text, or export without calibration rows")
    grams = Grams(model, chunks)
    return Calibration(Importance(model, chunks), sum(map(len, chunks)), grams.of, grams.release)


class Importance(Mapping[str, Moments]):
    """Mean squares by weight name, in one run of the model over the rows when the first of them is read."""

    def __init__(self, model: FloatModel, chunks: Sequence[Sequence[int]]) -> None:
        self._model, self._chunks = model, chunks
        self._names = [f"{name}.weight" for name, _ in model.linear_layers()]

    @cached_property
    def _found(self) -> dict[str, Moments]:
        import torch

        sums: dict[str, Any] = {}

        def collect(name: str, inputs: Any) -> None:
            square = inputs.square().sum(dim=0, dtype=torch.float64)
            sums[name] = sums[name] + square if name in sums else square
        with watched(_linear(self._model), collect):
            _run(self._model, self._chunks)
        tokens = sum(map(len, self._chunks))
        return {name: (total / tokens).cpu().numpy().astype(np.float32) for name, total in sorted(sums.items())}

    def __getitem__(self, name: str) -> Moments:
        return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        """In the model's order."""
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Grams:
    """Second moments of layer inputs, those of one decoder layer at a time: all together would not fit.

    The rows' hidden states are kept between two layers, so that asking for the layers in their order runs each of them
    once; going back begins anew. Where a family's layers cannot be called one by one, the whole model is run for a few
    layers at a time.
    """

    def __init__(self, model: FloatModel, chunks: Sequence[Sequence[int]]) -> None:
        self._model, self._chunks = model, chunks
        # transformers' Conv1D holds its matrix as [in, out].
        self._channels = {name: getattr(module, "in_features", len(module.weight))
                          for name, module in _linear(model).items()}
        self._path = stack(model.module)[0]
        self._walk: Walk | None = None
        self._kept: dict[str, Moments] = {}

    def release(self) -> None:
        """Forget how far the rows have come: whoever asks again begins anew."""
        self._walk, self._kept = None, {}

    def of(self, name: str) -> Moments | None:
        """E[x x^T] of the layer whose weight has this name; None where there is none."""
        if name not in self._channels:
            return None
        if name not in self._kept:
            self._kept = {}  # before the next ones are summed up
            self._kept = self._walked(name) if self._walker().faithful else self._whole(name)
        return self._kept[name]

    def _walker(self) -> Walk:
        if self._walk is None:
            self._walk = Walk(self._model, self._chunks)
        return self._walk

    def _walked(self, name: str) -> dict[str, Moments]:
        """The moments of all layers in the decoder layer of `name`, or of those outside of all."""
        walk, place = self._walker(), self._place(name)
        if place < walk.at:
            self._walk = None
            walk = self._walker()
        while walk.at < place:
            walk.step()
        progress.at("calibrate, layer by layer", walk.at, len(walk.layers))
        members = {each: module for each, module in _linear(self._model).items() if self._place(each) == place}
        return self._collect(members, walk.step if place < len(walk.layers) else walk.finish)

    def _place(self, name: str) -> int:
        """Which decoder layer a weight belongs to; their number for those outside."""
        found = re.match(rf"{re.escape(self._path)}\.(\d+)\.", name)
        return int(found[1]) if found else len(self._walker().layers)

    def _whole(self, name: str) -> dict[str, Moments]:
        layers = _linear(self._model)
        group = next(group for group in _groups(self._channels) if name in group)
        return self._collect({member: layers[member] for member in group},
                             lambda: _run(self._model, self._chunks))

    def _collect(self, layers: Mapping[str, Any], run: Callable[[], None]) -> dict[str, Moments]:
        sums: dict[str, Any] = {}
        waiting: dict[str, list[Any]] = {}
        owners: dict[str, str] = {}
        last: Any = None

        def add(name: str) -> None:
            product = _product(waiting.pop(name))
            sums[name] = sums[name] + product if name in sums else product

        def collect(name: str, inputs: Any) -> None:
            nonlocal last
            # Queries, keys and values multiply the same input: one product serves the three.
            if last is not None and last[1].data_ptr() == inputs.data_ptr() and last[1].shape == inputs.shape:
                owners[name] = last[0]
                return
            last = name, inputs
            owners[name] = name
            waiting.setdefault(name, []).append(inputs.clone())  # what follows may work in place
            if sum(each.nbytes for each in waiting[name]) >= WAITING_BYTES:
                add(name)

        with watched(layers, collect):
            run()
        for name in list(waiting):
            add(name)
        tokens = sum(map(len, self._chunks))
        found = {name: (total / tokens).cpu().numpy() for name, total in sums.items()}
        return {name: found[owner] for name, owner in owners.items()}


def _linear(model: FloatModel) -> dict[str, Any]:
    """The linear layers by their weights' names."""
    return {f"{name}.weight": module for name, module in model.linear_layers()}


def _product(parts: Sequence[Any]) -> Any:
    """X^T X of inputs [tokens, channels], given in parts."""
    import torch

    inputs = torch.cat(list(parts))
    if inputs.device.type != "cpu":
        return inputs.T @ inputs
    array = inputs.numpy()
    return torch.from_numpy(array.T @ array)  # numpy computes half of it: it sees that the product is symmetric


def _groups(channels: Mapping[str, int]) -> list[list[str]]:
    """Names in groups of whole decoder layers, each of which takes at most GROUP_BYTES or is a single layer."""
    layers: dict[str, list[str]] = {}
    for name in channels:
        found = re.match(r".*?\.\d+\.", name)
        layers.setdefault(found[0] if found else name, []).append(name)
    groups: list[list[str]] = []
    room = 0
    for names in layers.values():
        size = sum(4 * channels[name] ** 2 for name in names)
        if size > room:
            groups.append([])
            room = GROUP_BYTES
        groups[-1] += names
        room -= size
    return groups


def _run(model: FloatModel, chunks: Sequence[Sequence[int]]) -> None:
    """One forward pass for each chunk."""
    import torch

    with torch.inference_mode():
        for index, chunk in enumerate(chunks):
            progress.at("calibrate", index, len(chunks))
            model.module(input_ids=torch.tensor([chunk], device=model.device), use_cache=False)


def _chunks(sequences: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    for sequence in sequences:
        for start in range(0, len(sequence), size):
            yield list(sequence[start : start + size])
