"""Bytes of the cache of keys and values, held to published figures."""

from __future__ import annotations

from typing import Any

import pytest
from edgestill.models import kv_cache
from edgestill.models.errors import UsageError

SMOLLM2: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 30, "num_attention_heads": 9,
                           "num_key_value_heads": 3, "hidden_size": 576}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "num_hidden_layers": 28, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 128, "hidden_size": 1024}
LFM2 = {"architectures": ["Lfm2ForCausalLM"], "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "hidden_size": 128, "layer_types": ["conv", "full_attention", "conv", "conv"]}
GEMMA3 = {"architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 26, "num_attention_heads": 4,
          "num_key_value_heads": 1, "head_dim": 256, "hidden_size": 1152}
GPT2 = {"architectures": ["GPT2LMHeadModel"], "n_layer": 12, "n_head": 12, "n_embd": 768}


@pytest.mark.parametrize(("config", "type", "expected"), [
    (SMOLLM2, "f16", 23_040), (SMOLLM2, "f32", 46_080), (SMOLLM2, "q8_0", 12_240), (SMOLLM2, "q4_0", 6_480),
    (QWEN3, "f16", 114_688),
    (LFM2, "f16", 2 * 2 * 32 * 2),  # one layer of four
    (GEMMA3, "f16", 26_624),  # windows are kept whole
    (GPT2, "f16", 2 * 12 * 768 * 2),
])
def test_bytes_of_a_token(config: dict[str, Any], type: str, expected: int) -> None:
    assert kv_cache.bytes_per_token(config, type) == expected


def test_what_no_cache_can_be_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"keeps blocks of 32 numbers, and this model's attention heads have 48"):
        kv_cache.bytes_per_token(SMOLLM2 | {"head_dim": 48}, "q4_0")
    assert kv_cache.bytes_per_token(SMOLLM2 | {"head_dim": 48}, "f16") == 17_280
    with pytest.raises(UsageError, match="a cache of type 'q5_1'"):
        kv_cache.bytes_per_token(SMOLLM2, "q5_1")
