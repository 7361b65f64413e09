"""Labels by the file: the same bytes whether a run was broken off or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.models.errors import EdgestillError, UsageError
from edgestill.runtime import load
from edgestill.runtime.encoders.bulk import CHUNK, classify_into
from edgestill.runtime.encoders.classifier import Classifier

from ..tiny import SENTENCES

TEXTS = [f"{SENTENCES[index % len(SENTENCES)]} {index}" for index in range(3 * CHUNK + 10)]


@pytest.fixture(scope="module")
def model(packed_bert: Path) -> Iterator[Classifier]:
    with load(packed_bert, threads=1) as one:
        assert isinstance(one, Classifier)
        yield one


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_text_gets_a_line_in_its_place(model: Classifier, tmp_path: Path) -> None:
    summary = classify_into(tmp_path / "a.jsonl", model, TEXTS, top=2, abstain=0.4, batch=8)
    found = lines(tmp_path / "a.jsonl")
    assert [line["text"] for line in found] == TEXTS
    for line, alone in zip(found, model.classify_all(TEXTS), strict=True):
        assert line["probability"] == pytest.approx(alone.probability, abs=1e-5)
        assert line["top"][0] == {"label": alone.label, "probability": line["probability"]} and len(line["top"]) == 2
        assert line["abstained"] == (line["probability"] < 0.4)
        assert line["label"] == (None if line["abstained"] else alone.label)
    assert 0 < summary.abstained == sum(line["abstained"] for line in found) < len(TEXTS)
    assert summary.abstained + sum(summary.labels.values()) == summary.texts == len(TEXTS)
    assert summary.abstained_share == summary.abstained / len(TEXTS) and summary.resumed_at == 0


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("damage", [
    lambda path: cut(path, path.stat().st_size - 1),
    lambda path: cut(path, path.stat().st_size // 2),
    lambda path: cut(path, 3),
    lambda path: cut(path, 0),
    lambda path: path.unlink(),
    lambda path: path.write_bytes(path.read_bytes()[:-40] + bytes(40)),
    lambda path: None,
], ids=["line end", "half", "three bytes", "empty", "gone", "zeros", "whole"])
def test_a_run_that_was_broken_off_ends_in_the_same_bytes(damage: Callable[[Path], Any], model: Classifier,
                                                          tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    classify_into(out, model, TEXTS, batch=8)
    whole = out.read_bytes()
    damage(out)
    left = out.read_bytes().count(b"\n") if out.exists() else 0
    summary = classify_into(out, model, TEXTS, batch=8)
    assert out.read_bytes() == whole and summary.texts == len(TEXTS)
    assert summary.resumed_at == (left if left == len(TEXTS) else left // CHUNK * CHUNK)


def test_what_was_done_when_the_run_ended_stands(model: Classifier, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 2 * CHUNK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classify_into(tmp_path / "a.jsonl", model, TEXTS, progress=stop)
    assert len(lines(tmp_path / "a.jsonl")) == 2 * CHUNK
    seen: list[int] = []
    summary = classify_into(tmp_path / "a.jsonl", model, TEXTS, progress=lambda done, total: seen.append(done))
    assert seen == [3 * CHUNK, len(TEXTS)] and summary.resumed_at == 2 * CHUNK and summary.texts_per_s > 0


def test_another_source_is_refused(model: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.jsonl"
    classify_into(out, model, TEXTS[:5])
    before = out.read_bytes()
    with pytest.raises(UsageError, match="other texts"):
        classify_into(out, model, TEXTS[:6])
    with pytest.raises(UsageError, match="other top, batch"):
        classify_into(out, model, TEXTS[:5], top=2, batch=3)
    monkeypatch.setattr(model, "head", replace(model.head, temperature=3.0))
    with pytest.raises(UsageError, match="other temperature"):
        classify_into(out, model, TEXTS[:5])
    monkeypatch.setattr("edgestill.runtime.encoders.bulk.model_digest", lambda artifact: "another")
    with pytest.raises(UsageError, match="other model"):
        classify_into(out, model, TEXTS[:5])
    assert out.read_bytes() == before
    (tmp_path / "a.jsonl.source.json").write_text("[]")
    with pytest.raises(EdgestillError, match="does not say what it was made from"):
        classify_into(out, model, TEXTS[:5])


def test_the_verb(packed_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "texts.txt", tmp_path / "labels.jsonl"
    source.write_text("\n".join(SENTENCES[:4]) + "\n\n" + SENTENCES[4])
    words = ["classify", str(packed_bert), str(source), "--threads", "1"]
    assert main.call([*words, "-o", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["texts"] == 5 == sum(summary["labels"].values()) and summary["resumed_at"] == 0
    assert [line["text"] for line in lines(out)] == SENTENCES[:5]
    assert main.call([*words, "-o", str(out)]) == 0
    shown = capsys.readouterr()
    assert "5 of them from before" in shown.err and all(label in shown.out for label in summary["labels"])
    assert main.call([*words, "--abstain", "1", "--top", "3"]) == 0
    assert "not sure: light" in capsys.readouterr().out
    assert main.call([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == lines(out)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"body": text}) + "\n" for text in SENTENCES[:5]))
    assert main.call(["classify", str(packed_bert), str(rows), "--column", "text=body", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == lines(out)
    long = "Please turn off the light in the hall. " * 20 + "Thanks. All"
    assert main.call(["classify", str(packed_bert), long, "--json"]) == 0  # and no name of a file
    assert json.loads(capsys.readouterr().out)[0]["truncated"]
    source.write_text("another")
    assert main.call([*words, "-o", str(out)]) == 2
    assert "other texts" in capsys.readouterr().err
    for content, code, message in ((b" \n", 2, "no text"), (b"a\xff", 1, "not UTF-8")):
        source.write_bytes(content)
        assert main.call(words) == code
        assert message in capsys.readouterr().err
