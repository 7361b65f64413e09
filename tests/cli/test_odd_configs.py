"""Odd values in a model folder's JSON files: every verb names the file, the key and the value, without a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli.main import call
from edgestill.models import config_values, family
from edgestill.models.errors import ArtifactError
from edgestill.runtime.files.model_files import check_folder

from .. import packed, proving, tiny

ODD: list[tuple[str, str, Any]] = [
    ("config.json", "eos_token_id", "x"), ("config.json", "eos_token_id", -1),
    ("config.json", "eos_token_id", [0, "x"]),
    ("config.json", "num_hidden_layers", "twelve"), ("config.json", "vocab_size", None),
    ("config.json", "hidden_size", 64.5), ("config.json", "head_dim", 0), ("config.json", "rope_scaling", 3),
    ("config.json", "rope_parameters", [1]), ("config.json", "max_position_embeddings", 1e9),
    ("config.json", "max_position_embeddings", 10**12), ("config.json", "rms_norm_eps", "small"),
    ("config.json", "architectures", "LlamaForCausalLM"), ("config.json", "architectures", [7]),
    ("config.json", "tie_word_embeddings", "yes"), ("config.json", "num_attention_heads", True),
    ("config.json", "layer_types", "full"), ("config.json", "pad_token_id", -1), ("config.json", "id2label", ["a"]),
    ("config.json", "text_config", 1), ("config.json", "rope_theta", float("inf")), ("config.json", "hidden_act", 2),
    ("generation_config.json", "eos_token_id", "x"), ("generation_config.json", "eos_token_id", -1),
    ("generation_config.json", "bos_token_id", 0.5), ("tokenizer_config.json", "chat_template", 5),
    ("tokenizer_config.json", "chat_template", [{"name": "default"}]), ("tokenizer_config.json", "eos_token", 3),
    ("tokenizer_config.json", "added_tokens_decoder", []),
]
CASES = [pytest.param(*case, id=f"{case[1]}-{case[2]!r}-{case[0].partition('_')[0]}") for case in ODD]


@pytest.fixture(scope="module")
def shipped(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph as a stranger hands it over, and the model as a GGUF file."""
    folder = tmp_path_factory.mktemp("shipped")
    packed.pack(tiny_llama, folder / "graph", "onnx:fp32")
    (folder / "graph" / "manifest.json").unlink()
    shutil.copyfile(packed.pack(tiny_llama, folder / "gguf", "gguf:F32") / "model.gguf", folder / "model.gguf")
    (folder / "rows.jsonl").write_text("".join(
        json.dumps({"prompt": text, "completion": "x"}) + "\n" for text in tiny.SENTENCES[:6]))
    return folder


def folders(shipped: Path, tiny_llama: Path, tmp_path: Path) -> dict[str, tuple[Path, list[str]]]:
    """For every verb the folder that it reads, and its words."""
    model, graph = tmp_path / "model", tmp_path / "graph"
    shutil.copytree(tiny_llama, model)
    shutil.copytree(shipped / "graph", graph)
    (tmp_path / "run.toml").write_text(
        f'[data]\ntrain = "{shipped / "rows.jsonl"}"\n[student]\nmodel = "{model}"\n[tune]\nepochs = 1\n')
    return {"export": (model, ["export", str(model), "--to", "gguf:F32", "--out", str(tmp_path / "packed")]),
            "tune": (model, ["tune", str(tmp_path / "run.toml"), "--out", str(tmp_path / "tuned")]),
            "verify": (model, ["verify", str(shipped / "model.gguf"), "--against", str(model), "--threads", "1"]),
            "inspect": (model, ["inspect", str(model)]),
            "generate": (graph, ["generate", str(graph), "hello"])}


@pytest.mark.parametrize(("file", "key", "value"), CASES)
def test_an_odd_value_is_named_by_every_verb(file: str, key: str, value: Any, shipped: Path, tiny_llama: Path,
                                             tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = folders(shipped, tiny_llama, tmp_path)
    for folder in {folder for folder, _ in words.values()}:
        proving.edit_json(folder / file, lambda table: table.update({key: value}))
    for folder, given in words.values():
        code, told = call(given), capsys.readouterr().err
        assert code in (1, 2), (given, told)
        assert "Traceback" not in told and "defect" not in told, told
        shown = "null" if value is None else repr(value)
        assert f"{folder / file}: {key} = {shown}, and it must be" in told, told


@pytest.mark.parametrize("key", ["architectures", "num_hidden_layers", "hidden_size", "num_attention_heads",
                                 "max_position_embeddings", "vocab_size"])
def test_a_missing_value_is_no_traceback(key: str, shipped: Path, tiny_llama: Path, tmp_path: Path,
                                         capsys: pytest.CaptureFixture[str]) -> None:
    """transformers has defaults, llama.cpp has none: some verbs can do without the key, none may break."""
    words = folders(shipped, tiny_llama, tmp_path)
    for folder in {folder for folder, _ in words.values()}:
        proving.edit_json(folder / "config.json", lambda table: table.pop(key))
    codes = {}
    for verb in ("export", "inspect", "generate"):
        codes[verb], told = call(words[verb][1]), capsys.readouterr().err
        assert codes[verb] in (0, 1, 2) and "Traceback" not in told and "defect" not in told, told
        assert codes[verb] == 0 or key in told or "architecture" in told or "config.json" in told, told
    assert codes["export"] or key == "vocab_size"


def test_values_in_parts_are_named_with_their_place(tmp_path: Path) -> None:
    for table, message in [({"text_config": {"hidden_size": "x"}}, "text_config.hidden_size = 'x'"),
                           ({"rope_scaling": {"factor": "8"}}, "rope_scaling.factor = '8'"),
                           ({"rope_parameters": {"full_attention": {"rope_theta": -1}}},
                            "rope_parameters.full_attention.rope_theta = -1"),
                           ({"id2label": {"zero": "a"}}, "id2label = 'zero'")]:
        (tmp_path / "config.json").write_text(json.dumps(table))
        with pytest.raises(ArtifactError, match=message.replace(".", r"\.")):
            check_folder(tmp_path)


def test_sound_values_pass(tmp_path: Path) -> None:
    sound = {"eos_token_id": [1, 2], "bos_token_id": None, "head_dim": None, "rope_scaling": None, "pad_token_id": 0,
             "rope_parameters": {"rope_type": "yarn", "factor": 4, "rope_theta": 1e6}, "id2label": {"0": "a"},
             "sliding_window": None, "rms_norm_eps": 1e-6, "an_unknown_key": {"of": ["any", "kind", -1]}}
    (tmp_path / "config.json").write_text(json.dumps(sound))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({
        "chat_template": [{"name": "default", "template": "x"}], "model_max_length": 10**30, "eos_token": None,
        "pad_token": {"content": "<pad>"}}))
    check_folder(tmp_path)


def test_every_key_that_a_family_reads_has_a_rule() -> None:
    known = config_values.RULES["config.json"]
    for name in family.names():
        member = family.load(name)
        values = member.gguf.values.values() if member.gguf else ()
        read = [*member.keys.values(), member.builder.unturned, member.plain.parallel, *(
            key for value in values if isinstance(value, str) for key in value.split(" * "))]
        assert not [key for key in read if key and key not in known and not key.endswith(".weight")], name
