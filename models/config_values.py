"""What the values in a model folder's JSON files may be, by the keys that are read here.

Anyone may have written those files; a value of another kind would fail far from where it stands. Keys that nobody
reads are not looked at, and neither is a missing one: whoever needs it says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ArtifactError
from .kv_cache import CHOSEN

MOST = 2**31 - 1
"""Sizes and ids are 32-bit numbers in every format."""


@dataclass(frozen=True)
class Rule:
    """What a value must be: its description and its test. None is always allowed where `optional`."""

    wanted: str
    holds: Callable[[Any], bool]
    optional: bool = True


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= MOST


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _token(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("content"), str))


def _template(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(
        isinstance(item, dict) and isinstance(item.get("name"), str) and isinstance(item.get("template"), str)
        for item in value))


SIZE = Rule(f"a whole number from 1 to {MOST}", lambda value: _whole(value, 1), optional=False)
OPTIONAL_SIZE = Rule(f"null or a whole number from 1 to {MOST}", lambda value: _whole(value, 1))
ID = Rule(f"null or an id from 0 to {MOST}", lambda value: _whole(value, 0))
IDS = Rule(f"null, an id from 0 to {MOST} or a list of ids", lambda value: _whole(value, 0) or (
    isinstance(value, list) and all(_whole(item, 0) for item in value)))
POSITIVE = Rule("null or a number above 0", _number)
TABLE = Rule("null or a JSON object", lambda value: isinstance(value, dict))
TEXT = Rule("null or a text", lambda value: isinstance(value, str))
TEXTS = Rule("null or a list of texts", _texts)
TRUTH = Rule("null, true or false", lambda value: isinstance(value, bool))
FLAGS = Rule("null or a list of 0 and 1", lambda value: isinstance(value, list) and all(
    item in (0, 1) for item in value))
FLOAT = Rule("null or one of bfloat16, float16, float32 and float64", lambda value: value in (
    "bfloat16", "float16", "float32", "float64"))
TOKEN = Rule('null, a text or an object with the text as "content"', _token)
TEMPLATE = Rule('null, a text or a list of objects with "name" and "template"', _template)

_IDS = {"bos_token_id": IDS, "eos_token_id": IDS, "pad_token_id": ID, "cls_token_id": ID, "sep_token_id": ID}
_MODEL = {
    **dict.fromkeys(("num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "max_position_embeddings",
                     "n_layer", "n_embd", "n_head", "n_positions", "n_layers", "n_heads", "dim", "hidden_dim"), SIZE),
    **dict.fromkeys(("intermediate_size", "num_key_value_heads", "head_dim", "n_inner", "n_ctx", "sliding_window",
                     "original_max_position_embeddings", "type_vocab_size", "linear_key_head_dim",
                     "linear_value_head_dim", "linear_num_key_heads", "linear_num_value_heads",
                     "linear_conv_kernel_dim", "conv_L_cache"), OPTIONAL_SIZE),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "rope_theta",
                     "rotary_emb_base", "rope_local_base_freq", "rotary_pct", "partial_rotary_factor"), POSITIVE),
    **dict.fromkeys(("rope_scaling", "rope_parameters", "text_config", "id2label", "label2id"), TABLE),
    **dict.fromkeys(("architectures", "layer_types"), TEXTS),
    **dict.fromkeys(("model_type", "hidden_act", "activation_function", "position_embedding_type"), TEXT),
    **dict.fromkeys(("dtype", "torch_dtype"), FLOAT),
    **dict.fromkeys(("tie_word_embeddings", "use_parallel_residual"), TRUTH),
    "no_rope_layers": FLAGS,
}
RULES: Mapping[str, Mapping[str, Rule]] = {
    "config.json": _MODEL | _IDS,
    "generation_config.json": _IDS,
    "chat_template.json": {"chat_template": TEMPLATE},
    "tokenizer_config.json": {
        "chat_template": TEMPLATE, "added_tokens_decoder": TABLE, "tokenizer_class": TEXT, "model_max_length": POSITIVE,
        **dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"),
                        TOKEN)},
}
ROPE = {"rope_type": TEXT, "type": TEXT, **dict.fromkeys(
    ("rope_theta", "factor", "low_freq_factor", "high_freq_factor", "partial_rotary_factor", "beta_fast", "beta_slow"),
    POSITIVE), "original_max_position_embeddings": OPTIONAL_SIZE}


NAME = Rule("null or a file's name of at most 255 bytes", lambda value: isinstance(value, str) and len(
    value.encode("utf-8", "replace")) < 256)
_GENAI = {
    "model.": {"context_length": OPTIONAL_SIZE, "vocab_size": OPTIONAL_SIZE, "type": TEXT},
    "model.decoder.": {"filename": NAME, **dict.fromkeys(
        ("head_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
        OPTIONAL_SIZE)}}
_MANIFEST = {
    "temperature": POSITIVE, "method": TABLE,
    "kv": Rule(f"one of {', '.join(CHOSEN)}", CHOSEN.__contains__, optional=False),
    "allocation": Rule("null or a JSON object with an object as types",
                       lambda value: isinstance(value, dict) and isinstance(value.get("types", {}), dict))}


def check_settings(path: Any, settings: Mapping[str, Any]) -> None:
    """The same of what is read of the settings of a manifest at `path`."""
    _check(path, "settings.", settings, _MANIFEST)


def check(path: Any, table: Mapping[str, Any]) -> None:
    """Refuse a value that its key cannot have, in the file `path`: ArtifactError naming file, key and value."""
    _check(path, "", table, RULES.get(path.name, {}))
    if path.name == "genai_config.json":
        for prefix, rules in _GENAI.items():
            inner: Any = table
            for key in prefix.split(".")[:-1]:
                inner = inner.get(key) if isinstance(inner, dict) else None
            _check(path, prefix, inner if isinstance(inner, dict) else {}, rules)
    if path.name == "config.json":
        _check(path, "text_config.", table.get("text_config") or {}, RULES[path.name])
        for name in ("rope_scaling", "rope_parameters"):
            rope = table.get(name) or {}
            for key, value in {"": rope, **{f"{kind}.": part for kind, part in rope.items()
                                            if isinstance(part, dict)}}.items():
                _check(path, f"{name}.{key}", value, ROPE)
        odd = next((key for key in table.get("id2label") or {} if not key.isdecimal()), None)
        if odd is not None:
            raise _refused(path, "id2label", odd, "ids as its keys")


def _check(path: Any, prefix: str, table: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    for key, rule in rules.items():
        if key in table and not (rule.optional and table[key] is None) and not rule.holds(table[key]):
            raise _refused(path, prefix + key, table[key], rule.wanted)


def _refused(path: Any, key: str, value: Any, wanted: str) -> ArtifactError:
    shown = repr(value) if value is not None else "null"
    return ArtifactError(f"{path}: {key} = {shown[:80]}, and it must be {wanted}",
                         "correct the value, or copy the file again from where the model was made")
