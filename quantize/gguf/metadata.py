"""A Hugging Face config as GGUF metadata: dimensions, norms, and the rotary embedding with its scaling."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError, UsageError
from ...models.family import Family
from ...models.task import Task
from ..source import sentence_transformers
from ..source.checkpoint import Checkpoint

if TYPE_CHECKING:
    from gguf import GGUFWriter

QUANTIZATION_VERSION = 2
"""ggml's version of its block layouts (GGML_QNT_VERSION)."""
FREE = ("context_length", "vocab_size")
"""How far a file may be read is its maker's choice, and the tokens are counted elsewhere."""
SAME = 1e-5
"""Numbers are stored in float32."""


def add(writer: GGUFWriter, checkpoint: Checkpoint, file_type: int) -> list[str]:
    """Write everything of a file but its tokenizer and tensors; return notes for the user.

    Raises UsageError for a rotary embedding that llama.cpp does not compute.
    """
    from gguf import PoolingType
    from gguf.utility import size_label

    family, config = checkpoint.family, checkpoint.config
    rules = family.gguf
    assert rules is not None, "the caller refuses families without GGUF"
    count = checkpoint.parameters()
    label = size_label(count, count, 0, 0)
    writer.add_type("model")
    # Apart, because llama.cpp expects Phi-3's own special tokens behind "phi3" in a name.
    writer.add_name(re.sub(r"(?<=[a-z])(?=\d)", " ", f"{family.name}-{label}"))
    writer.add_size_label(label)
    writer.add_quantized_by("edgestill")
    writer.add_file_type(file_type)
    writer.add_quantization_version(QUANTIZATION_VERSION)

    hidden, heads = int(family.of(config, "hidden")), int(family.of(config, "heads"))
    context, notes = _context(family, config)
    writer.add_vocab_size(checkpoint.vocabulary_size)
    writer.add_context_length(context)
    writer.add_embedding_length(hidden)
    writer.add_block_count(int(family.of(config, "layers")))
    writer.add_feed_forward_length(_feed_forward(checkpoint, 4 * hidden))
    writer.add_head_count(heads)
    if "heads_kv" in family.keys:
        heads_kv = int(family.of(config, "heads_kv", heads))
        writer.add_head_count_kv([heads_kv * (kind == rules.attends) for kind in family.kinds_of_layers(config)]
                                 if rules.attends else heads_kv)
    epsilon = float(family.of(config, "norm_epsilon", 1e-6 if rules.norm == "rms" else 1e-5))
    (writer.add_layer_norm_rms_eps if rules.norm == "rms" else writer.add_layer_norm_eps)(epsilon)
    if "heads_kv" in family.keys:
        writer.add_key_length(family.head_size(config))
        writer.add_value_length(family.head_size(config))
    if "embed" in family.tasks:
        pooling = sentence_transformers.complete(Task("embed"), checkpoint.folder).pooling
        writer.add_pooling_type(PoolingType[pooling.upper()])
        writer.add_token_type_count(int(config.get("type_vocab_size", 1)))
    if rules.positions == "rotary":
        _add_rope(writer, family, config)
    for key, kind in rules.layers.items():
        writer.add_array(f"{rules.architecture}.{key}", [each == kind for each in family.kinds_of_layers(config)])
    for key, value in rules.values.items():
        _add_value(writer, f"{rules.architecture}.{key}", _value(value, config))
    return notes


def stated(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `add` writes below the architecture's name, but for lists, which a header is not read for, and FREE."""
    import gguf

    rules = checkpoint.family.gguf
    assert rules is not None, "whoever has a GGUF file of a family has its rules"
    writer = gguf.GGUFWriter(None, rules.architecture)
    add(writer, checkpoint, 0)
    return {key: value.value for key, value in writer.kv_data[0].items()
            if key.startswith(f"{rules.architecture}.") and not key.endswith(FREE)
            and value.type is not gguf.GGUFValueType.ARRAY}


def same(found: Any, wanted: Any) -> bool:
    """Whether two values of metadata say the same."""
    if isinstance(found, str) or isinstance(wanted, str):
        return bool(found == wanted)
    return math.isclose(found, wanted, rel_tol=SAME)


def _context(family: Family, config: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Tokens that llama.cpp can read as the model does, and a note where the model could read more."""
    context, window = family.context(config), config.get(family.keys.get("window", ""))
    if window is not None and window < context:
        return int(window), [f"the context is {window} tokens, not {context}: llama.cpp has no sliding window for this "
                             "family"]
    return context, []


def _feed_forward(checkpoint: Checkpoint, default: int) -> int:
    """Rows of the layer that widens, where its name stands for the config's key; else the config's value."""
    key = checkpoint.family.keys["feed_forward"]
    if key.endswith(".weight"):
        return checkpoint.entries[key].shape[0]
    return int(checkpoint.family.of(checkpoint.config, "feed_forward", default))


def _value(value: Any, config: Mapping[str, Any]) -> Any:
    """A constant as it is; of a text, the product of the config values it names."""
    if not isinstance(value, str):
        return value
    missing = [name for name in value.split(" * ") if config.get(name) is None]
    if missing:
        raise ArtifactError(f"config.json: {missing[0]!r} is missing",
                            "load the model with transformers 5 and save it again: that writes every value")
    first, *others = (config[name] for name in value.split(" * "))
    return math.prod(others, start=first) if others else first


def _add_value(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_float32(key, float(value))


def rope_of(family: Family, config: Mapping[str, Any], kind: str = "full_attention") -> dict[str, Any]:
    """The rotary embedding's parameters in layers of one kind, from the keys of transformers 5 or of earlier versions.

    Raises UsageError for a type that llama.cpp does not compute as transformers does, ArtifactError for one that lacks
    a value.
    """
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    local = config.get("rope_local_base_freq")
    if kind in rope:
        rope = dict(rope[kind])
    elif kind == "sliding_attention" and local is not None:
        rope = {"rope_theta": local}  # a scaling is the other layers'
    rope.setdefault("rope_theta", config.get("rope_theta") or config.get("rotary_emb_base") or 10000.0)
    rotary = rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    allowed = {
        "default": set(),
        "linear": {"factor"},
        "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
        "yarn": {"factor", "original_max_position_embeddings"},
        "longrope": {"factor", "short_factor", "long_factor", "original_max_position_embeddings"},
    }
    if rotary not in allowed:
        raise UsageError(f"config.json: a rotary embedding of type {rotary!r}; GGUF files carry {', '.join(allowed)}",
                         "choose a model with another rotary embedding, or export to ONNX")
    neutral = {"partial_rotary_factor": 1.0, "beta_fast": 32, "beta_slow": 1, "truncate": True}
    # For text the three coordinates of a multimodal rotation are one.
    everywhere = {"rope_theta", "rope_type", "type", "mrope_section", "mrope_interleaved"}
    everywhere |= {"partial_rotary_factor"} if "rotary_part" in family.keys else set()
    for key, value in rope.items():
        if key not in everywhere | allowed[rotary] and value is not None and value != neutral.get(key):
            raise UsageError(f"config.json: {key} = {value!r} of the rotary embedding has no place in a GGUF file",
                             "export to ONNX")
    original = config.get("original_max_position_embeddings") or config["max_position_embeddings"] \
        if rotary in ("llama3", "yarn", "longrope") else None
    if original is not None:
        rope["original_max_position_embeddings"] = rope.get("original_max_position_embeddings") or original
    needed = allowed[rotary] - ({"factor"} if rotary == "longrope" else set())
    if missing := sorted(key for key in needed if rope.get(key) is None):
        raise ArtifactError(f"config.json: {missing[0]!r} of its rotary embedding of type {rotary!r} is missing",
                            "copy config.json again from where the model was made")
    return rope


def rope_factors(family: Family, config: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Divisors of the rotary frequencies by the tensor's name, float32 [turning channels / 2]; mostly none.

    Source: Llama 3.1's reference code. Waves shorter than the original context over `high_freq_factor` stay, longer
    than over `low_freq_factor` slow down by `factor`, and those between are blended. LongRoPE lists them for short
    texts and for long ones; files are limited to short ones.
    """
    if family.gguf is None or family.gguf.positions != "rotary":
        return {}
    rope = rope_of(family, config)
    if rope["rope_type"] == "longrope":
        short = np.array(rope["short_factor"], np.float32)
        return {f"rope_factors_{length}.weight": short for length in ("short", "long")}
    if rope["rope_type"] != "llama3":
        return {}
    channels = family.head_size(config)
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    frequency = float(rope["rope_theta"]) ** (-np.arange(0, channels, 2, dtype=np.float64) / channels)
    turns = float(rope["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return {"rope_freqs.weight": (1.0 / ((1.0 - blend) / factor + blend)).astype(np.float32)}


def _add_rope(writer: GGUFWriter, family: Family, config: Mapping[str, Any]) -> None:
    from gguf import RopeScalingType

    rope = rope_of(family, config)
    part = rope.get("partial_rotary_factor") or family.of(config, "rotary_part", 1.0)
    writer.add_rope_dimension_count(int(family.head_size(config) * part))
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if family.gguf and "sliding_attention" in family.gguf.layers.values():
        local = rope_of(family, config, "sliding_attention")
        if local["rope_type"] != "default":
            raise UsageError(f"config.json: layers with a sliding window turn positions in the way "
                             f"{local['rope_type']!r}; GGUF files carry only 'default' there", "export to ONNX")
        writer.add_float32(f"{family.gguf.architecture}.rope.freq_base_swa", float(local["rope_theta"]))
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
    elif rope["rope_type"] == "longrope":
        original = int(rope["original_max_position_embeddings"])
        stretch = rope.get("factor") or config["max_position_embeddings"] / original
        writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(max(stretch, 1)) / math.log(original)))
