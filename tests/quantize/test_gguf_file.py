"""What stands in a GGUF file: types, codes, metadata, and the models that are refused."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import ArtifactError, EdgestillError, MissingExtra, UsageError
from edgestill.models.family import load
from edgestill.models.scheme import Scheme
from edgestill.quantize.gguf import llama_quantizer, metadata, weight_changes
from edgestill.quantize.gguf import tensors as gguf_tensors
from edgestill.quantize.gguf import write as gguf_format
from edgestill.quantize.gguf.llama_quantizer import floored
from edgestill.quantize.grid.calibration import Calibration
from edgestill.quantize.grid.codes import Codes, dequantize
from edgestill.quantize.grid.scaled_grids import Grid
from edgestill.quantize.source.checkpoint import Checkpoint

from .. import tiny
from ..gguf_files import encode, fields, write


def tensor_types(path: Path) -> dict[str, str]:
    from gguf import GGUFReader

    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def test_a_four_bit_file_holds_the_codes_it_was_given(tmp_path: Path) -> None:
    from gguf import GGUFReader, quants

    source = tiny.decoder(tmp_path / "hf", "llama", tie_word_embeddings=False)
    given: dict[str, Codes] = {}

    def remember(name: str, weight: np.ndarray, grid: Grid) -> Codes:
        given[name] = encode(name, weight, grid)
        return given[name]

    gguf_format.write(source, tmp_path, Scheme("gguf", "Q4_0"), remember, None)
    path = tmp_path / "model.gguf"
    types = tensor_types(path)
    assert len(given) == 3 * 7
    assert types["token_embd.weight"] == types["output.weight"] == "Q8_0"
    assert types["blk.0.attn_norm.weight"] == "F32"
    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    down, query = stored["blk.1.ffn_down.weight"], stored["blk.1.attn_q.weight"]
    assert np.array_equal(quants.dequantize(down.data, down.tensor_type),
                          dequantize(given["model.layers.1.mlp.down_proj.weight"]))
    order = weight_changes.rotation_order(64, 4)
    assert order[:4].tolist() == [0, 8, 1, 9]
    assert np.array_equal(quants.dequantize(query.data, query.tensor_type),
                          dequantize(given["model.layers.1.self_attn.q_proj.weight"])[order])


def test_rows_that_are_no_multiple_of_the_block_fall_back_with_a_note(tmp_path: Path,
                                                                       caplog: pytest.LogCaptureFixture) -> None:
    source = tiny.decoder(tmp_path / "hf", "llama", intermediate_size=72)
    types = tensor_types(write(source, tmp_path, "Q4_0"))
    assert types["blk.0.ffn_down.weight"] == "F16" and types["blk.0.ffn_up.weight"] == "Q4_0"
    assert "3 tensors of 29 are F16" in caplog.text


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = tiny.decoder(tmp_path / "hf", "llama")
    tensors = load_file(source / "model.safetensors")
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}, source / "model.safetensors")
    assert "output.weight" not in tensor_types(write(source, tmp_path))
    set_config(source, tie_word_embeddings=False)
    assert "output.weight" in tensor_types(write(source, tmp_path / "untied"))


def test_a_mixed_file_has_the_types_it_was_given(tmp_path: Path) -> None:
    source = tiny.decoder(tmp_path / "hf", "llama", hidden_size=256)
    given = {"model.embed_tokens.weight": "Q6_K", "model.layers.1.mlp.up_proj.weight": "Q4_0",
             "model.layers.0.self_attn.v_proj.weight": "Q5_K", "model.layers.2.mlp.down_proj.weight": "Q5_0"}
    path = tmp_path / gguf_format.write(source, tmp_path, Scheme("gguf", "mixed"), encode, None, lambda *_: given)
    found = tensor_types(path)
    plan = gguf_tensors.plan(Checkpoint.open(source), "Q8_0")[0]
    names, planned = {item.name: item.source for item in plan}, {item.name: item.type for item in plan}
    assert found == {name: given.get(names[name], planned[name]) for name in found}
    assert {"Q6_K", "Q4_0", "Q5_K", "Q5_0", "Q8_0", "F32"} == set(found.values())


def test_importance_reaches_the_k_quants(tmp_path: Path) -> None:
    source = tiny.decoder(tmp_path / "hf", "llama", hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    random = np.random.default_rng(0)
    shapes = {name: entry.shape for name, entry in Checkpoint.open(source).entries.items() if "layers" in name}
    importance = {name: random.lognormal(0, 2, shape[1]).astype(np.float32)
                  for name, shape in shapes.items() if len(shape) == 2}
    importance["model.layers.0.mlp.up_proj.weight"][:100] = 0  # channels no calibration row used
    plain = write(source, tmp_path / "plain", "Q4_K_M")
    weighted = write(source, tmp_path / "weighted", "Q4_K_M", Calibration(importance, 100))
    assert plain.stat().st_size == weighted.stat().st_size
    for name in ("mlp.gate_proj", "mlp.up_proj"):
        key = f"model.layers.0.{name}.weight"
        weight = Checkpoint.open(source).tensor(key)
        errors = [float((importance[key] * (read(path, f"blk.0.ffn_{name[4:-5]}.weight") - weight) ** 2).sum())
                  for path in (plain, weighted)]
        assert errors[1] < 0.9 * errors[0]
    with pytest.raises(ArtifactError, match="none of this model's layers"):
        write(source, tmp_path / "other", "Q4_K_M", Calibration({"other.weight": np.ones(64, np.float32)}, 100))
    with pytest.raises(ArtifactError, match="has 64 values for .* rows have 256"):
        short = dict.fromkeys(importance, np.ones(64, np.float32))
        write(source, tmp_path / "other", "Q4_K_M", Calibration(short, 100))
    assert floored(np.array([0, 2], np.float32)).tolist() == pytest.approx([1e-4, 2.0001])


def read(path: Path, name: str) -> np.ndarray:
    from gguf import GGUFReader, quants

    found = next(tensor for tensor in GGUFReader(path).tensors if tensor.name == name)
    return np.asarray(quants.dequantize(found.data, found.tensor_type))


def test_a_quantizer_that_fails_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0))
    with pytest.raises(EdgestillError, match="could not quantize to Q6_K"):
        llama_quantizer.mixture(broken, "Q6_K", {})


@pytest.mark.parametrize("type_name", llama_quantizer.MIXTURES)
def test_a_stock_file_has_the_bytes_of_llama_cpps_own_quantizer(tmp_path: Path, type_name: str) -> None:
    import ctypes

    # 160 divides by 32 alone: those rows fall back to a larger type.
    source = tiny.decoder(tmp_path / "hf", "llama", hidden_size=256, intermediate_size=160)
    importance = {name: np.random.default_rng(len(name)).lognormal(0, 1, entry.shape[1]).astype(np.float32)
                  for name, entry in Checkpoint.open(source).entries.items() if "proj" in name}
    ours = write(source, tmp_path / "ours", type_name, Calibration(importance, 1))
    full = write(source, tmp_path / "full")
    llama_cpp = llama_quantizer.library()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{type_name}")
    tensors, _ = gguf_tensors.plan(Checkpoint.open(source), "F32")
    kept = {name: floored(values) for name, values in gguf_format.importance_by_name(tensors, importance).items()}
    entries = llama_quantizer.imatrix(kept)
    parameters.imatrix = entries
    theirs = tmp_path / "theirs.gguf"
    assert llama_cpp.llama_model_quantize(str(full).encode(), str(theirs).encode(), ctypes.byref(parameters)) == 0
    assert tensor_types(ours) == tensor_types(theirs)
    for name in tensor_types(ours):
        assert np.array_equal(read(ours, name), read(theirs, name)), name


def set_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


REFUSED: list[tuple[str, dict[str, object]]] = [
    ("hidden_act is 'gelu'", {"hidden_act": "gelu"}),
    ("rotary embedding of type 'dynamic'", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}),
    ("partial_rotary_factor = 0.5", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
    ("attention_factor = 2.0", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "attention_factor": 2.0}}),
    ("there is no lm_head.weight", {"tie_word_embeddings": False}),
]


@pytest.mark.parametrize(("message", "changes"), REFUSED, ids=[message for message, _ in REFUSED])
def test_a_variation_that_gguf_does_not_carry_is_refused(tiny_llama: Path, tmp_path: Path, message: str,
                                                          changes: dict[str, object]) -> None:
    source = Path(shutil.copytree(tiny_llama, tmp_path / "hf"))
    set_config(source, **changes)
    with pytest.raises(EdgestillError, match=message):
        write(source, tmp_path / "out")


def test_a_missing_package_is_named_with_its_extra(tiny_llama: Path, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_format.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingExtra, match="gguf is not installed") as caught:
        write(tiny_llama, tmp_path)
    assert caught.value.hint == "pip install 'edgestill[export]'"


def test_families_without_a_gguf_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="distilbert family has no GGUF form"):
        write(tiny.classifier(tmp_path / "hf", "distilbert"), tmp_path / "out")


def test_a_tensor_without_a_place_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = Path(shutil.copytree(tiny_llama, tmp_path / "hf"))
    save_file(load_file(source / "model.safetensors") | {"model.extra.weight": np.ones(3, np.float32)},
              source / "model.safetensors")
    with pytest.raises(ArtifactError, match="model.extra.weight has no place"):
        write(source, tmp_path / "out")


def test_values_above_float16_are_refused_as_f16(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source = Path(shutil.copytree(tiny_llama, tmp_path / "hf"))
    tensors = load_file(source / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"] * np.float32(1e6)
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(ArtifactError, match="above float16's limit"):
        write(source, tmp_path / "out", "F16")
    write(source, tmp_path / "out", "BF16")


def test_a_sliding_window_bounds_the_context(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tiny.decoder(tmp_path / "hf", "mistral", sliding_window=64)
    assert fields(write(source, tmp_path))["llama.context_length"] == 64
    assert caplog.text.count("the context is 64 tokens, not 256") == 1
    caplog.clear()
    write(source, tmp_path / "stock", "Q4_K_M")  # asks llama.cpp with a file aside, of which nobody needs to be told
    assert caplog.text.count("the context is 64 tokens, not 256") == 1


def test_rope_keys_of_earlier_transformers_are_read() -> None:
    llama, scaling = load("llama"), {"type": "linear", "factor": 2.0}
    assert metadata.rope_of(llama, {"rope_theta": 5e5, "rope_scaling": scaling})["rope_theta"] == 5e5
    assert metadata.rope_of(llama, {"rope_theta": 5e5, "rope_scaling": scaling})["rope_type"] == "linear"
    assert metadata.rope_of(llama, {})["rope_theta"] == 10000.0


def packed(key: str, kind: str, value: Any) -> bytes:
    """One metadata entry, spelled out from the GGUF specification: length, key, type, value."""
    codes = {"u32": (4, "<I"), "f32": (6, "<f"), "bool": (7, "<?"), "string": (8, "")}
    number, layout = codes[kind]
    body = struct.pack("<Q", len(value)) + value.encode() if kind == "string" else struct.pack(layout, value)
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", number) + body


def test_golden_header_and_metadata(tiny_llama: Path, tmp_path: Path) -> None:
    data = write(tiny_llama, tmp_path).read_bytes()
    tensors, entries = 29, 30
    expected = b"GGUF" + struct.pack("<IQQ", 3, tensors, entries) + b"".join(packed(*entry) for entry in [
        ("general.architecture", "string", "llama"),
        ("general.type", "string", "model"),
        ("general.name", "string", "llama-136K"),
        ("general.size_label", "string", "136K"),
        ("general.quantized_by", "string", "edgestill"),
        ("general.file_type", "u32", 0),
        ("general.quantization_version", "u32", 2),
        ("llama.vocab_size", "u32", 384),
        ("llama.context_length", "u32", 256),
        ("llama.embedding_length", "u32", 64),
        ("llama.block_count", "u32", 3),
        ("llama.feed_forward_length", "u32", 128),
        ("llama.attention.head_count", "u32", 4),
        ("llama.attention.head_count_kv", "u32", 2),
        ("llama.attention.layer_norm_rms_epsilon", "f32", 1e-6),
        ("llama.attention.key_length", "u32", 16),
        ("llama.attention.value_length", "u32", 16),
        ("llama.rope.dimension_count", "u32", 16),
        ("llama.rope.freq_base", "f32", 10000.0),
        ("tokenizer.ggml.model", "string", "gpt2"),
        ("tokenizer.ggml.pre", "string", "smollm"),
    ])
    assert data[: len(expected)] == expected
    tail = b"".join(packed(*entry) for entry in [
        ("tokenizer.ggml.bos_token_id", "u32", 0),
        ("tokenizer.ggml.eos_token_id", "u32", 0),
        ("tokenizer.ggml.padding_token_id", "u32", 4),
        ("tokenizer.ggml.add_bos_token", "bool", False),
        ("tokenizer.ggml.add_eos_token", "bool", False),
        ("tokenizer.chat_template", "string", tiny.TEMPLATE),
    ])
    assert tail in data
    # The first tensor's entry: name, two dimensions (columns first), type F32, offset 0.
    name = b"token_embd.weight"
    assert struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 64, 384, 0, 0) in data
    assert len(data) % 32 == 0


def test_planning_reads_no_memory_that_nobody_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A norm is one more than its weight; adding 1 to what lay in memory warned of a NaN now and then."""
    source = tiny.decoder(tmp_path / "hf", "gemma3_text", layer_types=["full_attention"] * 3, query_pre_attn_scalar=16)

    def dirty(shape: Any, dtype: Any = float) -> np.ndarray:
        return np.full(shape, 0x7FA00000, np.uint32).view(np.float32)  # a NaN that signals

    monkeypatch.setattr(gguf_tensors.np, "empty", dirty)
    with np.errstate(all="raise"):
        tensors, _ = gguf_tensors.plan(Checkpoint.open(source), "F32")
    assert any(tensor.change == "add_one" for tensor in tensors)
