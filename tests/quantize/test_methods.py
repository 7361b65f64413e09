"""What every quantization method must hold, whichever are there."""

from __future__ import annotations

import numpy as np
import pytest
from edgestill.models import kinds
from edgestill.models.errors import ArtifactError
from edgestill.quantize.grid import codes
from edgestill.quantize.grid.calibration import Calibration
from edgestill.quantize.grid.codes import Codes, dequantize
from edgestill.quantize.grid.encode import encoder
from edgestill.quantize.methods import gptq, rtn, scale_search
from hypothesis import given, settings
from hypothesis import strategies as st

METHODS = kinds.names("quantize.methods")


def quantize(name: str, weight: np.ndarray, importance: np.ndarray | None = None) -> Codes:
    method = kinds.load("quantize.methods", name)
    gram = None if importance is None else np.diag(importance)
    found = encoder({"kind": name}, Calibration({} if importance is None else {"": importance}, 1, lambda _: gram))(
        "", weight)
    assert method.GRAM in (True, False)
    assert found.values.dtype == np.uint8 and found.values.shape == weight.shape and found.values.max(initial=0) <= 15
    assert found.scales.dtype == np.float16 and np.isfinite(found.scales).all()
    return found


def error(weight: np.ndarray, found: Codes, importance: np.ndarray | float = 1.0) -> float:
    return float((importance * (dequantize(found).astype(np.float64) - weight) ** 2).sum())


def some_weight(seed: int, spread: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((40, 128)) * random.lognormal(-3, spread, (40, 1))
    weight[random.random(weight.shape) < 0.01] *= 20
    weight[3] = 0
    return weight.astype(np.float32)


@pytest.mark.parametrize("name", METHODS)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), spread=st.floats(0, 2))  # much wider ones exceed what a float16 scale can hold
def test_weights_on_the_grid_stay_where_they_are(name: str, seed: int, spread: float) -> None:
    once = dequantize(quantize(name, some_weight(seed, spread)))
    assert np.array_equal(dequantize(quantize(name, once)), once)
    importance = np.random.default_rng(seed).lognormal(0, 2, once.shape[1]).astype(np.float32)
    assert np.array_equal(dequantize(quantize(name, once, importance)), once)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), spread=st.floats(0, 2))
def test_what_one_method_put_on_the_grid_no_other_moves(seed: int, spread: float) -> None:
    random = np.random.default_rng(seed)
    importance = random.lognormal(0, 2, 128).astype(np.float32)
    for made_by in METHODS:
        once = dequantize(quantize(made_by, some_weight(seed, spread), importance))
        for name in METHODS:
            assert np.array_equal(dequantize(quantize(name, once, importance)), once)
    small = (random.integers(-3, 4, (8, 64)) * 0.5).astype(np.float32)  # no step of a block is large
    for name in METHODS:
        assert np.array_equal(dequantize(quantize(name, small)), small)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32), together=st.floats(0.2, 1))
def test_inputs_that_go_together_let_gptq_err_least(seed: int, together: float) -> None:
    random = np.random.default_rng(seed)
    inputs = random.standard_normal((400, 128)) * random.lognormal(0, 1, 128)
    inputs += together * random.standard_normal((400, 8)) @ random.standard_normal((8, 128))
    gram = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    weight = some_weight(seed)
    statistics = Calibration({"": np.diag(gram).copy()}, 400, lambda _: gram)

    def layer_error(name: str) -> float:
        lost = dequantize(encoder({"kind": name}, statistics)("", weight)).astype(np.float64) - weight
        return float(((lost @ gram) * lost).sum())
    # Which of the other two is better depends on the inputs: both look at columns one by one.
    assert layer_error("gptq") < 0.9 * min(layer_error("scale_search"), layer_error("rtn"))


@pytest.mark.parametrize(("together", "strength", "fed", "refined"), [(4, 1.0, 0.3, 0.25), (8, 3.0, 0.1, 0.025)])
def test_errors_fed_back_take_off_what_rounding_alone_leaves(together: int, strength: float, fed: float,
                                                             refined: float) -> None:
    # Without coordinate descent: that would mend a feedback of the wrong sign, of other columns, or none. Inputs that
    # go strongly together show one that is wrong among the few columns that are worked on at once, too.
    random = np.random.default_rng(together)
    inputs = random.standard_normal((400, 128))
    inputs += strength * random.standard_normal((400, together)) @ random.standard_normal((together, 128))
    gram = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    weight = some_weight(3, 0.5)

    def lost(found: Codes) -> float:
        off = dequantize(found).astype(np.float64) - weight
        return float(((off @ gram) * off).sum())
    start = lost(scale_search.quantize(weight, np.diag(gram).copy(), scale_search.Config()))
    assert lost(gptq.quantize(weight, gram, gptq.Config(sweeps=0))) < fed * start
    assert lost(gptq.quantize(weight, gram, gptq.Config())) < refined * start


def test_feedback_rounds_each_column_to_its_best_given_those_before() -> None:
    # By definition: with the columns before fixed and those behind free to follow, the best value of a column.
    random = np.random.default_rng(8)
    inputs = random.standard_normal((200, 32)) + random.standard_normal((200, 3)) @ random.standard_normal((3, 32))
    gram = inputs.T @ inputs / len(inputs)
    feedback = gptq._feedback(gram.astype(np.float32))
    errors = random.standard_normal(32)
    for column in (1, 7, 31):
        before, behind = np.arange(column), np.arange(column, 32)
        # Errors of the columns from here on that cost least, given those before.
        free = -np.linalg.solve(gram[np.ix_(behind, behind)], gram[np.ix_(behind, before)] @ errors[before])
        np.testing.assert_allclose(-feedback[:column, column] @ errors[:column], free[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_the_number_of_threads_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(6)
    weight = random.standard_normal((700, 256)).astype(np.float32)
    gram = np.cov(random.standard_normal((256, 300))).astype(np.float32)
    statistics = Calibration({"": np.diag(gram).copy()}, 300, lambda _: gram)
    monkeypatch.setattr(gptq, "CHUNK_WEIGHTS", 1 << 15)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(codes, "allowed_cores", lambda threads=threads: threads)
        found.append(encoder({"kind": name}, statistics)("", weight))
    assert np.array_equal(found[0].values, found[1].values) and np.array_equal(found[0].scales, found[1].scales)


def test_second_moments_without_an_inverse_are_refused() -> None:
    gram = np.full((64, 64), 2.0, np.float32) - np.eye(64, dtype=np.float32)
    with pytest.raises(ArtifactError, match="of 64 inputs cannot be inverted with damp = 0.05") as caught:
        gptq.quantize(some_weight(1)[:, :64], gram, gptq.Config())
    assert "larger damp" in caught.value.hint


@pytest.mark.parametrize("gram", [np.ones((32, 32)), np.full((64, 64), np.nan)])
def test_second_moments_that_do_not_fit_are_refused(gram: np.ndarray) -> None:
    with pytest.raises(ArtifactError, match="second moments of shape"):
        gptq.quantize(np.ones((2, 64), np.float32), gram.astype(np.float32), gptq.Config())


@pytest.mark.parametrize("name", METHODS)
def test_the_error_is_not_above_rtns(name: str) -> None:
    for seed in range(5):
        weight = some_weight(seed)
        assert error(weight, quantize(name, weight)) <= error(weight, quantize("rtn", weight)) * (1 + 1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "rtn"])
def test_importance_moves_the_error_away_from_what_matters(name: str) -> None:
    weight = some_weight(1)
    importance = np.random.default_rng(2).lognormal(0, 1.5, weight.shape[1]).astype(np.float32)
    plain, weighted = quantize(name, weight), quantize(name, weight, importance)
    assert error(weight, weighted, importance) < 0.97 * error(weight, plain, importance)
    assert error(weight, plain) <= error(weight, weighted)


@pytest.mark.parametrize("name", METHODS)
def test_zero_and_tiny_weights_are_harmless(name: str) -> None:
    weight = np.zeros((3, 64), np.float32)
    weight[1] = 1e-30
    weight[2] = 1e-7
    assert np.abs(dequantize(quantize(name, weight)) - weight).max() < 2e-7


@pytest.mark.parametrize("name", METHODS)
def test_a_matrix_larger_than_a_chunk_is_as_good_as_its_rows(name: str) -> None:
    weight = np.random.default_rng(3).standard_normal((600, 1024)).astype(np.float32)
    whole = quantize(name, weight)
    assert np.array_equal(whole.values[500:520], quantize(name, weight[500:520]).values)


def test_scale_search_gains_what_the_literature_says() -> None:
    # Gaussian weights in blocks of 32: 0.0074 of the variance for Q4_0's own scales, 0.0066 for searched ones.
    weight = np.random.default_rng(4).standard_normal((400, 512)).astype(np.float32)
    assert error(weight, quantize("rtn", weight)) / weight.size == pytest.approx(0.0074, rel=0.02)
    assert error(weight, quantize("scale_search", weight)) / weight.size < 0.0067


def test_all_candidates_reach_whole_numbers_and_both_signs() -> None:
    found = scale_search.candidates(1)
    assert found == [-5, -6, -7, -8, 8, -9, 9, -10, 10, -11, 11]


@pytest.mark.parametrize("importance", [np.ones(32), np.full(64, np.nan), np.full(64, -1.0)])
def test_an_importance_that_does_not_fit_is_refused(importance: np.ndarray) -> None:
    with pytest.raises(ArtifactError, match="importance of shape"):
        scale_search.quantize(np.ones((2, 64), np.float32), importance.astype(np.float32), scale_search.Config())


def test_an_importance_of_zeros_counts_all_columns_alike() -> None:
    weight = some_weight(5)
    zeros = np.zeros(weight.shape[1], np.float32)
    found = scale_search.quantize(weight, zeros, scale_search.Config())
    assert error(weight, found) == pytest.approx(error(weight, quantize("scale_search", weight)))
    assert error(weight, found) <= error(weight, rtn.quantize(weight, None, rtn.Config()))
