"""Every decoder family against torch, as GGUF through llama.cpp and as ONNX through onnxruntime.

Float files, a float32 cache, no fused attention: whole prefill, cached decode and going back agree with torch within
5e-3 of the logits' standard deviation, and a model with queries and keys exchanged lies 100 times as far.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import family, kinds
from edgestill.models.errors import ArtifactError, UsageError
from edgestill.models.scheme import Scheme
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.runtime.engines._gguf_context import GgufContext
from edgestill.runtime.engines._gguf_engine import GgufEngine
from edgestill.runtime.engines._onnx_engine import OnnxEngine
from numpy.typing import NDArray

from ..decoders import IDS, Made, logits, make
from ..gguf_files import encode, write
from ..onnx_models import LIMIT, distance, in_torch

PROMPT = 20
SAME_HEADS = {"num_key_value_heads": 4}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
UNTIED: dict[str, Any] = {"tie_word_embeddings": False}

CASES: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "": {}, "untied": UNTIED, "biases": {"attention_bias": True, "mlp_bias": True},
        "one key": {"num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-3},
        # As wide as the vocabulary: not to be taken for the output layer.
        "linear": {"rope_parameters": LINEAR, "intermediate_size": 384}, "llama3": {"rope_parameters": LLAMA3}},
    "mistral": {"window": {"sliding_window": 8}, "untied": UNTIED},
    "qwen2": {"yarn": {"rope_parameters": YARN}, "untied": UNTIED},
    "qwen3": {"wide heads": {"head_dim": 32}, "untied": UNTIED},
    "qwen3_5": {"": {}, "untied": UNTIED, "onnx: more values": {"linear_num_key_heads": 2}},
    "smollm3": {"": {}, "untied": UNTIED, "onnx: other layers": {"no_rope_layers": [0, 1, 0, 1]}},
    "gemma3": {"": {}, "untied, linear": UNTIED | {"rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}, "full_attention": LINEAR}},
        "onnx: scaled": {"query_pre_attn_scalar": 32}},
    "phi3": {
        "": {}, "untied, window": UNTIED | {"sliding_window": 8},
        "longrope, part": {"original_max_position_embeddings": 32, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
            "short_factor": [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5], "long_factor": [9.0] * 8,
            "original_max_position_embeddings": 32}} | {"head_dim": 32, "num_attention_heads": 2}},
    "lfm2": {"": {}, "untied": UNTIED | {"layer_types": ["full_attention", "conv", "conv"]}},
    "gpt2": {"": {}, "untied": UNTIED, "narrow": {"n_inner": 96, "layer_norm_epsilon": 1e-3}},
    "gpt_neox": {"": {}, "in a row": {"use_parallel_residual": False, "rope_parameters": {
        "rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 1.0}}},
}
"""Changes of the config by family and name of the case; one format's alone where the name begins with it."""
DECODERS = [name for name in family.names() if "generate" in family.load(name).tasks]
FORMATS = [(name, each) for name in DECODERS for each in ("gguf", "onnx") if getattr(family.load(name), each)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint of a family and case, made once for all formats."""
    found: dict[tuple[str, str], Made] = {}

    def get(name: str, case: str) -> Made:
        if (name, case) not in found:
            found[name, case] = make(tmp_path_factory.mktemp(name), name, CASES[name][case])
        return found[name, case]

    return get


def opened(source: Path, folder: Path, format: str) -> Any:
    """The engine over the float file of a checkpoint."""
    writer = kinds.load("quantize.formats", format)
    file = writer.write(source, folder, Scheme(format, "F32" if format == "gguf" else "fp32"), encode, None)
    context = Checkpoint.open(source).family.context(Checkpoint.open(source).config)
    path = folder / file
    return GgufEngine(GgufContext(path, 1, 0, "f32")) if format == "gguf" else OnnxEngine(path, folder, 1, context)


def proven(engine: Any, wanted: NDArray[np.float32], source: Path) -> Iterator[float]:
    """Distances of a whole prefill, of cached decode, and of decode after going back; closes the engine."""
    ids = IDS[:engine.context_length]
    if len(ids) < len(IDS):
        wanted = logits(in_torch(source), ids)
    prompt = min(PROMPT, len(ids) // 2)
    yield distance(engine.logits(ids), wanted)
    engine.truncate(0)
    rows = [engine.prefill(ids[:prompt]).copy(), *(engine.decode(token).copy() for token in ids[prompt:])]
    yield distance(np.array(rows), wanted[prompt - 1:])
    engine.truncate(prompt + 1)
    yield distance(engine.decode(ids[prompt + 1]), wanted[prompt + 1])
    engine.close()


@pytest.mark.parametrize(("name", "format", "case"), [
    (name, format, case) for name, format in FORMATS for case in CASES[name]
    if case.partition(":")[0] not in {"gguf", "onnx"} - {format}])
def test_the_file_computes_what_torch_computes(made: Any, tmp_path: Path, name: str, format: str, case: str) -> None:
    source, wanted = made(name, case)
    assert wanted.std() >= 1
    for found in proven(opened(source, tmp_path, format), wanted, source):
        assert found < LIMIT


def exchange(model: Any) -> int:
    """Put queries in the place of keys; returns the number of layers where it was done."""
    done = 0
    for name, module in model.named_modules():
        end = name.rpartition(".")[2]
        if end == "k_proj" and (query := model.get_submodule(f"{name[:-6]}q_proj")).weight.shape == module.weight.shape:
            query.weight.data, module.weight.data = module.weight.data, query.weight.data
        elif end in ("qkv_proj", "in_proj_qkv"):
            first, second, *others = module.weight.data.chunk(3)
            module.weight.data = type(first)(np.concatenate([second, first, *others]))
        elif end == "c_attn":
            first, second, third = module.weight.data.chunk(3, dim=1)
            module.weight.data = type(first)(np.concatenate([second, first, third], 1))
        elif end == "query_key_value":
            heads = module.weight.data.unflatten(0, (4, 3, 16))
            module.weight.data = heads[:, [1, 0, 2]].reshape(module.weight.shape)
        else:
            continue
        done += 1
    return done


@pytest.mark.parametrize(("name", "format"), FORMATS)
def test_exchanged_queries_and_keys_lie_far_beyond_the_bound(tmp_path: Path, name: str, format: str) -> None:
    changes = SAME_HEADS if "heads_kv" in family.load(name).keys else {}
    source, wanted = make(tmp_path / "hf", name, changes)
    model = in_torch(source)
    assert exchange(model)
    engine = opened(source, tmp_path, format)
    found = engine.logits(IDS)
    engine.close()
    assert distance(found, wanted) < LIMIT
    assert distance(found, logits(model, IDS)) > 100 * LIMIT


def test_every_family_is_proven() -> None:
    assert set(CASES) == set(DECODERS)
    encoders = {name for name in family.names() if family.load(name).onnx == "exporter"}
    assert encoders | set(DECODERS) == set(family.names())


def test_a_body_saved_without_its_head_gives_the_same_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    source, _ = make(tmp_path / "hf", "gpt2", {})
    whole = write(source, tmp_path / "whole", "Q8_0").read_bytes()
    weights = load_file(source / "model.safetensors")
    save_file({name.removeprefix("transformer."): weight for name, weight in weights.items()},
              source / "model.safetensors")
    assert write(source, tmp_path / "bare", "Q8_0").read_bytes() == whole


def test_a_rotation_for_each_kind_of_layer_is_read_as_earlier_transformers_wrote_it(tmp_path: Path) -> None:
    source, _ = make(tmp_path / "hf", "gemma3", {"rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}, "full_attention": LINEAR}})
    new = write(source, tmp_path / "new").read_bytes()
    config = json.loads((source / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}, "rope_local_base_freq": 500.0}
    (source / "config.json").write_text(json.dumps(config))
    assert write(source, tmp_path / "old").read_bytes() == new


@pytest.mark.parametrize(("name", "config", "message"), [
    ("smollm3", {"no_rope_layers": [1, 1, 1, 1]}, r"no_rope_layers is \[1, 1, 1, 1\].* carry only \[1, 1, 1, 0\]"),
    ("gemma3", {"query_pre_attn_scalar": 168, "head_dim": 128}, "query_pre_attn_scalar is 168 and head_dim is 128"),
    ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0, .* carry only none"),
    ("qwen3_5", {"linear_num_value_heads": 32, "linear_num_key_heads": 16}, "linear_num_value_heads is 32"),
    ("gpt_neox", {"tie_word_embeddings": True}, "tie_word_embeddings is True"),
])
def test_variations_without_a_proof_are_refused(name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        family.load(name).check(config, "gguf")


def test_kinds_of_layers_come_from_the_config_or_the_family() -> None:
    gemma, lfm = family.load("gemma3"), family.load("lfm2")
    assert gemma.kinds_of_layers({"num_hidden_layers": 7})[4:] == ["sliding_attention", "full_attention",
                                                                  "sliding_attention"]
    assert lfm.kinds_of_layers({"num_hidden_layers": 1, "layer_types": ["conv"]}) == ["conv"]
    with pytest.raises(ArtifactError, match="layer_types lists 0 layers of 2"):
        lfm.kinds_of_layers({"num_hidden_layers": 2})


def test_a_value_that_the_metadata_needs_is_named_when_it_is_missing(tmp_path: Path) -> None:
    source, _ = make(tmp_path / "hf", "lfm2", {})
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "conv_L_cache"}))
    with pytest.raises(ArtifactError, match="'conv_L_cache' is missing"):
        write(source, tmp_path)


def test_an_unknown_family_is_refused_before_any_weight_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["MambaForCausalLM"]}))
    with pytest.raises(UsageError, match="'MambaForCausalLM' is not one that can be exported") as caught:
        Checkpoint.open(tmp_path)
    assert all(each in caught.value.hint for name in DECODERS for each in family.load(name).architectures)


def test_a_model_that_sees_pictures_tells_its_context_from_the_part_that_reads() -> None:
    config = {"architectures": ["Qwen3_5ForConditionalGeneration"], "text_config": {"max_position_embeddings": 256}}
    assert family.of_config(config, training=True).context(config) == 256
    with pytest.raises(UsageError) as caught:
        family.of_config(config)
    assert "train it for a task first" in caught.value.hint
