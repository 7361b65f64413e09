"""Every catalogue entry as a tiny model: its published config, tokens and flags (tests/facts), only smaller."""

from __future__ import annotations

import json
import math
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from . import tiny
from .quantize.test_gguf_sentencepiece import gemma, sentence_piece
from .quantize.test_gguf_tokenizer import trained

FACTS = Path(__file__).parent / "facts"
SIZES = {"hidden_size": 64, "intermediate_size": 128, "dim": 64, "hidden_dim": 128, "n_embd": 64, "n_positions": 256,
         "n_ctx": 256, "block_ff_dim": 128, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
         "linear_num_key_heads": 4, "linear_num_value_heads": 4}
LAYERS = {"gemma3_text": 6, "smollm3": 4, "qwen3_5_text": 4, "lfm2": 3, "modernbert": 4}
"""Where two layers are not all kinds of layers."""
CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
TEMPLATES = {
    "chatml": CHATML, "chatml-bos": "{{ bos_token }}" + CHATML,
    "qwen3": CHATML.replace("assistant\n{% endif", "assistant\n{% if enable_thinking is defined and not enable_thinking"
                            " %}<think>\n\n</think>\n\n{% endif %}{% endif"),
    "llama3": ("{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
               "{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant"
               "<|end_header_id|>\n\n{% endif %}"),
    "gemma": ("{{ bos_token }}{% set first = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}"
              "{% for m in messages if m.role != 'system' %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
              "{{ raise_exception('Conversation roles must alternate') }}{% endif %}<start_of_turn>"
              "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ first if loop.first else '' }}"
              "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
              "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"),
    "phi3": ("{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
             "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"),
    "phi4": ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
             "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"),
    "zephyr": ("{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
               "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"),
}
"""Of the kind that the published ones are, written for these tests."""


@cache
def facts() -> dict[str, dict[str, Any]]:
    """For each entry its series' facts, `config` with its own sizes."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(FACTS.glob("*.toml")):
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        for name, sizes in table["entries"].items():
            found[name] = table | {"config": table["config"] | sizes}
    return found


def full_config(name: str) -> dict[str, Any]:
    """The published config, lists with an entry for each layer written out."""
    config = dict(facts()[name]["config"])
    count = config.get("num_hidden_layers", 0)
    for key in ("layer_types", "no_rope_layers"):
        if key in config:
            config[key] = [config[key][index % len(config[key])] for index in range(count)]
    return config


def parameters(name: str) -> int:
    """Weights of a model of the published config, made without memory; a masked model's without its head."""
    import torch
    import transformers

    config = full_config(name)
    if "short_factor" in config.get("rope_scaling", {}):
        config["rope_scaling"] = config["rope_scaling"] | dict.fromkeys(("short_factor", "long_factor"), [1.0] * 48)
    given = {key: value for key, value in config.items() if key not in ("auto_map", "architectures")}
    with torch.device("meta"):
        model = getattr(transformers, config["architectures"][0])(
            transformers.AutoConfig.for_model(given.pop("model_type"), **given))
    if config["architectures"][0].endswith("MaskedLM"):
        model = model.base_model
    return sum(weight.numel() for weight in {id(weight): weight for weight in model.parameters()}.values())


def small_config(name: str, rows: int) -> dict[str, Any]:
    """The config with tiny sizes and the ids of the small tokenizer; all else as published."""
    config = full_config(name)
    count = LAYERS.get(config["model_type"], 2)
    heads, parts = config.get("num_attention_heads", 0), config.get("num_key_value_heads")
    config |= {key: size for key, size in SIZES.items() if key in config}
    config |= {key: count for key in ("num_hidden_layers", "n_layer", "n_layers") if key in config}
    config |= {key: 4 for key in ("num_attention_heads", "n_head", "n_heads") if key in config}
    config["vocab_size"] = rows
    if parts:
        config["num_key_value_heads"] = max(1, round(4 * parts / heads))
    if "head_dim" in config:
        config["head_dim"] = 32 if config["model_type"] == "qwen3_5_text" else 16
    if "query_pre_attn_scalar" in config:
        config["query_pre_attn_scalar"] = 16
    for key in ("layer_types", "no_rope_layers"):
        if key in config:
            config[key] = config[key][:count]
    if "full_attn_idxs" in config:
        config["full_attn_idxs"] = [index for index in config["full_attn_idxs"] if index < count]
    if "mrope_section" in config.get("rope_parameters", {}):
        config["rope_parameters"] = config["rope_parameters"] | {"mrope_section": [2, 1, 1]}
    rope, size = config.get("rope_scaling", {}), 16
    if "partial_rotary_factor" in config:  # heads of 64: onnxruntime turns multiples of 16 values
        config |= {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
        size = int(64 * config["partial_rotary_factor"])
    if "short_factor" in rope:
        config["rope_scaling"] = rope | {key: [rope[key][index % len(rope[key])] for index in range(size // 2)]
                                         for key in ("short_factor", "long_factor")}
    if config["model_type"] in ("bert", "distilbert", "xlm-roberta"):  # a row for each position
        config["max_position_embeddings"] = 130
    return config


def tokenizer(name: str, folder: Path) -> int:
    """Write the entry's small tokenizer with its real added tokens, flags and settings; returns the model's rows."""
    told = facts()[name]["tokenizer"]
    special, plain = told["special"], told.get("plain", [])
    kind = told["kind"]
    if kind == "word-piece":
        rows = tiny.word_piece_tokenizer(folder)
    elif kind == "unigram":
        rows = tiny.unigram_tokenizer(folder)
    elif kind in ("llama-2", "gemma"):
        sentence_piece(folder, gemma if kind == "gemma" else lambda table: None)
    else:
        trained(folder, kind)
    if kind in ("word-piece", "unigram"):
        return rows + math.ceil(told.get("padding", 0) / 8)
    path = folder / "tokenizer.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    _rename(table, special, told)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    vocabulary = table["model"]["vocab"]
    table["added_tokens"] = [flags | {
        "id": vocabulary.setdefault(text, len(vocabulary)), "content": text, "special": text in special,
        **{flag: text in told.get(flag, ()) for flag in ("lstrip", "rstrip", "normalized")}}
        for text in [*special, *plain]]
    table["added_tokens"].sort(key=lambda token: token["id"])
    rows = len(vocabulary) + math.ceil(told.get("padding", 0) / 8)
    table["added_tokens"] += [flags | {"id": rows + index, "content": text, "special": True}
                              for index, text in enumerate(told.get("behind", ()))]
    if told.get("normalizer"):
        table["normalizer"] = {"type": told["normalizer"]}
    table["post_processor"] = _post_processor(told, vocabulary)
    path.write_text(json.dumps(table), encoding="utf-8")
    settings = {f"{key}_token": told[key] for key in ("bos", "eos", "pad", "unk", "cls", "sep") if key in told}
    settings["added_tokens_decoder"] = {str(token["id"]): {key: token[key] for key in token if key != "id"}
                                        for token in table["added_tokens"]}
    if told.get("behind"):
        settings["extra_special_tokens"] = {"image_token": told["behind"][0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return rows


def _rename(table: dict[str, Any], special: list[str], told: dict[str, Any]) -> None:
    """Put the entry's own special tokens in the place of those that the small tokenizer was made with."""
    vocabulary = table["model"]["vocab"]
    for old in [token["content"] for token in table["added_tokens"]]:
        if old in special or old in told.get("plain", ()):
            continue
        new = {"<s>": told.get("bos"), "</s>": told.get("eos")}.get(old) or next(
            (text for text in special if text not in vocabulary), None)
        index = vocabulary.pop(old)
        vocabulary[new if new and new not in vocabulary else f"<unused of {old}>"] = index
    table["model"]["vocab"] = dict(sorted(vocabulary.items(), key=lambda item: item[1]))


def _post_processor(told: dict[str, Any], vocabulary: dict[str, int]) -> dict[str, Any] | None:
    frame = [told.get("bos") if told.get("adds_bos") else told.get("cls"), told.get("sep")]
    if not any(frame):
        return None
    before, after = ([{"SpecialToken": {"id": text, "type_id": 0}}] if text else [] for text in frame)
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [*before, sequence, *after],
            "pair": [*before, sequence, *after, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {text: {"id": text, "ids": [vocabulary[text]], "tokens": [text]}
                               for text in frame if text}}


def make(name: str, folder: Path) -> Path:
    """The entry as a Hugging Face folder of random weights."""
    import torch
    import transformers

    told = facts()[name]
    folder.mkdir(parents=True, exist_ok=True)
    rows = tokenizer(name, folder)
    config = small_config(name, rows)
    from tokenizers import Tokenizer

    small = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = {f"{key}_token_id": small.token_to_id(told["tokenizer"][key]) for key in ("bos", "eos", "pad", "cls", "sep")
           if key in told["tokenizer"]}
    config |= {key: ids.get(key) for key in config if key.endswith("_token_id")}
    ends = [small.token_to_id(text) for text in told["tokenizer"].get("ends", ())]
    if ends:
        config["eos_token_id"] = ends
    torch.manual_seed(0)
    given = {key: value for key, value in config.items() if key not in ("auto_map", "architectures")}
    made = getattr(transformers, config["architectures"][0])(
        transformers.AutoConfig.for_model(given.pop("model_type"), **given))
    tiny._spread(made)
    made.save_pretrained(folder)
    # As published: keys of the library's earlier versions, and those that it does not know.
    (folder / "config.json").write_text(json.dumps(config))
    if told["template"]:
        (folder / "chat_template.jinja").write_text(TEMPLATES[told["template"]])
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends or ids["eos_token_id"]}))
    return folder
