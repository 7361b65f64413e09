"""The cache of keys and values: the types that it is kept in, and the bytes that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import UsageError

AUTO = "auto"
"""The engine's own type: f16 in llama.cpp, f32 for files of F32, F16 and BF16 and in onnxruntime."""
CHOSEN = ("q8_0", "q4_0")
"""Types that an export may be given instead."""
BLOCK = 32
"""Numbers of one head that share a scale of 2 bytes, in llama.cpp's types of few bits."""
BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": (BLOCK + 2) / BLOCK, "q4_0": (BLOCK / 2 + 2) / BLOCK}
"""Of one number."""
ATTENDS = ("full_attention", "sliding_attention", "attention")
"""Kinds of layers that keep keys and values. Those with a window do so for the whole context, too, in our engines."""


def bytes_per_token(config: Mapping[str, Any], type: str = "f16") -> float:
    """Bytes that one token of context takes of the cache, keys and values of all layers together.

    `config` is a Hugging Face config, `type` a key of BYTES: graphs that compute in float32 keep f32, llama.cpp f16
    unless it is told otherwise. States of recurrent layers do not grow with the context and are not counted.
    Raises UsageError for another type, or for one in blocks where the size of a head is no multiple of BLOCK.
    """
    from .family import of_config  # and tomllib with it, which opening an artifact does without

    family = of_config(config, training=True)
    size = family.head_size(config)
    check(type, size)
    heads = int(family.of(config, "heads_kv", family.of(config, "heads")))
    layers = int(family.of(config, "layers"))
    if config.get("layer_types") or family.layer_kinds:
        layers = sum(kind in ATTENDS for kind in family.kinds_of_layers(config))
    return 2 * layers * heads * size * BYTES[type]


def check(type: str, head_size: int) -> None:
    """Raise UsageError for a type that is not known, or that cannot hold heads of `head_size` numbers."""
    if type not in BYTES:
        raise UsageError(f"a cache of type {type!r}", f"known types: {', '.join(BYTES)}")
    if type.startswith("q") and head_size % BLOCK:
        raise UsageError(f"a cache of type {type} keeps blocks of {BLOCK} numbers, and this model's attention heads "
                         f"have {head_size}", "keep it in f16")
