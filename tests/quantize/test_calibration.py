"""Calibration: the mean square of what each linear layer sees."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from edgestill.models.errors import DataError
from edgestill.quantize.grid import calibration
from edgestill.quantize.source import layer_by_layer
from edgestill.quantize.source.float_model import FloatModel

from .. import decoders, tiny

SEQUENCES = [[5, 9, 17, 30, 40], [8, 8, 100], [201]]


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> FloatModel:
    return FloatModel.from_folder(tiny_llama)


def test_importance_is_the_mean_square_of_a_layers_input(model: FloatModel) -> None:
    found = calibration.measure(model, SEQUENCES)
    seen: list[torch.Tensor] = []
    layer = model.module.model.layers[1].mlp.down_proj
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.inference_mode():
        for sequence in SEQUENCES:
            model.module(torch.tensor([sequence]))
    handle.remove()
    expected = torch.cat(seen).square().mean(dim=0).numpy()
    np.testing.assert_allclose(found.importance["model.layers.1.mlp.down_proj.weight"], expected, rtol=1e-5)
    assert found.tokens == 9


def test_every_linear_layer_has_an_importance_of_its_input_width(model: FloatModel) -> None:
    found = calibration.measure(model, SEQUENCES).importance
    weights = {name: tensor for name, tensor in model.module.state_dict().items()
               if tensor.ndim == 2 and not name.endswith("embed_tokens.weight")}
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        assert found[name].shape == (weight.shape[1],) and found[name].dtype == np.float32 and (found[name] >= 0).all()


def test_transposed_layers_are_measured_on_their_input_side(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "gpt2", "gpt2")
    found = calibration.calibrate(folder, SEQUENCES).importance
    assert found["transformer.h.0.mlp.c_proj.weight"].shape == (256,)
    assert found["transformer.h.0.attn.c_attn.weight"].shape == (64,)


def test_the_same_rows_give_the_same_bits_and_leave_no_hook(model: FloatModel) -> None:
    first, second = (calibration.measure(model, SEQUENCES).importance for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not any(module._forward_pre_hooks for module in model.module.modules())


def test_long_sequences_are_cut_to_what_the_model_takes(model: FloatModel) -> None:
    found = calibration.measure(model, [[7] * (model.context_length + 44)])
    assert found.tokens == model.context_length + 44


def test_no_tokens_is_refused(model: FloatModel) -> None:
    with pytest.raises(DataError, match="no tokens"):
        calibration.measure(model, [[]])


@pytest.mark.parametrize("waiting", [calibration.WAITING_BYTES, 1])
def test_second_moments_are_those_of_the_inputs_in_whatever_order_they_are_asked_for(
        model: FloatModel, waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "WAITING_BYTES", waiting)  # inputs of all rows at once, or row by row
    found = calibration.measure(model, SEQUENCES)
    for name in ("model.layers.0.self_attn.k_proj.weight", "lm_head.weight", "model.layers.2.mlp.down_proj.weight",
                 "model.layers.1.mlp.up_proj.weight"):
        gram = found.gram(name)
        assert gram is not None
        np.testing.assert_allclose(np.diag(gram), found.importance[name], rtol=1e-4)
        assert np.linalg.eigvalsh(gram.astype(np.float64)).min() > -1e-4
    assert found.gram("model.embed_tokens.weight") is None


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma3", "lfm2", "qwen3_5", "smollm3"])
def test_walking_the_layers_gives_what_the_whole_model_gives(
        family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = FloatModel.from_folder(decoders.make(tmp_path, family, {})[0])
    walked = calibration.Grams(model, SEQUENCES)
    runs = []
    monkeypatch.setattr(calibration, "_run", lambda *given: runs.append(given))
    names = [f"{name}.weight" for name, _ in model.linear_layers()]
    found = {name: walked.of(name) for name in names}
    assert not runs  # no layer needed the whole model
    monkeypatch.undo()
    monkeypatch.setattr(calibration, "GROUP_BYTES", 1)
    whole = calibration.Grams(model, SEQUENCES)
    monkeypatch.setattr(whole, "_walker", lambda: SimpleNamespace(faithful=False))
    for name in names:
        np.testing.assert_allclose(found[name], whole.of(name), rtol=1e-4, atol=1e-5)


def test_a_family_whose_layers_hand_more_on_than_states_is_run_whole(model: FloatModel) -> None:
    layer = model.module.model.layers[1]
    own, seen = layer.forward, []

    def forward(state: torch.Tensor, *inputs: object, **named: object) -> torch.Tensor:
        seen.append(state)  # a layer that also looks at what an earlier call left behind
        result: torch.Tensor = own(state * len(seen), *inputs, **named)
        return result
    layer.forward = forward
    try:
        assert not layer_by_layer.Walk(model, SEQUENCES).faithful
        seen.clear()
        gram = calibration.measure(model, SEQUENCES[:1]).gram("model.layers.0.mlp.down_proj.weight")
        assert gram is not None and gram.shape == (128, 128)
    finally:
        del layer.forward
    assert layer_by_layer.Walk(model, SEQUENCES).faithful


def test_a_walk_runs_every_layer_once_for_all_layers_asked_for_in_order(model: FloatModel) -> None:
    found = calibration.measure(model, [*SEQUENCES, [4, 4]])
    calls = []
    layers = [layer.mlp for layer in model.module.model.layers]
    handles = [layer.register_forward_pre_hook(lambda module, _: calls.append(module)) for layer in layers]
    names = [f"{name}.weight" for name, _ in model.linear_layers() if "layers" in name]
    for name in names:
        found.gram(name)
    for handle in handles:
        handle.remove()
    # Four rows each, and the first one twice more: to see that walking is what the model does.
    assert [calls.count(layer) for layer in layers] == [6, 6, 6]
