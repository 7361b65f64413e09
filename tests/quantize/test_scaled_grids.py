"""The grids of mixed files: bytes as ggml reads them, nearest steps, and codes found once for all formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgestill.models.errors import ArtifactError
from edgestill.quantize.grid import calibration, codes
from edgestill.quantize.grid.encode import Encoder
from edgestill.quantize.grid.scaled_grids import GRIDS, IQ4_NL, Q4_0, Q5_0, Grid
from edgestill.quantize.methods import gptq, rtn, scale_search
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.quantize.source.float_model import FloatModel
from hypothesis import given, settings
from hypothesis import strategies as st

from .. import tiny

SEQUENCES = [[5, 9, 17, 30, 40], [8, 8, 100], [201]]
each_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def some_weight(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((24, 96)) * random.lognormal(-3, 1, (24, 1))
    weight[3], weight[4, :32] = 0, 1e-30
    return weight.astype(np.float32)


@each_grid
def test_the_bytes_are_what_ggml_reads(grid: Grid) -> None:
    from gguf import GGMLQuantizationType, quants

    random = np.random.default_rng(1)
    values = random.integers(0, len(grid.steps), (7, 96)).astype(np.uint8)
    made = codes.Codes(values, random.standard_normal((7, 3)).astype(np.float16), grid)
    data = codes.to_bytes(made)
    seen = quants.dequantize(data, GGMLQuantizationType[grid.type])
    np.testing.assert_allclose(codes.dequantize(made), seen, rtol=1e-6)
    back = codes.from_bytes(data, grid)
    assert np.array_equal(back.values, values) and np.array_equal(back.scales, made.scales) and back.grid is grid
    with pytest.raises(ArtifactError, match=f"a {grid.type} row of 23 bytes"):
        codes.from_bytes(np.zeros((1, 23), np.uint8), grid)


def test_rounding_to_q5_0_is_ggmls() -> None:
    from gguf import GGMLQuantizationType, quants

    weight = some_weight()
    found = codes.to_bytes(rtn.quantize(weight, None, rtn.Config(), Q5_0))
    assert np.array_equal(found, quants.quantize(weight, GGMLQuantizationType.Q5_0))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-150, 150, width=32), min_size=1, max_size=40), st.sampled_from(list(GRIDS.values())))
def test_no_step_lies_nearer_than_the_nearest(values: list[float], grid: Grid) -> None:
    given = np.array(values, np.float32)
    found = grid.nearest(given, np.float32(1), np.empty_like(given))
    assert np.array_equal(grid.table[grid.codes(found)], found)
    least = np.abs(given[:, None] - grid.table).min(axis=1)
    # IQ4_NL is looked up for halves: between two steps it may miss the nearer one by that.
    assert (np.abs(given - found) <= least + (0 if grid.even else 0.5) + 1e-5).all()


def error(weight: np.ndarray, found: codes.Codes) -> float:
    return float(((codes.dequantize(found).astype(np.float64) - weight) ** 2).sum())


def test_more_steps_and_steps_where_weights_lie_err_less() -> None:
    # Gaussian weights in blocks of 32: the share of the variance that is lost, from the literature.
    weight = np.random.default_rng(4).standard_normal((400, 512)).astype(np.float32)
    lost = {name: error(weight, scale_search.quantize(weight, None, scale_search.Config(), grid)) / weight.size
            for name, grid in GRIDS.items()}
    assert lost["Q4_0"] < 0.0067 and lost["IQ4_NL"] < 0.0058 and lost["Q5_0"] < 0.0018
    for grid in GRIDS.values():
        assert lost[grid.type] <= error(weight, rtn.quantize(weight, None, rtn.Config(), grid)) / weight.size


@each_grid
def test_every_method_bears_zeros_and_is_no_worse_than_rtn(grid: Grid) -> None:
    weight, gram = some_weight(), np.eye(96, dtype=np.float32)
    plain = error(weight, rtn.quantize(weight, None, rtn.Config(), grid))
    for found in (scale_search.quantize(weight, None, scale_search.Config(), grid),
                  gptq.quantize(weight, gram, gptq.Config(), grid)):
        assert found.grid is grid and np.isfinite(codes.dequantize(found)).all()
        assert error(weight, found) <= plain * (1 + 1e-6)


def test_codes_are_made_once_for_all_formats_and_again_for_another_weight() -> None:
    made = []

    class Told(Encoder):
        def _made(self, name: str, weight: np.ndarray, grid: Grid) -> codes.Codes:
            made.append((name, grid.type))
            return super()._made(name, weight, grid)
    encode, weight = Told({"kind": "scale_search"}, None), some_weight()
    first = encode("a", weight)
    again = encode("a", weight.copy())
    assert made == [("a", "Q4_0")]
    assert np.array_equal(first.values, again.values) and np.array_equal(first.scales, again.scales)
    fresh = scale_search.quantize(weight, None, scale_search.Config())
    assert np.array_equal(first.values, fresh.values) and np.array_equal(first.scales, fresh.scales)
    other = encode("a", weight * np.float32(3))
    assert not np.array_equal(other.scales, first.scales)
    encode("a", weight, IQ4_NL)
    encode("b", weight)
    assert made[1:] == [("a", "Q4_0"), ("a", "IQ4_NL"), ("b", "Q4_0")]


def test_a_head_that_stays_at_eight_bits_is_not_prepared(tmp_path: Path) -> None:
    source = tiny.decoder(tmp_path, "llama", tie_word_embeddings=False, num_hidden_layers=1)
    asked = []

    class Told(Encoder):
        def _made(self, name: str, weight: np.ndarray, grid: Grid) -> codes.Codes:
            asked.append(name)
            return super()._made(name, weight, grid)
    statistics = calibration.measure(FloatModel.from_folder(source), SEQUENCES)
    Told({"kind": "gptq"}, statistics).prepare(Checkpoint.open(source))
    assert len(asked) == 7 and all(name.startswith("model.layers.0.") for name in asked)


@pytest.mark.parametrize("kind", ["gptq", "scale_search"])
def test_what_was_prepared_needs_no_float_model(tiny_llama: Path, kind: str) -> None:
    model = FloatModel.from_folder(tiny_llama)
    statistics, checkpoint = calibration.measure(model, SEQUENCES), Checkpoint.open(tiny_llama)
    name = "model.layers.1.mlp.down_proj.weight"
    wanted = Encoder({"kind": kind}, statistics)(name, checkpoint.tensor(name))
    statistics.release()
    prepared = Encoder({"kind": kind}, statistics)
    prepared.prepare(checkpoint)
    statistics.release()
    model.unload()
    found = prepared(name, checkpoint.tensor(name))
    assert model._module is None
    assert np.array_equal(found.values, wanted.values) and np.array_equal(found.scales, wanted.scales)
    assert model.logits([5, 9]).shape[0] == 2 and model._module is not None  # and comes back when it is asked


def test_a_weight_on_the_four_bit_grid_is_exact_there_and_in_q5_0() -> None:
    weight = codes.dequantize(rtn.quantize(some_weight(), None, rtn.Config(), Q4_0))
    encode = Encoder({"kind": "scale_search"}, None)
    for grid in (Q4_0, Q5_0):
        assert np.array_equal(codes.dequantize(encode("a", weight, grid)), weight)
