"""What a model folder is refused for before any of its weights are used, by training and export alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.distill.loading import load_model
from edgestill.distill.sources import check
from edgestill.models import files
from edgestill.models.errors import ArtifactError
from edgestill.models.task import Task
from edgestill.quantize.source import folder_checks
from edgestill.quantize.source.checkpoint import Checkpoint
from edgestill.quantize.source.float_model import FloatModel

from .test_checkpoint import leave_tensor_out_of_shard, rewrite, set_config

Change = Callable[[Path], object]


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


def own_head(folder: Path, change: float = 1.0) -> None:
    rewrite(folder, lambda tensors: tensors.update(
        {"lm_head.weight": change * tensors["model.embed_tokens.weight"]}))


def packed(folder: Path, dtype: Any = np.uint8) -> None:
    rewrite(folder, lambda tensors: tensors.update(
        {"model.layers.1.mlp.up_proj.weight": np.zeros((4, 32), dtype)}))


PACKED = {"quant_method": "gptq", "bits": 4}
BAD: list[tuple[str, Change]] = [
    ("tie_word_embeddings = true, and lm_head.weight is another matrix", lambda folder: own_head(folder, 2.0)),
    ("the output layer is its own, and there is no lm_head.weight",
     lambda folder: set_config(folder, tie_word_embeddings=False)),
    ("its weights are packed already, by 'gptq'", lambda folder: set_config(folder, quantization_config=PACKED)),
    ("model.layers.1.mlp.up_proj.weight is of type U8", packed),
    ("model.layers.1.mlp.up_proj.weight_packed is of type U8", lambda folder: rewrite(folder, lambda tensors:
        tensors.update({"model.layers.1.mlp.up_proj.weight_packed": np.zeros((4, 32), np.uint8)}))),
    ("torch_dtype = 'torch.float16', and it must be", lambda folder: set_config(folder, torch_dtype="torch.float16")),
    ("'auto_map' asks to run code", lambda folder: set_config(folder, auto_map={"AutoModel": "evil.Model"})),
    ("'auto_map' asks to run code", lambda folder: set_config(folder, auto_map={"AutoConfig": "evil.Config"})),
    ("'custom_pipelines' asks to run code", lambda folder: set_config(folder, custom_pipelines={})),
    ("config.json: pad_token_id = 384, and the vocabulary has 384 tokens",
     lambda folder: set_config(folder, pad_token_id=384)),
    ("generation_config.json: eos_token_id = 400, and the vocabulary has 384 tokens",
     lambda folder: (folder / "generation_config.json").write_text('{"eos_token_id": [0, 400]}')),
    ("'model.lost.weight', which is in none of the shards", leave_tensor_out_of_shard),
    ("beside whole weights, and not the settings of a LoRA adapter",
     lambda folder: (folder / "adapter_config.json").write_text("{}")),
]


@pytest.mark.parametrize(("message", "spoil"), BAD, ids=[message for message, _ in BAD])
def test_both_doors_refuse_it(folder: Path, message: str, spoil: Change) -> None:
    spoil(folder)
    for door in (check, Checkpoint.open):
        with pytest.raises(ArtifactError, match=message) as caught:
            door(folder)
        assert caught.value.hint


GOOD: list[Change] = [
    own_head,  # the same numbers in both places
    lambda folder: set_config(folder, auto_map={"AutoConfig": "configuration_llama.LlamaConfig", "AutoTokenizer": "x/y",
                                                "AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"}),
    lambda folder: rewrite(folder, lambda tensors: tensors.update({"model.counter": np.arange(3)})),
]


@pytest.mark.parametrize("change", GOOD)
def test_sound_folders_pass_both(folder: Path, change: Change) -> None:
    change(folder)
    check(folder)
    Checkpoint.open(folder)


def test_an_output_layer_of_its_own_passes_where_config_says_so(folder: Path) -> None:
    own_head(folder, 2.0)
    set_config(folder, tie_word_embeddings=False)
    check(folder)
    assert "lm_head.weight" in Checkpoint.open(folder).entries


@pytest.mark.parametrize("change", [lambda name: name.removeprefix("model."), lambda name: f"model.{name}"])
def test_a_beginning_of_the_names_that_is_missing_or_doubled_is_mended(
        change: Callable[[str], str], folder: Path, tiny_llama: Path) -> None:
    """As transformers does, so that what can be trained can be exported."""
    def rename(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            tensors[change(name)] = tensors.pop(name)
    rewrite(folder, rename)
    found, wanted = Checkpoint.open(folder), Checkpoint.open(tiny_llama)
    assert set(found.entries) == set(wanted.entries)
    assert np.array_equal(found.tensor("model.norm.weight"), wanted.tensor("model.norm.weight"))
    trained, exported = load_model(folder, Task()), FloatModel.from_folder(folder).module
    assert bool((trained.get_output_embeddings().weight == exported.get_output_embeddings().weight).all())


UNFIT: list[tuple[str, Change]] = [
    (r"k_proj.weight is of shape \[32, 64\], by config.json it is \[64, 64\]",
     lambda folder: set_config(folder, num_key_value_heads=4)),
    (r"embed_tokens.weight is of shape \[384, 64\], by config.json it is \[300, 64\]",
     lambda folder: set_config(folder, vocab_size=300)),
    ("config.json: transformers makes no model of it: 'su'",
     lambda folder: set_config(folder, rope_parameters={"rope_type": "su", "factor": 2.0})),
    ("transformers makes no model of it: .*'dict'", lambda folder: set_config(folder, text_config={"a": {}})),
    ("model.norm.weight holds values that are NaN or infinite", lambda folder: rewrite(
        folder, lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"] * np.nan}))),
]


@pytest.mark.parametrize(("message", "spoil"), UNFIT, ids=[message for message, _ in UNFIT])
def test_both_loaders_refuse_it(folder: Path, message: str, spoil: Change) -> None:
    spoil(folder)
    for load in (FloatModel.from_folder, lambda path: load_model(path, Task())):
        with pytest.raises(ArtifactError, match=message) as caught:
            load(folder)
        assert caught.value.hint


def test_weights_that_config_leaves_unread_are_refused(folder: Path) -> None:
    """Biases without attention_bias: llama.cpp would add them, torch would not."""
    rewrite(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.q_proj.bias": np.ones(64, np.float32)}))
    for load in (FloatModel.from_folder, lambda path: load_model(path, Task())):
        with pytest.raises(ArtifactError, match="1 tensors that LlamaForCausalLM does not read .*q_proj.bias"):
            load(folder)


def test_links_or_copies_stand_for_the_whole_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "adapter_config.json").write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "x.jinja").write_text("y")
    names = {path.name for path in folder.iterdir()} - {"adapter_config.json"}

    def refused(*_given: Any, **_named: Any) -> None:
        raise OSError("a privilege is not held")
    for _ in range(2):
        with folder_checks.as_whole(folder) as whole:
            assert {path.name for path in whole.iterdir()} == names
            assert (whole / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
            assert (whole / "additional_chat_templates" / "x.jinja").read_text() == "y"
        monkeypatch.setattr(files.os, "symlink", refused)
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize("key", ["intermediate_size", "head_dim"])
def test_a_config_far_larger_than_its_weights_takes_no_memory(key: str, folder: Path) -> None:
    assert FloatModel.from_folder(folder).parameters < 200_000
    set_config(folder, **{key: 10**9})
    for load in (FloatModel.from_folder, lambda folder: load_model(folder, Task())):
        with pytest.raises(ArtifactError, match=r"by config.json the model has \d+(,\d{3}){3,4} weights, there are"):
            load(folder)
