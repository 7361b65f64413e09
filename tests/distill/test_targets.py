"""What classifiers are trained towards: heads from rows, losses as transformers has them, thresholds, label order."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from edgestill.cli.pipeline.evaluate import FloatSubject
from edgestill.distill import distill, tune
from edgestill.distill.data.batches import Schedule, whole_rows
from edgestill.distill.tasks import _thresholds, classify
from edgestill.distill.teachers._classifier import load as load_teacher
from edgestill.distill.training.token_cache import tokenize
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import DataError, UsageError
from edgestill.models.task import Task
from edgestill.quantize.source.model_folder import Source
from edgestill.runtime.data.reader import Row, read_rows
from edgestill.runtime.text.codec import Codec

from .. import proving, tiny

LISTS = [Row(text="a", labels=("y", "x")), Row(text="b", labels=())]
SCORES = [Row(text="a", score=0.25), Row(text="b", score=1.0)]
SINGLE = [Row(text="a", label="1"), Row(text="b", label="0")]


@pytest.mark.parametrize(("rows", "task", "head", "labels"), [
    (LISTS, Task("classify"), "sigmoid", ["x", "y"]),
    (LISTS, Task("classify", labels=["y", "x", "z"]), "sigmoid", ["y", "x", "z"]),
    (SCORES, Task("classify"), "score", ["score"]),
    (SCORES, Task("classify", head="sigmoid_score", labels=["relevance"]), "sigmoid_score", ["relevance"]),
    (SINGLE, Task("classify"), "softmax", ["0", "1"]),
    (SINGLE, Task("classify", head="sigmoid"), "sigmoid", ["0", "1"]),
    (SINGLE, Task("classify", head="score"), "score", ["score"]),
])
def test_rows_say_what_head_a_model_gets(rows: list[Row], task: Task, head: str, labels: list[str]) -> None:
    found, splits = classify.Kind().settle(task, {"train": rows, "validation": []})
    assert (found.head, found.labels) == (head, labels)
    kind = {"softmax": "label", "sigmoid": "labels"}.get(head, "score")
    assert [row.kind for row in splits["train"]] == [kind] * 2 and splits["validation"] == []


@pytest.mark.parametrize(("rows", "task", "why"), [
    (LISTS, Task("classify", head="softmax"), "holds a list of labels, and the model chooses one"),
    (SCORES, Task("classify", head="sigmoid"), "holds a score, and the model gives any number"),
    ([Row(text="a", score=1.5)], Task("classify", head="sigmoid_score"), "the score 1.5, and a sigmoid gives"),
])
def test_rows_that_a_head_does_not_answer_are_refused(rows: list[Row], task: Task, why: str) -> None:
    with pytest.raises((UsageError, DataError), match=why):
        classify.Kind().settle(task, {"train": rows})


def test_targets_and_losses_are_those_of_transformers(tiny_bert: Path) -> None:
    """transformers averages over rows and outputs; so do rows' losses, each over its outputs."""
    from transformers import AutoModelForSequenceClassification

    codec = Codec.from_folder(tiny_bert)
    for rows, names, problem in ((LISTS, ["x", "y", "z"], "multi_label_classification"), (SCORES, ["s"], "regression")):
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny_bert, num_labels=len(names), problem_type=problem, ignore_mismatched_sizes=True).eval()
        schedule = Schedule(tokenize(rows, codec, Task("classify", labels=names), 64), 2, 4096, 0, whole_rows)
        (batch,) = schedule.all()
        order = [rows[place] for place in batch.rows]
        wanted = [[float(name in (row.labels or ())) for name in names] if row.score is None else [row.score]
                  for row in order]
        assert batch.labels.tolist() == wanted and batch.count == 2
        with torch.no_grad():
            given = model(input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels.squeeze(-1))
        head = "sigmoid" if len(names) > 1 else "score"
        torch.testing.assert_close(classify.loss(head, given.logits, batch.labels).mean(), given.loss)


def test_a_label_that_nobody_knows_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(DataError, match="label 'y' is not one of the 1 known labels"):
        tokenize(LISTS, Codec.from_folder(tiny_bert), Task("classify", labels=["x"]), 64)


def test_thresholds_are_where_f1_is_best() -> None:
    labels = ["low", "even", "rare", "given", "common"]
    task = Task("classify", labels=labels, head="sigmoid", thresholds={"given": 0.9})
    chances = np.linspace(0.02, 0.98, 49)
    wanted = np.stack([chances > 0.2, chances > 0.49, chances > 0.95, chances > 0.3, chances > 0.05],
                      axis=1).astype(np.float32)
    logits = np.log(chances / (1 - chances))[:, None].repeat(5, axis=1)
    found = _thresholds.fit(logits, wanted, task)
    assert found == {"low": pytest.approx(0.21, abs=0.01), "given": 0.9}


RUN = """
[task]
kind = "classify"
[data]
train = "rows.jsonl"
validation_share = 0.2
[student]
model = "model"
layers = [0]
[tune]
epochs = 12
batch_size = 8
learning_rate = 3e-3
"""
WORDS = {"light": "lamp", "music": "song", "weather": "rain"}


def house(folder: Path, source: Path, rows: list[dict[str, Any]]) -> Path:
    shutil.copytree(source, folder / "model")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "run.toml").write_text(RUN)
    return folder / "run.toml"


def test_a_model_learns_several_labels_a_text(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{"text": f"{' and '.join(WORDS[name] for name in names) or 'nothing'} {place}", "labels": names}
            for place in range(8) for names in ([], ["light"], ["music"], ["weather"], ["light", "music"],
                                                ["music", "weather"], ["light", "weather"])]
    out = tune(house(tmp_path, tiny_bert, rows), tmp_path / "out")
    manifest = open_artifact(out).manifest
    assert manifest.task.head == "sigmoid" and manifest.task.labels == ["light", "music", "weather"]
    assert json.loads((out / "config.json").read_text())["problem_type"] == "multi_label_classification"
    assert "temperature" not in manifest.settings and "accuracy" not in manifest.checks["validation"]
    assert Source.open(out).task.thresholds == manifest.task.thresholds
    found = FloatSubject(out, Task("classify")).evaluate(read_rows(tmp_path / "rows.jsonl"))
    assert found.metrics["micro_f1"].value > 0.9


def test_a_model_learns_a_score(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{"text": f"{'lamp ' * count}{place}", "score": float(count)} for place in range(12) for count in range(4)]
    out = tune(house(tmp_path, tiny_bert, rows), tmp_path / "out")
    assert open_artifact(out).manifest.task.head == "score"
    assert json.loads((out / "config.json").read_text())["problem_type"] == "regression"
    found = FloatSubject(out, Task("classify")).evaluate(read_rows(tmp_path / "rows.jsonl"))
    assert found.metrics["pearson"].value > 0.9


@pytest.mark.parametrize(("rows", "why"), [
    ([{"text": f"t {place}", "labels": ["ab"[place % 2]]} for place in range(9)],
     "whose head is sigmoid is trained on labels"),
    ([{"text": f"t {place}", "text_pair": "u", "label": "ab"[place % 2]} for place in range(9)], "a pair of texts"),
])
def test_what_is_not_distilled_is_refused_at_once(rows: list[dict[str, Any]], why: str, tiny_bert: Path,
                                                  tmp_path: Path) -> None:
    path = house(tmp_path, tiny_bert, rows)
    path.write_text(RUN + '[teacher]\nkind = "local"\nmodel = "model"\n')
    with pytest.raises((UsageError, DataError), match=why):
        distill(path, tmp_path / "out")


def test_a_teacher_with_another_head_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "teacher")
    proving.edit_json(tmp_path / "teacher" / "config.json",
                      lambda table: table.update(problem_type="multi_label_classification"))
    with pytest.raises(UsageError, match="chooses no single label: its head is sigmoid"):
        load_teacher(tmp_path / "teacher", Task("classify", labels=list(tiny.LABELS)))


def test_a_teachers_labels_are_matched_by_name(tiny_bert: Path, tmp_path: Path) -> None:
    """Student and teacher are one model whose outputs stand in another order: nothing is left to learn."""
    from safetensors.numpy import load_file, save_file

    rows = [{"text": text, "label": tiny.LABELS[place % 3]} for place, text in enumerate(tiny.SENTENCES[:12])]
    path = house(tmp_path, tiny_bert, rows)
    shutil.copytree(tiny_bert, tmp_path / "teacher")
    order = [2, 0, 1]
    weights = load_file(tiny_bert / "model.safetensors")
    turned = {name: value[order] if name.startswith("classifier.") else value for name, value in weights.items()}
    save_file(turned, tmp_path / "teacher" / "model.safetensors", {"format": "pt"})
    names = {str(place): tiny.LABELS[output] for place, output in enumerate(order)}
    proving.edit_json(tmp_path / "teacher" / "config.json", lambda table: table.update(
        id2label=names, label2id={name: int(place) for place, name in names.items()}))
    path.write_text(RUN.replace("layers = [0]\n", "") + '[teacher]\nkind = "local"\nmodel = "teacher"\n[distill]\n'
                    'steps = 1\nlearning_rate = 1e-9\nlosses = [{kind = "forward_kl"}]\n')
    losses = open_artifact(distill(path, tmp_path / "out")).manifest.checks["validation"]["loss"]
    assert losses < 1e-6
