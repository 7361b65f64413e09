"""A Hugging Face config as GGUF metadata: dimensions, norms, and the rotary embedding with its scaling."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..models.errors import UsageError
from ..models.family import Family
from .checkpoint import Checkpoint

if TYPE_CHECKING:
    from gguf import GGUFWriter

QUANTIZATION_VERSION = 2
"""ggml's version of its block layouts (GGML_QNT_VERSION)."""


def head_dim(family: Family, config: Mapping[str, Any]) -> int:
    """Channels of one attention head."""
    return int(family.of(config, "head_dim", family.of(config, "hidden") // family.of(config, "heads")))


def add(writer: GGUFWriter, checkpoint: Checkpoint, file_type: int) -> list[str]:
    """Write everything of a file but its tokenizer and tensors; return notes for the user.

    Raises UsageError for a rotary embedding that llama.cpp does not compute.
    """
    from gguf.utility import size_label

    family, config = checkpoint.family, checkpoint.config
    count = checkpoint.parameters()
    label = size_label(count, count, 0, 0)
    writer.add_type("model")
    writer.add_name(f"{family.name}-{label}")
    writer.add_size_label(label)
    writer.add_quantized_by("edgestill")
    writer.add_file_type(file_type)
    writer.add_quantization_version(QUANTIZATION_VERSION)

    hidden = int(family.of(config, "hidden"))
    heads = int(family.of(config, "heads"))
    context = int(family.of(config, "context"))
    notes = []
    window = config.get(family.keys.get("window", ""))
    if window is not None and window < context:
        notes.append(f"the context is {window} tokens, not {context}: llama.cpp has no sliding window for this family")
        context = int(window)
    writer.add_vocab_size(checkpoint.vocabulary_size)
    writer.add_context_length(context)
    writer.add_embedding_length(hidden)
    writer.add_block_count(int(family.of(config, "layers")))
    writer.add_feed_forward_length(int(family.of(config, "feed_forward", 4 * hidden)))
    writer.add_head_count(heads)
    if "heads_kv" not in family.keys:
        writer.add_layer_norm_eps(float(family.of(config, "norm_epsilon", 1e-5)))
        return notes
    writer.add_head_count_kv(int(family.of(config, "heads_kv", heads)))
    writer.add_layer_norm_rms_eps(float(family.of(config, "norm_epsilon", 1e-6)))
    channels = head_dim(family, config)
    writer.add_key_length(channels)
    writer.add_value_length(channels)
    writer.add_rope_dimension_count(channels)
    _add_rope(writer, rope_of(config))
    return notes


def rope_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary embedding's parameters, from the key of transformers 5 or the two of earlier versions.

    Raises UsageError for a kind that llama.cpp does not compute as transformers does.
    """
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta") or 10000.0)
    kind = rope["rope_type"] = rope.get("rope_type") or rope.get("type") or "default"
    allowed = {
        "default": set(),
        "linear": {"factor"},
        "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
        "yarn": {"factor", "original_max_position_embeddings"},
    }
    if kind not in allowed:
        raise UsageError(f"config.json: a rotary embedding of type {kind!r}; GGUF files carry {', '.join(allowed)}",
                         "choose a model with another rotary embedding, or export to ONNX")
    neutral = {"partial_rotary_factor": 1.0, "beta_fast": 32, "beta_slow": 1, "truncate": True}
    for key, value in rope.items():
        known = key in {"rope_theta", "rope_type", "type"} | allowed[kind]
        if not known and value is not None and value != neutral.get(key):
            raise UsageError(f"config.json: {key} = {value!r} of the rotary embedding has no place in a GGUF file",
                             "export to ONNX")
    if kind in ("llama3", "yarn") and "original_max_position_embeddings" not in rope:
        rope["original_max_position_embeddings"] = config["max_position_embeddings"]
    return rope


def rope_factors(config: Mapping[str, Any], channels: int) -> NDArray[np.float32] | None:
    """Divisors of the rotary frequencies, float32 [channels / 2], where the scaling is Llama 3's; else None.

    Source: Llama 3.1's reference code. Waves shorter than the original context over `high_freq_factor` stay, longer
    than over `low_freq_factor` slow down by `factor`, and those between are blended.
    """
    rope = rope_of(config)
    if rope["rope_type"] != "llama3":
        return None
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    frequency = float(rope["rope_theta"]) ** (-np.arange(0, channels, 2, dtype=np.float64) / channels)
    turns = float(rope["original_max_position_embeddings"]) * frequency / (2 * math.pi)
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1.0 / ((1.0 - blend) / factor + blend)).astype(np.float32)


def _add_rope(writer: GGUFWriter, rope: Mapping[str, Any]) -> None:
    from gguf import RopeScalingType

    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    elif rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
