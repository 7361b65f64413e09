"""`edgestill evaluate` of a classifier as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from edgestill.cli import main
from edgestill.runtime import load
from edgestill.runtime.encoders.classifier import Classifier

TEXTS = ["turn it on", "turn it off", "play some jazz", "what is the time", "dim the lamp", "open the door"]


def test_labels_and_confusions_are_shown_and_written(packed_bert: Path, tmp_path: Path,
                                                     capsys: pytest.CaptureFixture[str]) -> None:
    with load(packed_bert, threads=1) as model:
        assert isinstance(model, Classifier)
        said = [one.label for one in model.classify_all(TEXTS)]
        other = next(label for label in model.labels if label != said[1])
    rows, out = tmp_path / "rows.jsonl", tmp_path / "quality.json"
    true = [said[0], other, *said[2:]]
    rows.write_text("".join(json.dumps({"text": text, "label": label}) + "\n"
                            for text, label in zip(TEXTS, true, strict=True)))
    assert main.call(["evaluate", str(packed_bert), str(rows), "--limit", "3", "-o", str(out)]) == 0
    told = capsys.readouterr().out
    assert "worst labels" in told and "taken for" in told
    found = json.loads(out.read_text())
    asked = [said[0], said[2], said[4]]  # every second row
    assert sum(label["rows"] for label in found["labels"]) == 3 and found["answers"] == asked
    assert found["confusions"] == []
    assert main.call(["evaluate", str(packed_bert), str(rows), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["confusions"] == [{"label": other, "given": said[1], "rows": 1}]
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(5 / 6) and found["metrics"]["accuracy"]["low"] < 0.5
    assert main.call(["evaluate", str(packed_bert), str(rows), "--metric", "macro_f1", "--json"]) == 0
    assert "labels" in json.loads(capsys.readouterr().out)
