"""The front doors: run file in, artifact out; sources that are refused; the same run, the same bytes."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from edgestill.distill import distill, prepare_student, sources, tune, tune_teacher
from edgestill.distill.adapters import lora
from edgestill.distill.loading import load_model
from edgestill.distill.teachers import local
from edgestill.distill.teachers._classifier import load as load_teacher
from edgestill.distill.training import machine
from edgestill.models import kinds
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import ArtifactError, DataError, EdgestillError, UsageError
from edgestill.models.runfile import read
from edgestill.models.task import Task
from edgestill.runtime.text.codec import Codec

LABELS = ["light", "music", "weather"]
TEXTS = {"light": ["turn off the light", "lamp on"], "music": ["play some music", "a song please"],
         "weather": ["what is the weather", "will it rain"]}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, tiny_bert: Path) -> Path:
    """A folder with rows for both tasks, a model for each, and a schema."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(tiny_llama, folder / "llama")
    shutil.copytree(tiny_bert, folder / "bert")
    chats = [{"prompt": f"turn {state} the {room} {device}", "completion": json.dumps({"state": state, "room": room})}
             for state in ("on", "off") for room in ("kitchen", "hall", "bedroom")
             for device in ("light", "fan", "radio", "tv")]
    texts = [{"text": f"{start} {end} {number}", "label": label} for label, starts in TEXTS.items() for start in starts
             for end in ("now", "today", "soon") for number in range(3)]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    (folder / "schema.json").write_text('{"type": "object"}')
    return folder


def run_file(folder: Path, text: str, name: str = "run.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


CHAT = """
[task]
schema = "schema.json"
[data]
train = "chats.jsonl"
[student]
layers = [0, 2]
vocabulary = "trim"
[teacher]
kind = "local"
model = "llama"
[tune]
steps = 6
learning_rate = 1e-3
[distill]
epochs = 8
batch_size = 8
learning_rate = 2e-3
losses = [{kind = "forward_kl"}, {kind = "ce", weight = 0.1}]
"""
CLASSES = """
[task]
kind = "classify"
[data]
train = "texts.jsonl"
[student]
layers = [1]
vocabulary = "trim"
[teacher]
kind = "local"
model = "bert"
tune = true
[tune]
epochs = 6
batch_size = 8
learning_rate = 2e-3
[distill]
epochs = 6
batch_size = 8
learning_rate = 3e-3
losses = [{kind = "forward_kl", temperature = 2.0}, {kind = "ce", weight = 0.3}]
"""


def curve(folder: Path, name: str) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record[name] for record in records if name in record]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_decoder_is_distilled_into_an_artifact_that_transformers_loads(house: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = run_file(house, CHAT)
    before = {file: file.read_bytes() for file in (house / "llama").iterdir()}
    out = distill(path, tmp_path / "student")
    artifact = open_artifact(out)
    artifact.verify()
    manifest = artifact.manifest
    assert (manifest.stage, manifest.family, manifest.scheme) == ("distill", "llama", "hf")
    assert manifest.dimensions["layers"] == 2
    assert manifest.dimensions["vocabulary"] < Codec.from_folder(house / "llama").vocabulary_size
    assert {parent["role"] for parent in manifest.parents} == {"base", "student", "teacher", "data"}
    assert manifest.tokenizer.stop_ids and manifest.tokenizer.template_sha256
    assert manifest.checks["validation"]["n"] >= 1 and manifest.checks["training"]["steps"] == len(curve(out, "loss"))
    assert manifest.task.schema == "schema.json" and (out / "schema.json").is_file()
    assert read(out / "run.toml").student.layers == [0, 2]
    losses = curve(out, "validation_loss")
    assert min(losses) == losses[-1] < 0.7 * losses[0] or min(losses) < 0.7 * losses[0]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    chat = [{"role": "user", "content": "turn on the hall fan"}]
    rendered = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    codec = Codec.from_folder(out, manifest.task)
    assert rendered == codec.render(chat)
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == codec.prompt_ids(chat)
    assert model(torch.tensor([codec.prompt_ids(chat)])).logits.shape[-1] == manifest.dimensions["vocabulary"]
    assert {file: file.read_bytes() for file in (house / "llama").iterdir()} == before
    assert not (tmp_path / "student.work").exists()
    assert distill(path, tmp_path / "student") == out, "the same run again does nothing"
    with pytest.raises(EdgestillError, match="not empty"):
        distill(path, tmp_path / "student", ["distill.seed=7"])


def test_the_same_run_gives_the_same_bytes_and_another_seed_others(house: Path, tmp_path: Path) -> None:
    path = run_file(house, CHAT)
    digests = [digest(tune(path, tmp_path / name, overrides))
               for name, overrides in (("a", []), ("b", []), ("c", ["tune.seed=1"]))]
    assert digests[0] == digests[1] != digests[2]


def test_a_classifier_learns_from_a_teacher_that_was_tuned_first(house: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    out = distill(run_file(house, CLASSES), tmp_path / "student")
    teacher = open_artifact(tmp_path / "student-teacher").manifest
    assert teacher.stage == "tune" and teacher.task.labels == LABELS
    manifest = open_artifact(out).manifest
    assert manifest.task.labels == LABELS and manifest.dimensions["layers"] == 1
    assert 0.05 < manifest.settings["temperature"] < 20
    assert manifest.checks["validation"]["accuracy"] > 0.6
    model = AutoModelForSequenceClassification.from_pretrained(out)
    assert [model.config.id2label[index] for index in range(3)] == LABELS
    ids = torch.tensor([Codec.from_folder(out).encode("play some music now", add_special_tokens=True)])
    assert model(ids).logits.argmax() == LABELS.index("music")


def test_the_stages_can_be_done_one_by_one(house: Path, tmp_path: Path) -> None:
    path = run_file(house, CLASSES)
    teacher = tune_teacher(path, tmp_path / "teacher")
    student = prepare_student(path, tmp_path / "prepared", teacher=teacher)
    assert open_artifact(student).manifest.stage == "prepare"
    whole = distill(path, tmp_path / "whole", student=student, teacher=teacher)
    assert open_artifact(whole).manifest.dimensions["layers"] == 1
    labels_alone = tune(path, tmp_path / "labels", student=student)
    assert curve(labels_alone, "loss")[-1] < curve(labels_alone, "loss")[0]


@pytest.mark.parametrize("kind", kinds.names("distill.adapters"))
@pytest.mark.parametrize("task", ["chat", "classes"])
def test_every_adapter_trains_and_is_merged(kind: str, task: str, house: Path, tmp_path: Path) -> None:
    path = run_file(house, CHAT if task == "chat" else CLASSES)
    options = [f"tune.adapter={{kind='{kind}'}}", "student.layers=[]", "student.vocabulary=all",
               "tune.learning_rate=0.01"]
    out = tune(path, tmp_path / kind, options)
    names = set(json.loads((out / "model.safetensors").read_bytes()[8:].split(b"}}", 1)[0].decode() + "}}"))
    assert not any("lora" in name or "adapter" in name for name in names) and not (out / "adapter_config.json").exists()
    source = house / ("llama" if task == "chat" else "bert")
    settings = Task() if task == "chat" else Task("classify", labels=LABELS)
    before, after = load_model(source, settings), load_model(out, settings)
    changed = [name for name, value in after.state_dict().items() if not torch.equal(value, before.state_dict()[name])]
    assert any("q_proj" in name or "query" in name for name in changed)
    assert any("embed" in name for name in changed) == (kind == "full"), "LoRA leaves the embedding alone"
    assert curve(out, "loss")[-1] < curve(out, "loss")[0]


def test_lora_is_the_same_model_until_it_is_trained(house: Path) -> None:
    model = load_model(house / "llama", Task()).eval()
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        before = model(ids).logits
        trained, merge = lora.attach(model, lora.Config(rank=4), "generate", 0)
        torch.testing.assert_close(trained(ids).logits, before)
        sizes = {wanted: sum(p.numel() for p in trained.parameters() if p.requires_grad == wanted)
                 for wanted in (True, False)}
        assert 0 < sizes[True] < 0.3 * sizes[False]
        torch.testing.assert_close(merge()(ids).logits, before)


def test_a_student_with_new_weights_has_the_shape_only(house: Path, tmp_path: Path) -> None:
    path = run_file(house, CHAT)
    made = [prepare_student(path, tmp_path / name, ["student.initialise=random", "student.vocabulary=all"])
            for name in ("a", "b")]
    assert digest(made[0]) == digest(made[1])
    assert open_artifact(made[0]).manifest.dimensions["layers"] == 2


def test_plain_texts_are_trained_on_in_blocks(house: Path, tmp_path: Path) -> None:
    rows = [{"text": f"what is the weather in town {index}"} for index in range(40)]
    (house / "plain.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tune(run_file(house, CHAT), tmp_path / "out",
               ["data.train=plain.jsonl", "data.max_tokens=32", "task.schema=''"])
    assert curve(out, "loss")[-1] < curve(out, "loss")[0]


def faulty(change: Callable[[Path], None], house: Path, tmp_path: Path) -> Path:
    shutil.copytree(house / "llama", tmp_path / "model")
    change(tmp_path / "model")
    return tmp_path / "model"


def configure(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(("change", "message"), [
    (configure(auto_map={"AutoModel": "evil.Model"}), "auto_map"),
    (configure(_attn_implementation_internal="a/b"), "_attn_implementation_internal"),
    (configure(architectures=["SomethingElse"]), "SomethingElse"),
    (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "pickled"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    (lambda folder: (folder / "config.json").unlink(), "config.json"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    (lambda folder: (folder / "adapter_config.json").write_text("{}"), "LoRA"),
])
def test_a_model_folder_that_must_not_be_loaded_is_refused(change: Callable[[Path], None], message: str, house: Path,
                                                           tmp_path: Path) -> None:
    with pytest.raises((ArtifactError, UsageError), match=message):
        sources.resolve(str(faulty(change, house, tmp_path)))


def test_weights_that_lack_a_layer_are_refused(house: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="layers.3"):
        load_model(faulty(configure(num_hidden_layers=4), house, tmp_path), Task())


@pytest.mark.parametrize("name", ["no such model", "smolm2-135m", "../nowhere"])
def test_a_name_that_is_nothing_is_refused_with_the_catalogue(name: str) -> None:
    with pytest.raises(UsageError, match="is no folder, GGUF file, catalogue name or hub name"):
        sources.resolve(name)


def test_offline_a_hub_model_that_is_not_here_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def unreachable(*arguments: Any, **options: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(UsageError, match="could not be loaded from the hub"):
        sources.resolve("smollm2-135m")


def test_a_hub_models_revision_and_licence_are_recorded(monkeypatch: pytest.MonkeyPatch, house: Path,
                                                        tmp_path: Path) -> None:
    import huggingface_hub

    commit = tmp_path / ("0123456789abcdef" * 2 + "01234567")
    shutil.copytree(house / "llama", commit)
    (commit / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Card")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **o: str(commit))
    source = sources.resolve("someone/model", "main")
    assert (source.revision, source.licence) == (commit.name, "apache-2.0")
    assert source.parent("base") == {"role": "base", "name": "someone/model", "revision": commit.name}


def test_a_packed_artifact_cannot_be_trained(house: Path, tmp_path: Path) -> None:
    out = prepare_student(run_file(house, CHAT), tmp_path / "packed")
    manifest = json.loads((out / "manifest.json").read_text()) | {"scheme": "gguf:Q4_0"}
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="gguf:Q4_0"):
        sources.resolve(str(out))


def test_a_changed_artifact_is_not_trained_on(house: Path, tmp_path: Path) -> None:
    out = prepare_student(run_file(house, CHAT), tmp_path / "student")
    content = bytearray((out / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (out / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match="SHA-256"):
        tune(run_file(house, CHAT), tmp_path / "out", student=out)


@pytest.mark.parametrize(("overrides", "error", "message"), [
    (["task.kind=classify"], DataError, "task.kind"),
    (["teacher.kind=lokal"], UsageError, "lokal"),
    (["teacher.modle=x"], UsageError, "modle"),
    (["distill.adapter={kind='lorra'}"], UsageError, "lorra"),
    (["distill.losses=[]"], UsageError, "no loss"),
    (["task.schema=none.json"], UsageError, "task.schema"),
    (["student.layers=[0, 9]"], UsageError, "layers 0 to 2"),
])
def test_a_run_that_cannot_work_is_refused_and_leaves_nothing(
        overrides: list[str], error: type[Exception], message: str, house: Path, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        distill(run_file(house, CHAT), tmp_path / "out", overrides)
    assert not (tmp_path / "out").exists()


def test_what_is_missing_in_the_run_file_is_named(house: Path, tmp_path: Path) -> None:
    path = run_file(house, '[data]\ntrain = "chats.jsonl"\n', "bare.toml")
    with pytest.raises(UsageError, match="teacher"):
        distill(path, tmp_path / "out")
    with pytest.raises(UsageError, match="student.model"):
        tune(path, tmp_path / "out")
    with pytest.raises(UsageError, match="overrides"):
        tune(read(path), tmp_path / "out", ["tune.seed=1"])


def test_a_teacher_without_these_labels_is_refused(house: Path) -> None:
    with pytest.raises(UsageError, match="'song'.*1 of 4"):
        load_teacher(house / "bert", Task("classify", labels=[*LABELS, "song"]))
    with pytest.raises(UsageError, match="no classification head"):
        load_teacher(house / "llama", Task("classify", labels=LABELS))
    _, order = load_teacher(house / "bert", Task("classify", labels=["weather", "light"]))
    assert order == [2, 0]


def test_a_teacher_that_is_no_folder_is_neither_cut_nor_trained(house: Path, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(local, "source")
    for verb in (prepare_student, tune_teacher):
        with pytest.raises(UsageError, match="teacher: 'local' is no model folder"):
            verb(run_file(house, CHAT), tmp_path / "out")


def test_a_family_that_no_export_classifies_with_is_refused_at_once(house: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="llama family.*classify"):
        tune(run_file(house, CLASSES), tmp_path / "out", ["student.model=llama"])


def test_a_run_without_validation_rows_says_so(house: Path, tmp_path: Path) -> None:
    run = read(run_file(house, CHAT))
    run = replace(run, data=replace(run.data, validation_share=0.0))
    out = tune(run, tmp_path / "out", base=house)
    assert "not_run" in open_artifact(out).manifest.checks["validation"]


def test_long_rows_recompute_layers_and_learn_the_same(house: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    path, recomputed, recompute = run_file(house, CHAT, "long.toml"), [], machine.recompute_layers

    def noted(model: Any, *sizes: int) -> None:
        recompute(model, *sizes)
        recomputed.append(model.is_gradient_checkpointing)

    for name, tokens, way in (("short", 4096, noted), ("again", 8, noted), ("kept", 8, lambda *_: None)):
        monkeypatch.setattr(machine, "recompute_layers", way)
        tune(path, tmp_path / name, overrides=["tune.steps=2", f"tune.micro_batch_tokens={tokens}"])
    assert recomputed == [False, True] and digest(tmp_path / "again") == digest(tmp_path / "kept")
