"""The GGUF writer, proven by llama.cpp: the file must compute what torch computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models.scheme import TYPES
from edgestill.quantize import gguf_changes, gguf_tensors
from edgestill.quantize.checkpoint import Checkpoint
from edgestill.quantize.formats import gguf as gguf_format
from edgestill.runtime.engines.gguf import GgufEngine

from . import tiny
from .gguf_files import fields, write

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gpt2")
IDS = [int(i) for i in np.random.default_rng(0).integers(5, 380, 60)]
LIMIT = 5e-3
"""Standard deviations of a logit that the engine may differ by."""


def model_with_real_norms(folder: Path, model_type: str, **changes: Any) -> Path:
    """A tiny decoder whose norms and biases are not one and zero, so that a swapped or lost one is seen."""
    import torch
    from transformers import AutoModelForCausalLM

    tiny.decoder(folder, model_type, **changes)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            assert parameter.abs().max() > 0, name
    model.save_pretrained(folder)
    return folder


def torch_logits(folder: Path, ids: list[int] = IDS) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        return np.asarray(model(torch.tensor([ids])).logits[0].numpy())


def engine_logits(path: Path, ids: list[int] = IDS, prompt: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Logits of one pass over `ids`, and of a prefill of `prompt` tokens followed by cached decoding."""
    engine = GgufEngine(path, 1, 0, True)
    try:
        whole = engine.logits(ids)
        engine.truncate(0)
        rows = [engine.prefill(ids[:prompt]).copy()]
        rows += [engine.decode(token).copy() for token in ids[prompt:]]
        return whole, np.array(rows)
    finally:
        engine.close()


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, in standard deviations of the expected logits."""
    return float(np.abs(found - expected).max() / expected.std())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_computes_what_torch_computes(tmp_path: Path, family: str, tied: bool) -> None:
    source = model_with_real_norms(tmp_path / "hf", family, tie_word_embeddings=tied)
    expected = torch_logits(source)
    whole, cached = engine_logits(write(source, tmp_path))
    assert distance(whole, expected) < LIMIT
    assert distance(cached, expected[19:]) < LIMIT


@pytest.mark.parametrize(("family", "changes"), [
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"num_key_value_heads": 4}),
    ("llama", {"num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-3}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                                   "original_max_position_embeddings": 64}}),
    ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                                   "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
    ("qwen3", {"head_dim": 32}),
    ("gpt2", {"n_inner": 96, "layer_norm_epsilon": 1e-3}),
], ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else value)
def test_variations_of_a_family_are_carried(tmp_path: Path, family: str, changes: dict[str, Any]) -> None:
    source = model_with_real_norms(tmp_path / "hf", family, **changes)
    expected = torch_logits(source)
    assert distance(engine_logits(write(source, tmp_path))[0], expected) < LIMIT


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_a_writer_that_swaps_queries_and_keys_is_caught(tmp_path: Path, family: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {} if family == "gpt2" else {"num_key_value_heads": 4}
    source = model_with_real_norms(tmp_path / "hf", family, **changes)
    expected = torch_logits(source)
    right = gguf_tensors.make

    def swapped(tensor: gguf_tensors.Tensor, checkpoint: Checkpoint, encode: gguf_tensors.Encode) -> np.ndarray:
        if family == "gpt2" and "attn_qkv" in tensor.name:
            return np.roll(right(tensor, checkpoint, encode), 64, axis=0)
        other = {"q": "k", "k": "q"}.get(tensor.name.partition("attn_")[2][:1]) if ".attn_" in tensor.name else None
        if other is None or tensor.name.startswith("blk") and "_proj" not in tensor.source:
            return right(tensor, checkpoint, encode)
        source_name = tensor.source.replace("q_proj", "#").replace("k_proj", "q_proj").replace("#", "k_proj")
        return right(gguf_tensors.Tensor(**{**tensor.__dict__, "source": source_name}), checkpoint, encode)

    monkeypatch.setattr(gguf_format, "make", swapped)
    assert distance(engine_logits(write(source, tmp_path))[0], expected) > 100 * LIMIT


def test_without_the_reordering_of_rotated_rows_the_file_is_wrong(tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    source = model_with_real_norms(tmp_path / "hf", "llama")
    monkeypatch.setitem(gguf_changes.ORDERS, "rotate", lambda rows, _heads: np.arange(rows))
    assert distance(engine_logits(write(source, tmp_path))[0], torch_logits(source)) > 100 * LIMIT


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with rows of 256 values: below that K-quants fall back to other types."""
    shape = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "num_hidden_layers": 2}
    return model_with_real_norms(tmp_path_factory.mktemp("models") / "wide", "llama", **shape)


@pytest.mark.parametrize("type_name", TYPES["gguf"])
def test_every_type_agrees_as_far_as_its_bits_go(wide: Path, tmp_path: Path, type_name: str) -> None:
    source, expected = wide, torch_logits(wide)
    path = write(source, tmp_path, type_name)
    found = engine_logits(path)[0]
    error = float(np.sqrt(np.square(found - expected).mean()) / expected.std())
    low, high = {"F32": (0, 1e-4), "F16": (1e-4, 5e-3), "BF16": (1e-3, 0.04), "Q8_0": (2e-3, 0.05),
                 "Q6_K": (0.01, 0.15), "Q5_K_M": (0.03, 0.25), "Q4_K_M": (0.05, 0.5), "Q4_0": (0.05, 0.6)}[type_name]
    assert low <= error < high
    assert fields(path)["general.file_type"] == {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q6_K": 18, "Q5_K_M": 17,
                                                 "Q4_K_M": 15, "Q4_0": 2}[type_name]
    again = write(source, tmp_path / "again", type_name)
    assert again.read_bytes() == path.read_bytes(), "the same model must give the same bytes"
    assert sorted(item.name for item in (tmp_path / "again").iterdir()) == ["model.gguf"]
