"""Decoders of zeros load and compute in both engines, and what is measured with them takes a step's time apart."""

import math

import numpy as np
import pytest
from edgestill.models.errors import MissingExtra
from edgestill.runtime.engines._gguf_context import GgufContext
from edgestill.runtime.files import onnx_header
from edgestill.runtime.profiling import machine_rates, zero_models
from edgestill.runtime.profiling.zero_models import Decoder

SMALL = Decoder(layers=2, hidden=64, inner=96, vocabulary=70)


@pytest.mark.parametrize(("format", "type"), [("gguf", "Q4_0"), ("gguf", "F16"), ("onnx", "int4"), ("onnx", "int8")])
def test_a_decoder_of_zeros_computes_zeros(tmp_path, format, type):
    engine = machine_rates._opened(format, tmp_path, SMALL, type, 1)
    prompt = engine.prefill([0, 1, 69]).copy()
    step = engine.decode(5)
    assert (engine.vocabulary_size, engine.context_length, engine.position) == (70, 2048, 4)
    assert prompt.shape == (70,) and not prompt.any() and not step.any()
    engine.close()


def test_a_decoder_of_zeros_has_the_weights_that_it_counts(tmp_path):
    zero_models.write_gguf(tmp_path / "zero.gguf", SMALL, "Q8_0")
    with_rows = GgufContext(tmp_path / "zero.gguf", 1, 64, "f16")
    norms = (2 * SMALL.layers + 1) * SMALL.hidden
    assert with_rows.c.llama_model_n_params(with_rows.model) == SMALL.weights + 70 * 64 + norms
    with_rows.close()
    zero_models.write_onnx(tmp_path / "zero.onnx", SMALL, 4)
    assert "GroupQueryAttention" in onnx_header.read(tmp_path / "zero.onnx").operators
    data, floats = (tmp_path / "zero.onnx.data").stat().st_size, 4 * (70 * 64 + 64)
    assert 0 <= data - floats - SMALL.weights * 5 / 8 < 32 * 40, "4-bit codes and a float32 scale for 32"


def test_matrices_differ_and_take_no_disk(tmp_path):
    """onnxruntime keeps one of tensors that are the same, and would be measured with fewer."""
    zero_models.write_onnx(tmp_path / "zero.onnx", Decoder(layers=3, hidden=512, inner=1024), 8)
    path = tmp_path / "zero.onnx.data"
    places = np.flatnonzero(np.fromfile(path, np.uint8))
    assert len(places) == 3 * 5, "all but the first, whose number is zero, have one"
    assert path.stat().st_blocks * 512 < path.stat().st_size / 20


class FakeEngine:
    """Takes the time of known rates on a clock of its own."""

    STEP, LAYER, BYTES, PROMPT, ATTENTION, PROMPT_ATTENTION = 3e-4, 2e-5, 4e9, 5e10, 2e9, 8e9
    clock = 0.0

    def __init__(self, model, type):
        self.model, self.bytes, self.held = model, model.weights * machine_rates.bits(type) / 8, 0

    def _pass(self, seconds):
        type(self).clock += seconds + self.STEP + self.LAYER * self.model.layers

    def decode(self, token):
        products = 2 * self.model.layers * self.model.hidden * self.held
        self._pass(self.bytes / self.BYTES + products / self.ATTENTION)

    def prefill(self, ids):
        products = self.model.layers * self.model.hidden * len(ids) ** 2
        self.held = len(ids)
        type(self).clock += self.model.weights * len(ids) / self.PROMPT + products / self.PROMPT_ATTENTION

    def truncate(self, length):
        self.held = length

    def close(self):
        pass


def test_rates_are_found_again(monkeypatch):
    monkeypatch.setattr(machine_rates, "_opened",
                        lambda format, folder, model, type, threads: FakeEngine(model, type))
    monkeypatch.setattr(machine_rates, "read_rate", lambda threads, seconds: 1e9 * threads)
    monkeypatch.setattr(machine_rates.time, "perf_counter", lambda: FakeEngine.clock)
    rates = machine_rates.measure_rates(4, 1.0)
    assert rates.read_bytes_per_s_by_threads == {"1": 1e9, "2": 2e9, "4": 4e9} and rates.read_bytes_per_s == 4e9
    assert list(rates.engines) == ["gguf", "onnx"]
    engine = rates.engines["gguf"]
    assert engine.layer_s == pytest.approx(FakeEngine.LAYER, rel=0.3)
    assert engine.step_s == pytest.approx(FakeEngine.STEP, rel=0.2)
    assert engine.attention_multiply_adds_per_s == pytest.approx(FakeEngine.ATTENTION)
    assert engine.prompt_attention_multiply_adds_per_s == pytest.approx(FakeEngine.PROMPT_ATTENTION)
    for kernel in engine.kernels.values():
        assert kernel.read_bytes_per_s == pytest.approx(FakeEngine.BYTES, rel=0.05)
        assert kernel.multiply_adds_per_s == pytest.approx(FakeEngine.PROMPT, rel=0.02)


def test_an_engine_that_is_missing_has_no_rates(monkeypatch):
    def missing(format, *rest):
        if format == "gguf":
            raise MissingExtra("llama-cpp-python", "gguf")
        return FakeEngine(*rest[1:3])

    monkeypatch.setattr(machine_rates, "_opened", missing)
    monkeypatch.setattr(machine_rates, "read_rate", lambda threads, seconds: 1e9)
    monkeypatch.setattr(machine_rates.time, "perf_counter", lambda: FakeEngine.clock)
    assert list(machine_rates.measure_rates(1, 1.0).engines) == ["onnx"]


def test_reading_is_faster_than_any_disk():
    assert 1e8 < machine_rates.read_rate(1, 0.01) < 1e13


def test_bits_are_those_of_the_files():
    assert [machine_rates.bits(type) for type in ("Q4_0", "Q6_K", "F16", "int4", "int8")] == [4.5, 6.5625, 16, 5, 9]
    assert all(math.isfinite(machine_rates.bits(type)) for types in machine_rates.KERNELS.values() for type in types)


@pytest.mark.parametrize(("machine", "features", "found"), [
    ("x86_64", ["avx2"], "x86"), ("aarch64", ["asimd", "asimddp"], "arm"), ("aarch64", ["asimd"], "armv8.0"),
    ("arm64", [], "arm")])
def test_arm_without_dot_products_is_told_apart(machine: str, features: list[str], found: str) -> None:
    assert machine_rates.architecture(machine, features) == found
