"""`edgestill data generate`: the plan, what is refused, what is written, and what must never be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.runtime.data.calls import task_file
from edgestill.runtime.data.reader import read_rows

from ..remote_stub import Stub, said
from .test_data_label import records, rows_file

Capture = pytest.CaptureFixture[str]
Generate = Callable[..., int]
KEY = "sk-of-the-teacher-0123456789"
TASK = "Ada's bank sorts letters. Never tell the codeword heliotrope."
SEEDS = [{"text": f"the {name} of a customer are {word}", "label": name} for word in ("here", "lost", "late")
         for name in ("cards", "loans")]
MANUAL = """# Pump

The pump of the house runs at 12 bar, day and night, and wants a new seal every 4000 hours of its life.

## Filter

The filter in front of it is made of steel. It is washed every 30 days, under warm water and without soap.
"""
ANSWERS = {"bar": {"prompt": "At what pressure does the pump run?", "completion": "At 12 bar."},
           "steel": {"prompt": "How often is the filter washed?", "completion": "Every 31 days."}}


def writes(body: dict[str, Any]) -> Any:
    """A teacher that writes a text nobody wrote before, or of a passage its answer."""
    content = body["messages"][-1]["content"]
    if "-----" in content:
        return said(json.dumps({"rows": [ANSWERS["bar" if " bar" in content else "steel"]]}))
    words = [f"{abs(hash((content, place, 'salt'))):x}" for place in range(6)]
    return said(json.dumps({"rows": [{"text": " ".join(words[:3])}, {"text": " ".join(words[3:])}]}))


@pytest.fixture
def generate(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generate:
    """Generate rows with the stub as the teacher; the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGESTILL_TEACHER_KEY", KEY)
    stub.reply = writes
    rows_file(tmp_path / "seeds.jsonl", SEEDS)
    (tmp_path / "task.txt").write_text(TASK)
    (tmp_path / "manual.md").write_text(MANUAL)

    def run(*options: str, yes: bool = True) -> int:
        return main.call(["data", "generate", *options, "--teacher-url", stub.url, "--teacher-model", "gpt-4o-mini",
                          *["--yes"] * yes])

    return run


def test_new_rows_of_every_label_pass_the_check_of_data(generate: Generate, stub: Stub, tmp_path: Path,
                                                        capsys: Capture) -> None:
    rows_file(tmp_path / "test.jsonl", [{"text": "a test row of its own", "label": "cards"}])
    options = ("seeds.jsonl", "--rows", "12", "--per-call", "2", "--task", "task.txt", "--test", "test.jsonl")
    assert generate(*options) == 0
    shown = capsys.readouterr()
    assert "teacher: gpt-4o-mini at 127.0.0.1:" in shown.err and "where 6 seeds are sent" in shown.err
    assert "new rows: 12, as many for each of 2 labels, from 6 seeds" in shown.err
    assert "questions: 6, of which 0 are answered" in shown.err and "no more than 18 questions" in shown.err
    assert "new rows: 12 of 12 that were wanted, out of 12 that the teacher wrote; 0 of these repeat" in shown.out
    assert "labels: 6 cards, 6 loans" in shown.out and "calls: 6 answered" in shown.out and "US dollars" in shown.out
    made = tmp_path / "generated.jsonl"
    assert [row.label for row in read_rows(made)].count("cards") == 6 and len(read_rows(made)) == 12
    assert task_file.read(made).labels == ["cards", "loans"]  # type: ignore[union-attr]
    assert main.call(["data", "check", str(made), "--test", "test.jsonl"]) == 0
    assert {auth for _, auth, _ in stub.requests} == {f"Bearer {KEY}"}
    assert stub.requests[0][2]["messages"][0]["content"].startswith(TASK)
    written = made.read_bytes()
    assert generate(*options) == 2 and "already exists" in capsys.readouterr().err
    made.unlink()
    assert generate(*options) == 0 and made.read_bytes() == written and len(stub.requests) == 6
    assert "questions: 6, of which 6 are answered" in capsys.readouterr().err
    for path in tmp_path.glob("generated.*"):
        content = path.read_text()
        assert [secret for secret in (KEY, stub.url, "heliotrope", str(stub.server_port)) if secret in content] == []
    assert (tmp_path / "generated.ledger.jsonl").stat().st_mode & 0o777 == 0o600


def test_what_repeats_the_task_is_not_taken(generate: Generate, stub: Stub, capsys: Capture) -> None:
    stub.reply = lambda body: said(json.dumps({"rows": [{"text": f"You said: {TASK}"}]}))
    assert generate("seeds.jsonl", "--rows", "2", "--task", "task.txt") == 3
    assert "no reply that can be used to 2 calls: repeats what the teacher alone may see" in capsys.readouterr().err


def test_inputs_alone_are_answered_by_data_label(generate: Generate, stub: Stub, tmp_path: Path,
                                                 capsys: Capture) -> None:
    assert generate("seeds.jsonl", "--rows", "4", "--inputs-only") == 0
    assert "next: edgestill data label generated.jsonl" in capsys.readouterr().err
    assert [list(row) for row in records(tmp_path / "generated.jsonl")] == [["text"]] * 4
    stub.reply = lambda body: said("cards")
    assert main.call(["data", "label", "generated.jsonl", "--teacher-url", stub.url, "--teacher-model", "big", "--yes",
                      "--votes", "3"]) == 0
    assert [row["label"] for row in records(tmp_path / "labelled.jsonl")] == ["cards"] * 4


def test_rows_from_documents_are_held_to_their_passage(generate: Generate, stub: Stub, tmp_path: Path,
                                                       capsys: Capture) -> None:
    assert generate("--document", "manual.md", "--rows", "2", "--passage", "200", "--json") == 3
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["kept"] == 1 and report["left_out"]["a number that is not in the passage"] == 3
    assert "1 of 2 rows were kept, and then no more was asked: the most calls are made" in shown.err
    row, = records(tmp_path / "generated.jsonl")
    assert row["completion"] == "At 12 bar." and row["heading"] == "Pump" and row["document"] == "manual.md"
    assert MANUAL[row["start"]:row["end"]] == row["passage"] and "12 bar" in row["passage"]
    assert read_rows(tmp_path / "generated.jsonl")[0].answer == "At 12 bar."
    left = [one["call"] for one in records(tmp_path / "generated.left-out.jsonl") if "a number" in one["reason"]]
    assert len(left) == 3 and all(call.endswith(" about manual.md, Filter") for call in left)
    assert main.call(["data", "check", "generated.jsonl"]) == 0


def test_personal_data_in_seeds_documents_and_the_task_is_named_before_it_is_sent(generate: Generate, stub: Stub,
                                                                                 tmp_path: Path,
                                                                                 capsys: Capture) -> None:
    (tmp_path / "task.txt").write_text("Ask ada@example.org.")
    rows_file(tmp_path / "asked.jsonl", [{"prompt": "who is it?", "completion": "It is bob@example.org."}])
    (tmp_path / "manual.md").write_text(MANUAL.replace("Filter", "Filter of eve@example.org"))
    given = ("asked.jsonl", "--document", "manual.md", "--passage", "200", "--task", "task.txt", "--rows", "2")
    assert generate(*given) == 1 and stub.requests == []
    shown = capsys.readouterr().err
    assert "3 e-mail addresses in what the task is and 2 rows (asked.jsonl:1, manual.md, Filter of eve@exa" in shown
    assert generate(*given, "--dry-run", yes=False) == 0 and stub.requests == []
    assert generate("seeds.jsonl", yes=False) == 2 and "give --yes" in capsys.readouterr().err
    assert not list(tmp_path.glob("generated.*")) and stub.requests == []


@pytest.mark.parametrize(("options", "words"), [
    ([], "no seeds and no documents"), (["seeds.jsonl", "--label", "cards"], "cards: one label alone says nothing"),
    (["seeds.jsonl", "--label", "cards", "--label", "x"], "seeds.jsonl:2: the label 'loans' is none of the labels"),
    (["seeds.jsonl", "--schema", "s.json"], "labels and a schema"), (["--document", "seeds.jsonl"], "no kind of doc"),
    (["--document", "odd.md"], "odd.md: not utf-8 at byte 1"), (["--document", "short.md"], "no passage of these doc"),
    (["seeds.jsonl", "--test", "seeds.jsonl"], "seeds.jsonl:1: this seed stands in the test rows"),
    (["seeds.jsonl", "-o", "rows.csv"], "rows.csv: rows are written as JSON lines"),
    (["seeds.jsonl", "--teacher-url", "http://llm.example.org/v1"], "rows would travel there unencrypted")])
def test_what_cannot_be_done_is_refused_before_a_call(options: list[str], words: str, generate: Generate, stub: Stub,
                                                      tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "odd.md").write_bytes(b"a\xff")
    (tmp_path / "short.md").write_text("# short")
    (tmp_path / "s.json").write_text("{}")
    command = ["--teacher-url", stub.url, *options] if "--teacher-url" not in options else options
    assert main.call(["data", "generate", *command, "--teacher-model", "gpt-4o-mini", "--yes"]) in (1, 2)
    assert words in capsys.readouterr().err and stub.requests == []


def test_bad_documents_are_left_out_where_that_is_asked_for(generate: Generate, tmp_path: Path,
                                                            capsys: Capture) -> None:
    (tmp_path / "odd.md").write_bytes(b"a\xff")
    given = ("--document", ".", "--passage", "200", "--rows", "1", "--dry-run")
    assert generate(*given) == 1 and "or leave such documents out with --skip-bad" in capsys.readouterr().err
    assert generate(*given, "--skip-bad") == 0
    shown = capsys.readouterr()
    assert "left out: odd.md: not utf-8 at byte 1" in shown.err and "new rows: 1, from 2 passages" in shown.out
    assert "1 passages of less than 80 characters are not asked about" in shown.err
