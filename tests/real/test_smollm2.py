"""SmolLM2-135M-Instruct: the folder is the file, and the main job ends with proven files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import real_runs
from edgestill.quantize.proof.divergence import kl
from edgestill.quantize.source import corpus
from edgestill.quantize.unpack.folder import folder_of
from edgestill.runtime import load
from tokenizers import Tokenizer


def test_the_tokenizer_read_from_the_file_is_the_published_one(smollm2: Path, shared: Path) -> None:
    made, published = (json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
                       for folder in (smollm2, shared / "tokenizers" / "smollm2"))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in published["model"].pop("merges")]
    assert made["model"].pop("merges") == merges
    assert made == published


def test_llama_cpp_gives_the_files_tokenizers_tokens(smollm2: Path, smollm2_gguf: Path, shared: Path) -> None:
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    rows = (shared / "data" / "clinc150" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(row)["text"] for row in rows[::8]] + (
        shared / "data" / "wikitext2" / "valid.txt").read_text(encoding="utf-8").splitlines()[:1000]
    model = load(smollm2_gguf)
    different = [text for text in texts if model.codec.encode(text) != tokenizer.encode(text).ids]
    assert len(texts) > 1500 and not different


@pytest.mark.timeout(1800)
def test_a_file_of_another_converter_becomes_a_model_to_train(smollm2_gguf: Path, shared: Path, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """0 of 2,511 texts differ; every float is the very one that the file's blocks stand for."""
    from gguf import GGUFReader, dequantize
    from safetensors.numpy import load_file

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    folder = folder_of(smollm2_gguf)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["checks"]["token_ids"] == {"value": 0.0, "n": 2511, "left_out": 0}
    assert manifest["checks"]["weights"]["n"] == 272 and manifest["checks"]["logits"]["value"] < 0.06
    assert manifest["licences"] == {"model": "apache-2.0"}
    published = Tokenizer.from_file(str(shared / "tokenizers" / "smollm2" / "tokenizer.json"))
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert not [text for text in corpus.texts() if made.encode(text).ids != published.encode(text).ids]
    weights = load_file(folder / "model.safetensors")
    stored = {tensor.name: dequantize(tensor.data, tensor.tensor_type) for tensor in GGUFReader(smollm2_gguf).tensors}
    assert len(weights) == len(stored) == 272
    for name, given in (("model.embed_tokens", "token_embd"), ("model.layers.29.mlp.down_proj", "blk.29.ffn_down")):
        assert np.array_equal(weights[f"{name}.weight"], stored[f"{given}.weight"])
    turned = stored["blk.7.attn_k.weight"].reshape(3, 32, 2, 576).swapaxes(1, 2).reshape(192, 576)
    assert np.array_equal(weights["model.layers.7.self_attn.k_proj.weight"], turned)


def test_the_folder_holds_the_files_weights(smollm2: Path, smollm2_gguf: Path) -> None:
    """llama.cpp rounds activations to 8 bits on the way, so a few thousandths of a nat remain."""
    import torch
    from transformers import AutoModelForCausalLM

    packed = load(smollm2_gguf)
    ids = packed.codec.encode("The capital of France is Paris, and in 1998 it had 2.1 million people living in it.")
    found = np.array(packed.engine.logits(ids))
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    assert kl(expected, found).mean() < 0.02
    assert (expected.argmax(axis=1) == found.argmax(axis=1)).mean() >= 0.95


FAST = 'export=[{target = "gguf:Q4_0", method = {kind = "scale_search"}}]'
"""The default, gptq, takes minutes of each target."""


@pytest.mark.timeout(1800)
def test_a_few_rows_end_as_proven_files(smollm2: Path, shared: Path, tmp_path: Path) -> None:
    """What a new user types, with three steps of training: plan first, then files that are proven and graded."""
    real_runs.write(tmp_path / "rows.jsonl", real_runs.rows("snips", shared / "data")[:60])
    command = [sys.executable, "-P", "-m", "edgestill"]
    subprocess.run([*command, "init", "rows.jsonl", "--student", str(smollm2)], cwd=tmp_path, check=True)
    ran = subprocess.run([*command, "run", "run.toml", "-o", "out", "--json", "--set", "tune.steps=3", "--set", FAST],
                         cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "of memory on this machine" in ran.stderr
    models = json.loads(ran.stdout)["models"]
    shipped = [model for model in models if model["role"] == "shipped"]
    assert shipped
    for model in shipped:
        assert model["checks"] and all(check["passed"] is not False for check in model["checks"])
