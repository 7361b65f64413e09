"""Export: refusals before weights load, complete artifacts, nothing left of what failed."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from edgestill.models import files
from edgestill.models.artifact import is_artifact, open_artifact, seal
from edgestill.models.errors import ArtifactError, CheckFailed, DataError, EdgestillError, UsageError
from edgestill.models.runfile import Export
from edgestill.models.task import Task
from edgestill.quantize import export, verify
from edgestill.quantize.proof import certificate, reference
from edgestill.quantize.proof import limits as limits_table
from edgestill.quantize.proof.float_answers import Witness
from edgestill.quantize.source.float_model import FloatModel
from edgestill.runtime import load

from .. import proving, tiny

EXPORT = importlib.import_module("edgestill.quantize.ship.export")  # as an attribute of the package it is the function
SCHEMA = {"type": "object", "properties": {"action": {"enum": ["on", "off"]}}, "required": ["action"]}


@pytest.fixture(scope="module")
def tuned(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distilled artifact with a schema, a system prompt, parents and licences."""
    folder = tmp_path_factory.mktemp("tuned") / "student"
    shutil.copytree(tiny_llama, folder)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    (folder / "run.toml").write_text("[task]\nkind = \"generate\"\n")
    seal(folder, stage="distill", task=Task(system="Be brief.", schema="schema.json", max_new_tokens=16),
         family="llama", scheme="hf", model_file="model.safetensors",
         licences={"model": "Apache-2.0", "data": "CC0-1.0"},
         parents=[{"role": "teacher", "name": "big", "sha256": "0" * 64},
                  {"role": "student", "name": "someone/small", "revision": "1" * 40}])
    return folder


@pytest.fixture(scope="module")
def made(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    return export(tuned, ["gguf:Q4_0"], out, proving.ROWS, proving.TEST_ROWS)["gguf:Q4_0"]


def test_an_artifact_is_complete_and_loads(made: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert names == {"README.md", "certificate.json", "chat_template.jinja", "config.json", "fixtures.json",
                     "generation_config.json", "grammar.gbnf", "manifest.json", "model.gguf", "Modelfile",
                     "reference.npz", "run.toml", "schema.json", "tokenizer.json", "tokenizer_config.json"}
    artifact = open_artifact(made)
    artifact.verify()
    manifest = artifact.manifest
    assert set(manifest.files) == names - {"manifest.json"}
    assert (manifest.stage, manifest.family, manifest.scheme) == ("export", "llama", "gguf:Q4_0")
    assert manifest.dimensions == {"parameters": 135616, "vocabulary": 384, "layers": 3, "hidden": 64, "context": 256}
    assert manifest.tokenizer.stop_ids == [0] and len(manifest.tokenizer.template_sha256) == 64
    assert [parent["role"] for parent in manifest.parents] == ["teacher", "student", "source"]
    assert manifest.licences == {"model": "Apache-2.0", "data": "CC0-1.0"}
    assert manifest.checks["kl_nats"]["n"] > 100 and manifest.checks["kl_nats"]["passed"]
    assert manifest.task == Task(system="Be brief.", schema="schema.json", max_new_tokens=16)
    assert load(made).generate("turn off the light", max_new_tokens=4).ids


def test_a_graph_for_webgpu_is_proven_on_this_cpu(tuned: Path, tmp_path: Path) -> None:
    folder = export(tuned, ["onnx:q4f16"], tmp_path, proving.ROWS, proving.TEST_ROWS)["onnx:q4f16"]
    settings = json.loads((folder / "config.json").read_text())["transformers.js_config"]
    assert settings["kv_cache_dtype"] == {"q4f16": "float16"} and (folder / "onnx" / "model_q4f16.onnx").is_file()
    found = {check.name: check for check in verify(folder).checks}
    assert all(found[name].passed and found[name].n > 20 for name in ("kl_nats", "decode_kl_nats", "cache_kl_nats"))


def test_the_schema_keeps_the_order_of_its_keys(tiny_llama: Path, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"what": {"type": "string"}, "after": {"type": "integer"}}}
    (tmp_path / "order.json").write_text(json.dumps(schema))
    source = EXPORT.Source.open(tiny_llama, Task(schema=str(tmp_path / "order.json")))
    source.copy_files(tmp_path)
    assert list(json.loads((tmp_path / "schema.json").read_text())["properties"]) == ["what", "after"]


def test_the_card_says_what_it_is_how_it_was_proven_and_how_to_run_it(made: Path) -> None:
    text = (made / "README.md").read_text()
    for part in ("gguf:Q4_0", "135,616 parameters", "Apache-2.0", "not stated", "kl_nats", "edgestill verify",
                 "edgestill generate", "schema.json", "Be brief.", "| teacher | big |", "ollama create", "lms import",
                 '---\nlicense: "apache-2.0"\nbase_model: "someone/small"\n',
                 'pipeline_tag: "text-generation"\nlibrary_name: "llama.cpp"\n'):
        assert part in text


def test_the_reference_holds_what_the_float_model_said(made: Path, tiny_llama: Path) -> None:
    stored = reference.read(made)
    model = FloatModel.from_folder(tiny_llama)
    logits = model.logits(stored.sequences[0].tolist())
    assert (stored.top_ids[0][:, 0] == logits.argmax(axis=1)).all() and stored.top_ids[0].shape[1] == 64
    assert abs(float(stored.tails[0][0]) - (1 - sum(2.718281828 ** float(x) for x in stored.top_logprobs[0][0]))) < 2e-3
    with pytest.raises(ArtifactError, match="reference cannot be read"):
        reference.read(made.parent)


def test_the_same_export_gives_the_same_bytes(made: Path, tuned: Path, tmp_path: Path) -> None:
    again = export(str(tuned), "gguf:Q4_0", str(tmp_path), proving.ROWS, proving.TEST_ROWS)["gguf:Q4_0"]
    first, second = ({path.name: files.sha256(path) for path in folder.iterdir()} for folder in (made, again))
    assert first == second


def test_test_rows_that_stand_in_the_calibration_rows_are_not_counted(tuned: Path, tmp_path: Path) -> None:
    leaked = [*proving.ROWS[:3], proving.TEST_ROWS[0]]
    folder = export(tuned, "gguf:F32", tmp_path, proving.ROWS, leaked)["gguf:F32"]
    (check,) = [check for check in certificate.read(folder).checks if check.name == "task_metric_drop"]
    assert check.n == 1
    with pytest.raises(DataError, match="all 3 test rows also stand"):
        export(tuned, "gguf:F32", tmp_path / "second", proving.ROWS, proving.ROWS[:3])


def test_without_rows_the_built_in_corpus_is_the_reference(tiny_llama: Path, tmp_path: Path) -> None:
    target = Export("gguf:Q4_0", method={"kind": "rtn"})
    folder = export(tiny_llama, [target], tmp_path)["gguf:Q4_0"]
    manifest = open_artifact(folder).manifest
    assert manifest.settings["reference_tokens"] > 2000 and manifest.settings["calibration_tokens"] == 0
    assert manifest.settings["method"] == {"kind": "rtn"} and manifest.checks["task_metric_drop"]["not_run"]
    assert manifest.task == Task() and verify(folder).passed


def test_a_classifiers_labels_and_temperature_travel(tiny_bert: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    shutil.copytree(tiny_bert, folder)
    seal(folder, stage="tune", task=Task(kind="classify"), family="bert", scheme="hf", model_file="model.safetensors",
         settings={"temperature": 1.7, "seed": 3})
    manifest = open_artifact(export(folder, "onnx:int8", tmp_path / "out")["onnx:int8"]).manifest
    assert manifest.task.labels == ["light", "music", "weather"]
    assert manifest.settings["temperature"] == 1.7 and "seed" not in manifest.settings


def test_a_failed_certificate_leaves_no_artifact_but_something_to_look_at(
        tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits_table.LIMITS, "gguf:Q4_0", replace(limits_table.LIMITS["gguf:Q4_0"], kl_nats=1e-9))
    for _ in range(2):  # the second failure replaces the first
        with pytest.raises(CheckFailed, match="cause: weights") as caught:
            export(tiny_llama, ["gguf:F32", "gguf:Q4_0"], tmp_path / "out", proving.ROWS, proving.TEST_ROWS)
        shutil.rmtree(tmp_path / "out" / "gguf-F32")
    failed = tmp_path / "out" / "gguf-Q4_0.failed"
    assert str(failed) in caught.value.hint and caught.value.exit_code == 3
    assert [path.name for path in (tmp_path / "out").iterdir()] == [failed.name]
    assert not is_artifact(failed) and (failed / "model.gguf").is_file()
    assert certificate.read(failed).causes == ("weights",)


def test_an_export_that_breaks_off_leaves_nothing(tiny_llama: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(EXPORT, "seal", full)
    with pytest.raises(OSError, match="No space"):
        export(tiny_llama, "gguf:F32", tmp_path, proving.ROWS, proving.TEST_ROWS)
    assert not list(tmp_path.iterdir())


def test_the_manifest_is_written_when_everything_else_stands(tiny_llama: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def watch(folder: Path, **fields: object) -> None:
        seen.append({path.name for path in folder.iterdir()})
        seal(folder, **fields)
    monkeypatch.setattr(EXPORT, "seal", watch)
    folder = export(tiny_llama, "gguf:F32", tmp_path, proving.ROWS, proving.TEST_ROWS)["gguf:F32"]
    assert {path.name for path in folder.iterdir()} - seen[0] == {"manifest.json"}


def full_folder(_: Path, tmp_path: Path) -> dict:
    (tmp_path / "out" / "gguf-F32").mkdir(parents=True)
    (tmp_path / "out" / "gguf-F32" / "mine.txt").write_text("kept")
    return {}


REFUSALS: list[tuple[str, Callable[[Path, Path], dict], type[EdgestillError], str]] = [
    ("an unknown target", lambda *_: {"to": "gguf:Q4_1"}, UsageError, "'gguf:Q4_1' is not known"),
    ("no target", lambda *_: {"to": []}, UsageError, "no export target"),
    ("a target twice", lambda *_: {"to": ["gguf:F32", "gguf:f32"]}, UsageError, "given twice"),
    ("an unknown method", lambda *_: {"to": [Export("gguf:Q4_0", method={"kind": "magic"})]}, UsageError,
     "'magic' is not known"),
    ("a folder with files", full_folder, EdgestillError, "exists and is not empty"),
    ("a missing folder", lambda _, tmp: {"source": tmp / "none"}, ArtifactError, "no such folder"),
    ("a task of another kind", lambda *_: {"task": Task(kind="classify")}, UsageError, "task.kind = 'classify'"),
    ("a missing schema", lambda *_: {"task": Task(schema="none.json")}, UsageError, "none.json: no such file"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), [case[1:] for case in REFUSALS],
                         ids=[case[0] for case in REFUSALS])
def test_refused_before_weights_load(arguments: Callable[[Path, Path], dict], error: type[EdgestillError], message: str,
                                     tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FloatModel, "from_folder", lambda _: pytest.fail("weights were loaded"))
    with pytest.raises(error, match=message) as caught:
        export(**{"source": tiny_llama, "to": "gguf:F32", "out": tmp_path / "out"} | arguments(tiny_llama, tmp_path))
    assert caught.value.hint


@pytest.mark.parametrize(("text", "message"), [("{", "no valid JSON"), ("[]", "a JSON object was expected")])
def test_a_schema_that_is_none_is_refused(text: str, message: str, tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        export(tiny_llama, "gguf:F32", tmp_path / "out", task=Task(schema=str(tmp_path / "schema.json")))


def test_a_format_that_does_not_carry_the_family_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="classifiers are not exported as gguf"):
        export(tiny_bert, "gguf:Q4_0", tmp_path / "out")
    with pytest.raises(UsageError, match="2 labels, the model has 3"):
        export(tiny_bert, "onnx:int8", tmp_path / "out", task=Task(kind="classify", labels=["a", "b"]))


def test_heads_that_onnxruntime_refuses_at_the_first_token_are_refused_at_once(tmp_path: Path) -> None:
    folder = tiny.decoder(tmp_path / "narrow", "llama", num_attention_heads=8, head_dim=8)
    with pytest.raises(UsageError, match="heads of 8 values"):
        export(folder, "onnx:int4", tmp_path / "out")


def test_a_packed_or_changed_artifact_is_refused(made: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is packed already, as gguf:Q4_0"):
        export(made, "gguf:F32", tmp_path / "out")
    shutil.copytree(tuned, tmp_path / "changed")
    (tmp_path / "changed" / "config.json").write_bytes((tuned / "config.json").read_bytes()[:-1] + b" ")
    with pytest.raises(ArtifactError, match="SHA-256"):
        export(tmp_path / "changed", "gguf:F32", tmp_path / "out")


def test_weights_that_are_missing_are_not_made_up(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny_llama, tmp_path / "short")
    weights = load_file(tmp_path / "short" / "model.safetensors")
    save_file({name: value for name, value in weights.items() if name != "model.norm.weight"},
              tmp_path / "short" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ArtifactError, match="1 weights that LlamaForCausalLM needs .* model.norm.weight"):
        export(tmp_path / "short", "gguf:F32", tmp_path / "out")


def test_weights_that_are_no_numbers_are_refused_before_anything_is_measured(tiny_llama: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tiny_llama, tmp_path / "broken")
    weights = load_file(tmp_path / "broken" / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * float("nan")
    save_file(weights, tmp_path / "broken" / "model.safetensors", {"format": "pt"})
    for work in (FloatModel.from_folder, lambda folder: export(folder, "gguf:F32", tmp_path / "out")):
        with pytest.raises(ArtifactError, match="model.norm.weight holds .*NaN or infinite"):
            work(tmp_path / "broken")


def test_weights_of_another_shape_than_the_config_says_are_refused(tiny_llama: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    config = json.loads((source / "config.json").read_text())
    config["intermediate_size"] *= 2
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="mlp.down_proj.weight is of shape .*, by config.json it is"):
        export(source, "gguf:F32", tmp_path / "out")


@pytest.mark.parametrize("change", [{"num_attention_heads": 5},
                                    {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}])
def test_a_config_that_is_no_models_is_refused(change: dict[str, object], tiny_llama: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_llama, tmp_path / "other"))
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ArtifactError, match="config.json: "):
        export(source, "gguf:F32", tmp_path / "out")


def test_a_witness_is_asked_once_for_several_exports(tiny_llama: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    load_float = FloatModel.from_folder

    def count(folder: Path) -> FloatModel:
        loaded.append(folder)
        return load_float(folder)
    monkeypatch.setattr(FloatModel, "from_folder", count)
    shared = Witness(tiny_llama, proving.ROWS, proving.TEST_ROWS)
    assert not loaded  # all refusals come before
    first = export(shared, "gguf:F32", tmp_path)["gguf:F32"]
    second = export(shared, "gguf:F16", tmp_path)["gguf:F16"]
    assert len(loaded) == 1
    assert (first / "reference.npz").read_bytes() == (second / "reference.npz").read_bytes()
