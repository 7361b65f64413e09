"""What a model's linear layers see: the mean square of each input channel over the user's own rows.

A weight matters as much as the input it is multiplied with: for a linear layer y = W x the expected error of y
is sum_j E[x_j^2] * (error of column j)^2, so E[x_j^2] is the weight that methods and llama.cpp's quantizer (which
calls it an importance matrix) put on column j.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.errors import DataError
from .float_model import FloatModel

CHUNK_TOKENS = 512
"""Tokens in one forward pass: bounds memory, and a fixed cut keeps the sums the same on every run."""


@dataclass(frozen=True)
class Calibration:
    """Importance by Hugging Face weight name: float32 [input channels], the mean square of the layer's input."""

    importance: dict[str, NDArray[np.float32]]
    tokens: int
    """Tokens the means were taken over."""


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

    def collect(name: str) -> Any:
        def hook(_module: Any, inputs: tuple[Any, ...]) -> None:
            channels = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
            square = channels.square().sum(dim=0, dtype=torch.float64).numpy()
            sums[name] = sums[name] + square if name in sums else square
        return hook

    handles = [module.register_forward_pre_hook(collect(f"{name}.weight")) for name, module in model.linear_layers()]
    try:
        with torch.inference_mode():
            for chunk in chunks:
                model.module(input_ids=torch.tensor([chunk]), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    tokens = sum(map(len, chunks))
    return Calibration({name: (total / tokens).astype(np.float32) for name, total in sorted(sums.items())}, tokens)


def _chunks(sequences: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    for sequence in sequences:
        for start in range(0, len(sequence), size):
            yield list(sequence[start : start + size])
