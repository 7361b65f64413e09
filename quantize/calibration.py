"""What a model's linear layers see: the mean square of each input channel over the user's own rows.

A weight matters as much as the input it is multiplied with: for a linear layer y = W x the expected error of y
is sum_j E[x_j^2] * (error of column j)^2, so E[x_j^2] is the weight that methods and llama.cpp's quantizer (which
calls it an importance matrix) put on column j.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.errors import DataError
from .float_model import FloatModel

CHUNK_TOKENS = 512
"""Tokens in one forward pass: bounds memory, and a fixed cut keeps the sums the same on every run."""
GROUP_BYTES = 1 << 30
"""Second moments held at once."""


@dataclass(frozen=True)
class Calibration:
    """Importance by Hugging Face weight name: float32 [input channels], the mean square of the layer's input."""

    importance: dict[str, NDArray[np.float32]]
    tokens: int
    """Tokens the means were taken over."""
    gram: Callable[[str], NDArray[np.float32] | None] = lambda name: None
    """E[x x^T] of a layer's input, float32 [channels, channels], by weight name; None for what is no layer. Costs
    forward passes, so it is computed when asked for."""


def calibrate(source: Path, sequences: Sequence[Sequence[int]]) -> Calibration:
    """Run the float model in the Hugging Face folder `source` over token `sequences` and collect its calibration.

    Raises DataError when there is no token to run over.
    """
    return measure(FloatModel.from_folder(source), sequences)


def measure(model: FloatModel, sequences: Sequence[Sequence[int]]) -> Calibration:
    """`calibrate` for a model that is already loaded."""
    import torch

    chunks = list(_chunks(sequences, min(CHUNK_TOKENS, model.context_length)))
    if not chunks:
        raise DataError("calibration: the rows hold no tokens",
                        "give rows with text, or export without calibration rows")
    sums: dict[str, NDArray[np.float64]] = {}

    def collect(name: str, inputs: Any) -> None:
        square = inputs.square().sum(dim=0, dtype=torch.float64).numpy()
        sums[name] = sums[name] + square if name in sums else square

    _watch(model, chunks, {f"{name}.weight": module for name, module in model.linear_layers()}, collect)
    tokens = sum(map(len, chunks))
    importance = {name: (total / tokens).astype(np.float32) for name, total in sorted(sums.items())}
    return Calibration(importance, tokens, Grams(model, chunks).of)


class Grams:
    """Second moments of layer inputs, for a few whole layers at a time: those of all together would not fit.

    A group of decoder layers takes at most GROUP_BYTES (a single layer of 8,192 channels 370 MB), and every group one
    run over the calibration tokens. Writers ask layer by layer, so each group is computed once.
    """

    def __init__(self, model: FloatModel, chunks: Sequence[Sequence[int]]) -> None:
        self._model, self._chunks = model, chunks
        self._layers = {f"{name}.weight": module for name, module in model.linear_layers()}
        # transformers' Conv1D holds its matrix as [in, out].
        channels = {name: getattr(module, "in_features", len(module.weight)) for name, module in self._layers.items()}
        self._groups = _groups(channels)
        self._kept: dict[str, NDArray[np.float32]] = {}

    def of(self, name: str) -> NDArray[np.float32] | None:
        """E[x x^T] of the layer whose weight has this name; None where there is none."""
        if name not in self._layers:
            return None
        if name not in self._kept:
            self._kept = {}  # before the next group is summed up
            group = next(group for group in self._groups if name in group)
            self._kept = self._collect({member: self._layers[member] for member in group})
        return self._kept[name]

    def _collect(self, layers: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
        sums: dict[str, Any] = {}
        last: Any = None
        owner = ""

        def collect(name: str, inputs: Any) -> None:
            nonlocal last, owner
            # Queries, keys and values multiply the same input: one product serves the three.
            if last is not None and last.data_ptr() == inputs.data_ptr() and last.shape == inputs.shape:
                sums[name] = sums[owner]
                return
            last, owner = inputs, name
            product = inputs.T @ inputs
            sums[name] = sums[name].add_(product) if name in sums else product

        _watch(self._model, self._chunks, layers, collect)
        tokens = sum(map(len, self._chunks))
        return {name: (total / tokens).numpy() for name, total in sums.items()}


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


def _watch(model: FloatModel, chunks: Sequence[Sequence[int]], layers: Mapping[str, Any],
           collect: Callable[[str, Any], None]) -> None:
    """Run the model over `chunks` and hand every input of `layers` to `collect`, as a tensor [tokens, channels]."""
    import torch

    def hook(name: str) -> Any:
        return lambda _module, inputs: collect(name, inputs[0].detach().reshape(-1, inputs[0].shape[-1]))

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in layers.items()]
    try:
        with torch.inference_mode():
            for chunk in chunks:
                model.module(input_ids=torch.tensor([chunk]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()


def _chunks(sequences: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    for sequence in sequences:
        for start in range(0, len(sequence), size):
            yield list(sequence[start : start + size])
