"""The float model with other numbers in its matrices: for as long as a block lasts, and never another matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgestill.quantize.source import replaced_weights
from edgestill.quantize.source.float_model import FloatModel
from numpy.typing import NDArray

Make = Callable[[str, NDArray[np.float32]], NDArray[np.float32]]
NAME = "model.layers.0.mlp.down_proj.weight"
IDS = [5, 9, 2, 7]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> FloatModel:
    return FloatModel.from_folder(tiny_llama)


def last_row(factor: float) -> Make:
    def make(name: str, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        changed = weight.copy()
        changed[-1] = factor * abs(weight).max() * len(weight)
        return changed
    return make


def test_what_is_given_is_computed_with_and_taken_back(model: FloatModel) -> None:
    import torch

    before = model.logits(IDS)
    with replaced_weights.placed(model, [NAME], lambda name, weight: 1.25 * weight) as other:
        assert other is not None
        found = other.logits(IDS)
    assert not np.array_equal(found, before)
    weight = model.parameter(NAME)
    kept = weight.data.clone()
    weight.data *= 1.25
    assert np.array_equal(FloatModel(model.folder, model.module).logits(IDS), found)
    weight.data = kept
    assert torch.equal(model.parameter(NAME).data, kept)
    assert np.array_equal(FloatModel(model.folder, model.module).logits(IDS), before)


@pytest.mark.parametrize("make", [lambda name, weight: weight[::-1], lambda name, weight: weight[:, :-1],
                                  lambda name, weight: weight * np.float32("nan"), last_row(1.0)],
                         ids=["rows in another order", "another shape", "no numbers", "the last rows alone"])
def test_another_matrix_is_not_put_in_place(make: Make, model: FloatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced_weights, "_AT_ONCE", 256)  # several parts
    with replaced_weights.placed(model, [NAME], make) as other:
        assert other is None


@pytest.mark.parametrize("name", ["model.layers.9.mlp.down_proj.weight", "model.norm.weight"])
def test_what_is_no_matrix_of_the_model_is_not_replaced(name: str, model: FloatModel) -> None:
    with replaced_weights.placed(model, [name], lambda name, weight: weight) as other:
        assert other is None
