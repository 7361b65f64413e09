"""Classifiers trained from encoders without a head, of the families with windows or positions of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgestill.distill import tune
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import UsageError
from edgestill.quantize.source.model_folder import Source
from edgestill.runtime.text.codec import Codec

from .. import tiny

RUN = """
[task]
kind = "{kind}"
[data]
train = "texts.jsonl"
[student]
model = "model"
layers = {layers}
vocabulary = "{vocabulary}"
[tune]
steps = 2
learning_rate = 1e-3
"""


def run_file(folder: Path, family: str, kind: str = "classify", layers: str = "[]", vocabulary: str = "all") -> Path:
    tiny.embedder(folder / "model", family)
    rows = [{"text": text, "label": label} for text in tiny.SENTENCES[:8] for label in ("a", "b")]
    rows = [row | {"text": f"{row['text']} {index}"} for index, row in enumerate(rows)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "run.toml").write_text(RUN.format(kind=kind, layers=layers, vocabulary=vocabulary))
    return folder / "run.toml"


@pytest.mark.parametrize(("family", "layers", "vocabulary"), [
    ("modernbert", "[0, 1]", "trim"), ("xlm-roberta", "[1]", "trim")])
def test_a_classifier_grows_on_an_encoder(family: str, layers: str, vocabulary: str, tmp_path: Path) -> None:
    made = tune(run_file(tmp_path, family, layers=layers, vocabulary=vocabulary), tmp_path / "out")
    manifest = open_artifact(made).manifest
    assert (manifest.family, manifest.task.labels) == (family, ["a", "b"])
    assert manifest.dimensions["context"] == (128 if family == "modernbert" else 126)
    source = Source.open(made)
    assert source.task.kind == "classify" and source.checkpoint.vocabulary_size == Codec.from_folder(
        made).vocabulary_size


def test_embedders_are_not_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="embedders are exported as they are"):
        tune(run_file(tmp_path, "bert", kind="embed"), tmp_path / "out")
