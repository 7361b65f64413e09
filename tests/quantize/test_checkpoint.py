"""Reading checkpoints: every dtype, shards, and each folder that must be refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from edgestill.models.errors import ArtifactError, EdgestillError
from edgestill.quantize.source.checkpoint import Checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shard_size", ["1GB", "50KB"])
def test_weights_are_those_torch_reads(tiny_llama: Path, tmp_path: Path, dtype: str, shard_size: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=getattr(torch, dtype))
    model.save_pretrained(tmp_path, max_shard_size=shard_size)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_llama / name, tmp_path)
    found = Checkpoint.open(tmp_path)
    assert len({entry.file for entry in found.entries.values()}) > 1 or shard_size == "1GB"
    state = model.state_dict()
    assert set(found.entries) == set(state) - {"lm_head.weight"}
    for name in found.entries:
        read = found.tensor(name)
        assert read.dtype == np.float32
        assert np.array_equal(read, state[name].float().numpy()), name
    if shard_size == "1GB":  # some programs write an index of their single file, too
        index = {"weight_map": dict.fromkeys(found.entries, "model.safetensors")}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert Checkpoint.open(tmp_path).entries == found.entries
    assert found.vocabulary_size == model.config.vocab_size
    assert found.parameters() == sum(parameter.numel() for parameter in model.parameters())


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def set_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_shard(folder: Path) -> Path:
    weights = {"model.embed_tokens.weight": "a.safetensors", "model.norm.weight": "b.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    return folder


def repeat_shard(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"model.norm.weight": np.zeros(64, np.float32)}, drop_shard(folder) / "b.safetensors")


def leave_tensor_out_of_shard(folder: Path) -> None:
    weights = {"model.embed_tokens.weight": "a.safetensors", "model.lost.weight": "a.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    (folder / "model.safetensors").rename(folder / "a.safetensors")


def escape_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../elsewhere.safetensors"}}))


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def only_adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")


def cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def enlarge_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    table = json.loads(path.read_text())
    table["added_tokens"].append({**table["added_tokens"][0], "id": 400, "content": "<|new|>"})
    path.write_text(json.dumps(table))


BAD: list[tuple[str, Callable[[Path], object]]] = [
    ("a shard that .* lists", drop_shard),
    ("'model.lost.weight', which is in none of the shards", leave_tensor_out_of_shard),
    ("no valid weight_map", escape_folder),
    ("pytorch_model.bin, a pickle", only_pickle),
    ("no model.safetensors in it", lambda folder: (folder / "model.safetensors").unlink()),
    ("LoRA adapter without its base", only_adapter),
    ("config.json: no such file", lambda folder: (folder / "config.json").unlink()),
    ("no valid JSON", lambda folder: (folder / "config.json").write_text("{")),
    ("a JSON object was expected", lambda folder: (folder / "config.json").write_text("[]")),
    ("no tokenizer.json", lambda folder: (folder / "tokenizer.json").unlink()),
    ("cannot be read as safetensors", cut_short),
    ("cannot be read as safetensors", lambda folder: (folder / "model.safetensors").write_bytes(b"")),
    ("ids up to 400, the embedding only 384 rows", enlarge_tokenizer),
    ("vocab_size = 300, the embedding has 384 rows", lambda folder: set_config(folder, vocab_size=300)),
    ("num_hidden_layers = 1000000000, and there are", lambda folder: set_config(folder, num_hidden_layers=10**9)),
    ("config.json: 20,000,000 bytes, the limit is", lambda folder: (folder / "config.json").write_text(
        "{" + " " * (2 * 10**7 - 2) + "}")),
    ("'model.norm.weight' stands in a.safetensors, too", repeat_shard),
    ("in it, two models", lambda folder: shutil.copy(drop_shard(folder) / "a.safetensors",
                                                     folder / "model.safetensors")),
    ("no valid weight_map", lambda folder: (drop_shard(folder) / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": 5}}')),
    ("tensors of 3 layers .* num_hidden_layers = 2", lambda folder: set_config(folder, num_hidden_layers=2)),
    ("layer 1 lacks model.layers.1.mlp.up_proj.weight",
     lambda folder: rewrite(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))),
    ("no token embedding", lambda folder: rewrite(folder, lambda tensors: tensors.pop("model.embed_tokens.weight"))),
    ("architecture 'T5Model' is not one", lambda folder: set_config(folder, architectures=["T5Model"])),
]


@pytest.mark.parametrize(("message", "spoil"), BAD, ids=[message for message, _ in BAD])
def test_a_bad_folder_is_refused_with_a_next_step(folder: Path, message: str, spoil: Callable[[Path], object]) -> None:
    spoil(folder)
    with pytest.raises(EdgestillError, match=message) as caught:
        Checkpoint.open(folder)
    assert caught.value.hint


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        Checkpoint.open(tmp_path / "nothing")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].copy()
        tensors["model.norm.weight"][3] = value

    rewrite(folder, spoil)
    with pytest.raises(ArtifactError, match="model.norm.weight holds 1 values of 64 that are NaN or infinite"):
        Checkpoint.open(folder).tensor("model.norm.weight")


def test_tensors_of_other_types_and_names_are_refused(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.update({"model.counter": np.arange(3)}))
    found = Checkpoint.open(folder)
    with pytest.raises(ArtifactError, match="of type I64"):
        found.tensor("model.counter")
    with pytest.raises(ArtifactError, match="no tensor 'lm_head.weight'"):
        found.tensor("lm_head.weight")


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 3000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_the_header_loads_or_is_refused(folder: Path, place: int, bit: int) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 1 << bit
    path.write_bytes(damaged)
    try:
        found = Checkpoint.open(folder)
        for name in found.entries:
            found.tensor(name)
    except EdgestillError as error:
        assert error.hint
    finally:
        path.write_bytes(whole)
