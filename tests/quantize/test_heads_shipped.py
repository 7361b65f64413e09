"""What ships beside a classifier of every head: other programs' config, the card, and the apps' own answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import outputs
from edgestill.models.artifact import Artifact, Manifest, open_artifact
from edgestill.models.errors import UsageError
from edgestill.models.task import Task
from edgestill.quantize import apps
from edgestill.quantize.apps import TEMPLATES, _encoder
from edgestill.quantize.layouts import transformers_js
from edgestill.quantize.proof.certificate import Certificate
from edgestill.quantize.ship import model_card
from edgestill.runtime.encoders.head import Head
from edgestill.runtime.files.model_files import classifier_config
from edgestill.runtime.text.codec import Codec

from ..heads import variant

LABELS = ["a", "b c", 'q"']
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
DRIVER = """\
#include <iostream>
#include "answer.h"
int main() {
    std::vector<float> output(LABEL_COUNT);
    while (std::cin >> output[0]) {
        for (int place = 1; place < LABEL_COUNT; ++place) std::cin >> output[place];
        std::cout << shown(answer_of(output, 1)) << "\\n;\\n";
    }
}
"""


def manifest(task: Task, temperature: float = 1.0) -> Manifest:
    return Manifest("export", task, "bert", "onnx:int8", "onnx/model_quantized.onnx",
                    {"context": 8, "parameters": 1, "layers": 1, "hidden": 1, "vocabulary": 1},
                    settings={"temperature": temperature})


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (c++, g++ or clang++)")
@pytest.mark.parametrize(("head", "labels", "thresholds"), [
    ("softmax", LABELS, {}), ("sigmoid", LABELS, {"b c": 0.2, 'q"': 0.9}), ("score", LABELS, {}),
    ("score", ["a"], {}), ("sigmoid_score", ["a"], {})])
def test_the_apps_answer_as_our_head(head: str, labels: list[str], thresholds: dict[str, float],
                                     tmp_path: Path) -> None:
    task = Task("classify", labels=labels, head=head, thresholds=thresholds)
    (tmp_path / "task.h").write_text(_encoder.header(Artifact(tmp_path, manifest(task, 2.0))))
    (tmp_path / "driver.cpp").write_text(DRIVER)
    subprocess.run([COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-I", tmp_path, "-I", TEMPLATES / "core",
                    tmp_path / "driver.cpp", "-o", tmp_path / "driver"], check=True)
    logits = np.random.default_rng(0).normal(0, 2, (20, len(labels))).astype(np.float32)
    given = "\n".join(" ".join(map(repr, map(float, row))) for row in logits)
    done = subprocess.run([tmp_path / "driver"], input=given.encode(), capture_output=True, check=True)
    ours = Head.of(task, {}, temperature=2.0)
    said = done.stdout.decode().split("\n;\n")[:-1]
    for row, text in zip(logits, said, strict=True):
        found = ours.classification(row)
        lines = [line.rpartition(" ") for line in text.splitlines()]
        names = found.labels if not ours.scores else labels if len(labels) > 1 else [""]
        assert [name for name, _, _ in lines] == list(names)
        wanted = [found.values[name or labels[0]] for name in names]
        assert [float(value) for _, _, value in lines] == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("config", [{}, {"problem_type": "regression"}, {"function_to_apply": "sigmoid"},
                                    {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
                                    {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"}])
@pytest.mark.parametrize(("head", "count"), [("softmax", 3), ("sigmoid", 3), ("score", 3), ("score", 1),
                                             ("sigmoid_score", 1)])
def test_the_shipped_config_says_what_the_task_says(config: dict[str, Any], head: str, count: int,
                                                    tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {"0": "old"}}))
    task = Task("classify", labels=LABELS[:count], head=head)
    transformers_js.write(Artifact(tmp_path, manifest(task)), Codec.from_folder(tiny_bert))
    found = classifier_config(tmp_path)
    assert (outputs.labels(found, count), outputs.head(found, count)) == (LABELS[:count], head)
    if head == "sigmoid":  # what transformers and transformers.js look at
        assert found["problem_type"] == "multi_label_classification"


def test_the_card_says_what_the_numbers_are() -> None:
    def text(task: Task) -> str:
        return model_card.render("name", manifest(task), Certificate("onnx:int8", ()), 1.0)

    told = text(Task("classify", labels=LABELS, head="sigmoid", thresholds={"a": 0.25}))
    assert "Any number of labels is given" in told and "Thresholds: `a` 0.25" in told
    assert "const thresholds = [0.25, 0.5, 0.5];" in told and "logits.sigmoid().data" in told
    assert "pipeline(" not in told
    told = text(Task("classify", labels=["a"], head="score"))
    assert "that scores text" in told and "1 score: `a`" in told and "const scores = logits.data;" in told
    assert "const scores = logits.sigmoid().data;" in text(Task("classify", labels=["a"], head="sigmoid_score"))
    assert 'pipeline("text-classification", "NAME")' in text(Task("classify", labels=LABELS, head="softmax"))


def test_apps_know_the_head_and_leave_pairs_to_others(packed_bert: Path, tmp_path: Path) -> None:
    folder = variant(packed_bert, tmp_path / "multi", {"problem_type": "multi_label_classification"},
                     thresholds={"music": 0.25})
    opened = open_artifact(folder)
    page = apps.write(Artifact(folder, replace(opened.manifest, dimensions={"context": 24})), "web", tmp_path)
    settings = json.loads((page / "settings.mjs").read_text().partition(" = ")[2].rstrip(";\n"))
    assert (settings["head"], settings["thresholds"]) == ("sigmoid", [0.5, 0.25, 0.5])
    assert settings["labels"] == ["light", "music", "weather"]
    reranker = variant(packed_bert, tmp_path / "pairs", {"sbert_ce_default_activation_function": "x.Identity"})
    for name in ("c", "web", "android", "ios"):
        with pytest.raises(UsageError, match=f"--app {name}: apps read one text, and .* scores pairs of texts"):
            apps.write(open_artifact(reranker), name, tmp_path)
