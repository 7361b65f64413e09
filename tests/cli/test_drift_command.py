"""`edgestill drift` as a user types it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from edgestill.cli import main

Capture = pytest.CaptureFixture[str]
NEW = ["sell", "shares", "bonds"]


def texts(count: int, seed: int, more: list[str]) -> list[str]:
    pick = random.Random(seed)
    words = ["turn", "the", "light", "radio", "on", "off", "please", "now", *more]
    return [" ".join(pick.choices(words, k=5)) for _ in range(count)]


def write(path: Path, some: list[str], label: str = "") -> Path:
    path.write_text("".join(json.dumps({"text": text} | ({"label": label} if label else {})) + "\n" for text in some))
    return path


def test_inputs_that_moved_are_told_and_what_to_label(tmp_path: Path, capsys: Capture) -> None:
    reference = write(tmp_path / "test.jsonl", texts(120, 0, []))
    log = write(tmp_path / "log.jsonl", texts(120, 1, NEW * 2))
    out, worth = tmp_path / "drift.json", tmp_path / "next.jsonl"
    words = ["drift", str(log), "--reference", str(reference), "--window", "60", "-o", str(out)]
    assert main.call([*words, "--check", "--label-next", "7", "--worth", str(worth)]) == 3
    told = capsys.readouterr()
    assert "which words" in told.out and "Inputs have moved" in told.out and "shares" in told.out
    assert "7 texts that are worth a label" in told.err
    found = json.loads(out.read_text())
    assert found["moved"] and not found["fell"] and len(found["windows"]) == 2 and found["texts"] == 120
    rows = [json.loads(line) for line in worth.read_text().splitlines()]
    assert len(rows) == 7 and all(set(NEW) & set(row["text"].split()) and "label" not in row for row in rows)
    assert main.call(words) == 0 and "label next" in capsys.readouterr().out


def test_a_model_answers_both_and_its_accuracy_is_expected(packed_bert: Path, tmp_path: Path, capsys: Capture) -> None:
    reference = write(tmp_path / "test.jsonl", texts(60, 0, []), "a")
    log = write(tmp_path / "log.jsonl", texts(60, 1, []))
    words = ["drift", str(log), "--reference", str(reference), "--model", str(packed_bert), "--json"]
    assert main.call(words) == 0
    (window,) = json.loads(capsys.readouterr().out)["windows"]
    assert set(window["differences"]) == {"words", "new_words", "length", "labels", "confidence"}
    assert 0 <= window["expected"]["now"]["low"] <= window["expected"]["now"]["high"] <= 1
    answered = tmp_path / "answers.jsonl"
    assert main.call(["classify", str(packed_bert), str(log), "-o", str(answered)]) == 0
    capsys.readouterr()
    assert main.call(["drift", str(answered), *words[2:]]) == 0
    assert json.loads(capsys.readouterr().out)["windows"] == [window], "what classify wrote is what it says now"
    lines = [json.loads(line) for line in answered.read_text().splitlines()]
    other = next(label for label in ("x", "y") if label != lines[0]["label"])
    strange = [line | {"top": [{"label": other, "probability": 0.9}]} for line in lines]
    (tmp_path / "strange.jsonl").write_text("".join(json.dumps(line) + "\n" for line in strange))
    assert main.call(["drift", str(tmp_path / "strange.jsonl"), *words[2:]]) == 2
    assert "of 20 of its texts it labels 20 otherwise" in capsys.readouterr().err
    assert main.call(["drift", str(answered), "--reference", str(answered), "--check"]) == 0
    assert "Nothing says that inputs have moved" in capsys.readouterr().out


def test_what_cannot_be_held_together_is_refused(packed_llama: dict[str, Path], tmp_path: Path,
                                                 capsys: Capture) -> None:
    reference = write(tmp_path / "test.jsonl", texts(60, 0, []))
    few = write(tmp_path / "few.jsonl", texts(5, 0, []))
    assert main.call(["drift", str(few), "--reference", str(reference)]) == 1
    assert "the log holds 5 texts" in capsys.readouterr().err
    assert main.call(["drift", str(few), "--reference", str(reference), "--model", str(packed_llama["onnx"])]) == 2
    assert "gives no labels" in capsys.readouterr().err
    assert main.call(["serve", str(packed_llama["onnx"]), "--log-share", "0.5"]) == 2
    assert "--log-share needs a log" in capsys.readouterr().err
