"""`serve --log`: what classifiers are asked, sampled, without what looks personal, in a file of the user's alone."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import UsageError
from edgestill.runtime import load
from edgestill.runtime.data import personal
from edgestill.runtime.encoders.classifier import Classifier
from edgestill.runtime.encoders.head import Classification
from edgestill.runtime.monitoring import answered
from edgestill.runtime.server import _logged, answer_log
from edgestill.runtime.server.answer_log import AnswerLog
from edgestill.runtime.server.work_queue import Station

from ..serving import running

FOUND = Classification("softmax", ("on",), {"on": 0.75, "off": 0.25})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_chats_and_texts_alike_are_kept_and_are_what_drift_reads(packed_bert: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    station = Station("bert", [load(packed_bert, threads=1)], 8)
    log = _logged([station], path, 1.0)
    with running([station]) as served:
        served.ask("POST", "/classify", {"text": ["turn it on", "mail a@example.org"]})
        served.client().chat.completions.create(model="", messages=[{"role": "user", "content": "turn it off"}])
    log.close()
    kept = lines(path)
    assert [line["text"] for line in kept] == ["turn it on", "mail [e-mail addresses]", "turn it off"]
    with load(packed_bert, threads=1) as model:
        assert isinstance(model, Classifier)
        assert kept[0]["label"] == model.classify("turn it on").label
    assert kept[0]["model"] == "bert" and kept[0]["at"].endswith("+00:00")
    read = answered.logged(path)
    assert read is not None and list(read.texts) == [line["text"] for line in kept]


def test_a_share_is_drawn_and_pairs_are_redacted(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AnswerLog(path, 0.25)
    for _ in range(400):
        log.add("m", ("call +1 (555) 123-4567", "and x"), FOUND)
    log.close()
    kept = lines(path)
    assert 60 < len(kept) < 140 and kept[0]["text"] == "call [phone numbers]" and kept[0]["text_pair"] == "and x"


@pytest.mark.skipif(os.name != "posix", reason="no modes")
def test_nobody_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    AnswerLog(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(UsageError, match=r"others may read it \(mode 644\)"):
        AnswerLog(path)
    with pytest.raises(UsageError, match="No such file"):
        AnswerLog(tmp_path / "none" / "log")


def test_a_torn_line_is_cut_and_the_log_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for torn in (b"", b'{"text": "half'):
        with path.open("ab") as file:
            file.write(torn)
        path.chmod(0o600)
        log = AnswerLog(path)
        log.add("m", "on", FOUND)
        log.close()
    assert [line["text"] for line in lines(path)] == ["on", "on"]


def test_what_cannot_be_kept_is_told_once_and_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                              caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log"
    log = AnswerLog(path)
    log.add("m", "on", FOUND)
    size = path.stat().st_size
    monkeypatch.setattr(answer_log, "MOST_BYTES", size)
    with caplog.at_level(logging.WARNING, "edgestill.server"):
        log.add("m", "on", FOUND)
        log.add("m", "on", FOUND)
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        f"answers are not logged any more: it has reached {size:,} bytes"]
    assert path.stat().st_size == size
    log.close()


def test_a_log_needs_a_classifier(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    with load(packed_llama["onnx"], threads=1) as model, pytest.raises(UsageError, match="none is served"):
        _logged([Station("llama", [model], 8)], tmp_path / "log", 1.0)


@pytest.mark.parametrize(("text", "wanted"), [
    ("to a@example.org and b@example.org.", "to [e-mail addresses] and [e-mail addresses]."),
    ("4111-1111-1111-1111 or 555-123-4567", "[card numbers] or [phone numbers]"), ("nothing", "nothing"), ("", "")])
def test_the_kind_stands_for_what_looks_personal(text: str, wanted: str) -> None:
    assert personal.redacted(text) == wanted
