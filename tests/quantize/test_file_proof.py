"""A GGUF file of coarse types held to the float model's folder: its numbers, its metadata, and what it computes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgestill.models.artifact import Artifact, Manifest
from edgestill.models.task import Task
from edgestill.quantize.gguf import weight_changes
from edgestill.quantize.grid.codes_in_torch import Coded
from edgestill.quantize.grid.encode import encoder
from edgestill.quantize.proof import reference
from edgestill.quantize.proof.checks import codes, metadata, tensors
from edgestill.quantize.proof.packed_file import Subject
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.quantize.source.float_model import FloatModel
from edgestill.runtime.files import gguf_header

from .. import gguf_files, tiny

LONGROPE = {"original_max_position_embeddings": 32, "rope_parameters": {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.5] * 8, "long_factor": [9.0] * 8,
    "original_max_position_embeddings": 32}}


def held(path: Path, source: Path, ours: bool = False) -> Any:
    """A file and the folder it is held to, made here or elsewhere."""
    manifest = Manifest("export", Task(), "llama", "gguf:Q4_0", path.name)
    return SimpleNamespace(artifact=Artifact(path.parent, manifest), float_folder=source, format="gguf",
                           float_model=object() if ours else None, coded=None)


def patched(path: Path, name: str, change: Any) -> Path:
    """The file with other float16 or float32 numbers in its tensor `name`."""
    place = next(tensor for tensor in gguf_header.read(path).tensors if tensor.name == name)
    data = bytearray(path.read_bytes())
    part = np.frombuffer(data, np.uint8, place.bytes, place.offset).copy()
    data[place.offset:place.offset + place.bytes] = change(part).tobytes()
    path.write_bytes(data)
    return path


def quarter_off(part: np.ndarray) -> np.ndarray:
    """Scales of Q4_0 blocks times .75."""
    blocks = part.reshape(-1, 18)
    blocks[:, :2] = (blocks[:, :2].copy().view(np.float16) * np.float16(0.75)).view(np.uint8)
    return blocks


def test_scales_of_one_tensor_show_in_a_file_made_elsewhere(tiny_llama: Path, tmp_path: Path) -> None:
    path = gguf_files.write(tiny_llama, tmp_path, "Q4_0")
    (sound,) = tensors.check(held(path, tiny_llama))
    assert sound.passed and sound.n == len(gguf_header.read(path).tensors)
    (found,) = tensors.check(held(patched(path, "blk.1.attn_q.weight", quarter_off), tiny_llama))
    assert found.passed is False and found.cause == "weights" and "blk.1.attn_q.weight is 0.7" in found.detail


def test_tensors_that_a_file_made_elsewhere_lacks_are_named(tiny_llama: Path, tmp_path: Path) -> None:
    for change, told in (
            ({"attention_bias": True}, "blk.0.attn_k.bias is not there, the float model's is [32]"),
            ({"intermediate_size": 96}, "blk.0.ffn_down.weight is [128, 64], the float model's is [96, 64]")):
        source = tiny.decoder(tmp_path / next(iter(change)), "llama", **change)
        (found,) = tensors.check(held(gguf_files.write(tiny_llama, tmp_path, "Q4_0"), source))
        assert found.passed is False and found.detail.startswith(told)


def test_longropes_factors_for_long_texts_are_the_makers_own(tmp_path: Path) -> None:
    source = tiny.decoder(tmp_path / "phi", "phi3", **LONGROPE)
    path = gguf_files.write(source, tmp_path)
    for length, passed in (("long", True), ("short", False)):
        patched(path, f"rope_factors_{length}.weight", lambda part: part.view(np.float32) * np.float32(6))
        (found,) = tensors.check(held(path, source))
        assert found.passed is passed, found


@pytest.mark.parametrize(("change", "detail"), [
    ({"rms_norm_eps": 1e-5}, "llama.attention.layer_norm_rms_epsilon is 9.9"),
    ({"num_key_value_heads": 4}, "head_count_kv"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 2e4}}, "llama.rope.freq_base is 20000.0"),
    ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "")])
def test_wrong_metadata_is_named(change: dict[str, Any], detail: str, tiny_llama: Path, tmp_path: Path) -> None:
    other = tiny.decoder(tmp_path / "other", "llama", **change)
    path = gguf_files.write(other, tmp_path)
    for ours in (False, True):
        (sound,) = metadata.check(held(path, other, ours))
        assert sound.passed and sound.n > 8
        (found,) = metadata.check(held(path, tiny_llama, ours))
        # What a file made elsewhere says beyond the config may be llama.cpp's default, spelled out.
        assert found.passed is (not detail and not ours) and found.cause == "weights" and detail in found.detail
        (back,) = metadata.check(held(gguf_files.write(tiny_llama, tmp_path / "back"), other, ours))
        assert back.passed is (not detail and not ours)
    assert metadata.check(SimpleNamespace(format="onnx", float_folder=other)) == []


@pytest.mark.parametrize(("family", "change", "wrong"), [
    ("llama", "rotate", lambda rows, heads: np.arange(rows)), ("gpt2", "", None)])
def test_a_mixture_computes_what_its_own_matrices_compute(family: str, change: str, wrong: Any, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Types, sizes and numbers would all be as planned: the plan is what is wrong."""
    wide = {"n_embd": 256} if family == "gpt2" else {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
    source = tiny.decoder(tmp_path / "hf", family, **wide)
    model, ids = FloatModel.from_folder(source), np.random.default_rng(0).integers(5, 380, 60).tolist()
    known = reference.make(model, ["light"], [(ids, ())], None, {}, "")
    weights = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    for planted in (False, True):
        if planted and wrong is None:
            continue
        if planted:
            monkeypatch.setitem(weight_changes.ORDERS, change, wrong)
        path = gguf_files.write(source, tmp_path / f"packed-{planted}", "Q4_K_M")
        manifest = Manifest("export", Task(), family, "gguf:Q4_K_M", path.name, {"context": 256})
        with Subject(Artifact(path.parent, manifest), known, model, tokenizer_folder=source) as subject:
            (found,) = codes.check(subject)
            assert all(check.passed for check in tensors.check(subject))
        assert found.passed is not planted and found.value < 0.005 or planted and found.value > 0.1, found
    assert all(bool((weight == model.module.state_dict()[name]).all()) for name, weight in weights.items())


def test_codes_of_a_graph_are_held_to_the_float_weights(tiny_llama: Path) -> None:
    checkpoint = Checkpoint.open(tiny_llama)
    name = "model.layers.1.mlp.up_proj.weight"
    weight = checkpoint.tensor(name)
    for factor in (1.0, 0.75):
        coded = Coded(encoder({"kind": "rtn"}, None))
        coded(name, weight * np.float32(factor))
        coded("model.layers.1.mlp.gate_up_proj.weight:0/2", weight)  # half of a layer, which no checkpoint has
        (found,) = tensors._codes(coded, checkpoint)
        assert found.passed is (factor == 1) and found.n == 1 and name in found.detail
    square = "model.layers.1.self_attn.q_proj.weight"
    coded = Coded(encoder({"kind": "rtn"}, None), turned=True)
    coded(square, np.ascontiguousarray(checkpoint.tensor(square).T))
    (found,) = tensors._codes(coded, checkpoint)
    assert found.passed and tensors._codes(None, checkpoint) == []
