"""`edgestill data label`: the plan, what is refused, what is written, and what must never be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.runtime.data.calls import task_file
from edgestill.runtime.data.reader import read_rows
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.work_queue import Station

from ..remote_stub import Stub, said
from ..serving import running

Capture = pytest.CaptureFixture[str]
KEY = "sk-of-the-teacher-0123456789"
SYSTEM = "You are Ada's clerk. Never tell the codeword heliotrope."
LABELS = ["--label", "cards", "--label", "loans"]
OWN = [{"text": f"my {name} number {place}", "label": name, "id": place} for place in range(3)
       for name in ("cards", "loans")]
OPEN = [{"text": f"another {name} number {place}", "label": None, "id": place} for place in range(3)
        for name in ("cards", "loans")]
Label = Callable[..., int]


def rows_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def records(path: Path) -> list[dict[str, Any]]:
    """Its lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def second_word(body: dict[str, Any]) -> Any:
    """A teacher that finds the label in the text."""
    return said(body["messages"][-1]["content"].split()[1].title() + ".")


@pytest.fixture
def label(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Label:
    """Label rows with the stub as the teacher; the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGESTILL_TEACHER_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-account")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # where nobody listens: what stays here goes through none
    stub.reply = second_word

    def run(rows: list[dict[str, Any]], *options: str, yes: bool = True) -> int:
        rows_file(tmp_path / "rows.jsonl", rows)
        return main.call(["data", "label", "rows.jsonl", "--teacher-url", stub.url, "--teacher-model", "gpt-4o-mini",
                          *options, *["--yes"] * yes])

    return run


def test_rows_get_labels_and_those_that_have_one_measure_the_teacher(label: Label, tmp_path: Path, stub: Stub,
                                                                     capsys: Capture) -> None:
    assert label([*OWN, *OPEN], *LABELS, "--min-agreement", "1") == 0
    shown = capsys.readouterr()
    assert "rows: 12, of which 6 had an answer, 6 were labelled and 0 left out" in shown.out
    assert "with the rows' own answers 100.0 %, with itself 100.0 %" in shown.out
    assert "teacher: gpt-4o-mini at 127.0.0.1:" in shown.err and "questions: 18, of which 0" in shown.err
    assert "price: about 0.0" in shown.err and "genai-prices" in shown.err
    assert records(tmp_path / "labelled.jsonl") == [*OWN, *({**row, "label": row["text"].split()[1]} for row in OPEN)]
    assert [row.label for row in read_rows(tmp_path / "labelled.jsonl")] == ["cards", "loans"] * 6
    assert task_file.read(tmp_path / "labelled.jsonl").labels == ["cards", "loans"]  # type: ignore[union-attr]
    assert len(stub.requests) == 18 and {auth for _, auth, _ in stub.requests} == {f"Bearer {KEY}"}
    assert not any("openai-organization" in {name.lower() for name in headers} for headers in stub.headers)
    body = stub.requests[-1][2]
    assert body["messages"][0]["content"].endswith("and nothing else: cards, loans") and "logprobs" not in body
    assert body["max_completion_tokens"] == 1024 and "temperature" not in body


def test_a_finished_labelling_costs_nothing_again(label: Label, tmp_path: Path, stub: Stub, capsys: Capture) -> None:
    assert label([*OWN, *OPEN, OPEN[0]], *LABELS) == 0  # which costs nothing twice either
    assert len(records(tmp_path / "labelled.jsonl")) == 13 and len(stub.requests) == 18
    (tmp_path / "labelled.jsonl").unlink()
    assert label([*OWN, *OPEN], *LABELS) == 0
    made = (tmp_path / "labelled.jsonl").read_bytes()
    assert label([*OWN, *OPEN], *LABELS) == 2 and "already exists" in capsys.readouterr().err
    (tmp_path / "labelled.jsonl").unlink()
    assert label([*OWN, *OPEN], *LABELS) == 0 and (tmp_path / "labelled.jsonl").read_bytes() == made
    assert "questions: 18, of which 18 are answered" in capsys.readouterr().err and len(stub.requests) == 18
    assert label([*OWN, *OPEN], *LABELS, "-o", "rows.csv") == 2


def test_nothing_is_sent_before_somebody_agrees(label: Label, tmp_path: Path, stub: Stub, capsys: Capture,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    assert label(OPEN, *LABELS, "--dry-run", "--json", yes=False) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["rows"] == 6 and plan["questions"] == 12 and plan["model"] == "gpt-4o-mini"
    assert 0 < plan["cost"] < 0.01 and plan["tokens_read"] > plan["tokens_written"] > 0
    assert label(OPEN, *LABELS, yes=False) == 2 and "give --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("click.confirm", lambda *_, **__: exec("raise __import__('click').Abort"))
    assert label(OPEN, *LABELS, yes=False) == 130
    assert stub.requests == [] and sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


@pytest.mark.parametrize(("options", "words"), [
    (["--max-cost", "1", "--teacher-model", "nobodys-7b"], "nobodys-7b: no price is known"),
    (["--teacher-url", "http://llm.example.org/v1"], "llm.example.org: rows would travel there unencrypted"),
    (["--teacher-url", "https://me:pw@llm.example.org/v1"], "the address holds a user"),
    (["--teacher-url", "llm.example.org"], "not an http or https address"),
    (["--price", "cheap"], "--price cheap: not two numbers"), (["--price", "-1/2"], "not two numbers"),
    (["--schema", "schema.json"], "labels and a schema"), (["--system", "none.txt"], "none.txt"),
    (["--private", "gold"], "'gold', which the teacher alone reads, is missing"),
    (["--column", "text=body"], "the column 'body' is missing")])
def test_what_cannot_be_done_is_refused_before_a_call(options: list[str], words: str, label: Label, stub: Stub,
                                                      tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "schema.json").write_text("{}")
    assert label(OPEN, *LABELS, *options) in (1, 2)
    assert words in capsys.readouterr().err and stub.requests == []


def test_one_label_and_labels_of_another_name_are_refused(label: Label, stub: Stub, capsys: Capture) -> None:
    assert label(OPEN, "--label", "cards") == 2 and "one label alone" in capsys.readouterr().err
    assert label(OPEN, *LABELS, "--label", "Cards ") == 2
    assert "the labels 'cards' and 'Cards ' are the same but for case and blanks" in capsys.readouterr().err
    assert label(OWN, "--label", "cards", "--label", "money") == 1
    assert "rows.jsonl:2: the row's own label 'loans' is none of the labels" in capsys.readouterr().err
    assert label([{"note": "hi"}], *LABELS) == 1 and "no question among the columns" in capsys.readouterr().err
    assert label([{"note": "hi"}, *OPEN], *LABELS, "--skip-bad") == 0
    assert "1 bad rows left out" in capsys.readouterr().err and stub.requests != []


def test_personal_data_is_named_and_counted_before_it_is_sent(label: Label, stub: Stub, capsys: Capture) -> None:
    rows = [{"text": "the cards of ada@example.org"}, {"text": "my cards", "gold": "DE89 3704 0044 0532 0130 00"},
            {"text": "my loans", "gold": ""}]
    rows[0]["gold"] = ""
    assert label(rows, *LABELS, "--private", "gold") == 1
    shown = capsys.readouterr().err
    assert "1 e-mail addresses, 1 bank accounts (IBAN) in 2 rows (rows.jsonl:1, rows.jsonl:2)" in shown
    assert "ada@" not in shown and "3704" not in shown and stub.requests == []
    assert label(rows, *LABELS, "--private", "gold", "--allow-personal-data") == 0


def test_personal_data_that_goes_with_every_row_is_counted_once(label: Label, stub: Stub, tmp_path: Path,
                                                                capsys: Capture) -> None:
    (tmp_path / "system.txt").write_text("Write as ada@example.org.")
    rows_file(tmp_path / "examples.jsonl", [{"text": "cards of bob@example.org", "label": "cards"}])
    options = (*LABELS, "--system", "system.txt", "--examples", "examples.jsonl")
    assert label(OPEN, *options) == 1
    assert "2 e-mail addresses in the system message and the examples\n" in capsys.readouterr().err
    assert label([*OPEN, {"text": "eve@example.org"}], *options) == 1 and stub.requests == []
    shown = capsys.readouterr().err
    assert "3 e-mail addresses in the system message and the examples and 1 rows (rows.jsonl:7)" in shown


def test_what_the_teacher_alone_sees_reaches_no_file(label: Label, tmp_path: Path, stub: Stub, capsys: Capture,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    """Nor its answers, where it repeats it; nor a log; nor the terminal, but for the host in the plan."""
    caplog.set_level("DEBUG")
    (tmp_path / "system.txt").write_text(SYSTEM + "\n")
    rows_file(tmp_path / "examples.jsonl", [{"text": "a secret example about plastic", "label": "cards"}])
    inputs = {"system.txt", "examples.jsonl", "rows.jsonl"}
    leaking = {"another cards number 2": SYSTEM, "another loans number 2": f"cards {KEY}"}

    def reply(body: dict[str, Any]) -> Any:
        asked, _, told = body["messages"][-1]["content"].partition("\n\n")
        assert told == f"gold:\n{asked} is of the hidden kind"
        assert body["messages"][0]["content"].startswith(SYSTEM)
        assert [message["content"] for message in body["messages"][1:3]] == ["a secret example about plastic", "cards"]
        return said(leaking.get(asked, asked.split()[1]))

    stub.reply = reply
    rows = [{**row, "gold": f"{row['text']} is of the hidden kind"} for row in OPEN]
    given = ("--system", "system.txt", "--examples", "examples.jsonl", "--private", "gold", "--check", "2")
    assert label([{"prompt": row["text"], "gold": row["gold"]} for row in rows], *given, "-o", "free.jsonl") == 0
    assert label(rows, *given, *LABELS) == 0
    shown = capsys.readouterr()
    secrets = [KEY, stub.url, f":{stub.server_port}", "heliotrope", "plastic", "hidden kind", "gold"]
    written = {path.name: path.read_text() for path in tmp_path.iterdir() if path.name not in inputs}
    assert len(written) == 11
    for name, content in written.items():
        assert [secret for secret in secrets if secret in content] == [], name
    assert not any(secret in shown.out + shown.err for secret in secrets if secret != f":{stub.server_port}")
    assert not any(secret in caplog.text for secret in secrets)
    left = [(one["line"], one["reason"]) for one in records(tmp_path / "free.left-out.jsonl")]
    assert left == [(5, "repeats what the teacher alone may see"), (6, "repeats what the teacher alone may see")]
    assert (tmp_path / "labelled.ledger.jsonl").stat().st_mode & 0o777 == 0o600
    report = json.loads(written["labelled.report.json"])
    assert all(len(report[name]) == 64 for name in ("endpoint", "system", "examples", "private"))


@pytest.mark.parametrize(("options", "words"), [
    ([*LABELS, "--min-agreement", "0.6"], "agrees with the rows' own answers in 50.0 % of 6 rows, and the limit"),
    (["--column", "prompt=text", "--min-agreement", "0.9"], "agrees with itself in 0.0 % of 4 rows")])
def test_a_teacher_that_does_not_agree_is_stopped(options: list[str], words: str, label: Label, stub: Stub,
                                                  tmp_path: Path, capsys: Capture) -> None:
    stub.reply = lambda body: said("cards" if "--label" in options else f"answer {len(stub.requests)}")
    rows = [*OWN, *OPEN] if "--label" in options else [{"text": row["text"]} for row in OPEN]
    assert label(rows, *options, "--check", "6" if "--label" in options else "4") == 3
    assert words in capsys.readouterr().err and not (tmp_path / "labelled.jsonl").exists()
    assert len(stub.requests) == (12 if "--label" in options else 8)


def test_most_votes_win_and_json_is_compared_by_meaning(label: Label, stub: Stub, tmp_path: Path) -> None:
    answers = iter(['{"a": 1, "b": [2]}', '{"a": 3, "b": []}', '```json\n{"b":[2.0],"a":1}\n```', "no JSON",
                    '{"a": "x"}'])
    stub.reply = lambda body: said(next(answers, '{"a": 1}'))
    schema = {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "array"}}, "required": ["a"]}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    assert label([{"question": "one?"}, {"question": "two?"}], "--schema", "schema.json", "--votes", "3",
                 "--check", "0", "--concurrency", "1") == 0
    votes = records(tmp_path / "labelled.ledger.jsonl")
    assert [one["reason"] for one in votes if one["event"] == "unusable"] == ["no JSON", "breaks the schema"]
    assert records(tmp_path / "labelled.jsonl") == [{"question": "one?", "completion": '{"a":1,"b":[2]}'},
                                                    {"question": "two?", "completion": '{"a":1}'}]
    assert [one["agreeing"] for one in records(tmp_path / "labelled.votes.jsonl")] == [2, 3]
    assert json.loads((tmp_path / "labelled.schema.json").read_text()) == schema


def test_rows_that_the_teacher_is_shown_with_their_answer_measure_nothing(label: Label, stub: Stub, tmp_path: Path,
                                                                          capsys: Capture) -> None:
    rows_file(tmp_path / "examples.jsonl", OWN[:5])
    options = (*LABELS, "--examples", "examples.jsonl")
    assert label([*OWN, *OPEN], *options) == 0
    shown = capsys.readouterr()
    assert "agreement of the teacher over 1 rows: with the rows' own answers 100.0 %" in shown.out
    assert "warning" not in shown.err and len(stub.requests) == 2 + 6
    assert label([*OWN[:5], *OPEN], *options, "-o", "other.jsonl") == 0
    shown = capsys.readouterr()
    assert "warning: all rows with an answer stand in --examples" in shown.err
    assert "over 6 rows: with the rows' own answers not known, none has one that it was not shown" in shown.out


def test_an_answer_may_quote_its_own_question(label: Label, stub: Stub, tmp_path: Path) -> None:
    """Though it is that of an example, too, and repeat the answer of one, but nothing else that it is shown."""
    question, system, answer = "what do the red cards cost?", "a clerk who loves plastic", "nothing at all, or so"
    rows_file(tmp_path / "examples.jsonl", [{"messages": [
        {"role": "system", "content": system}, {"role": "user", "content": question},
        {"role": "assistant", "content": answer}]}])
    replies = {question: f"You ask {question}", "two?": answer, "three?": f"I am {system}"}
    stub.reply = lambda body: said(replies[body["messages"][-1]["content"]])
    assert label([{"prompt": asked} for asked in replies], "--examples", "examples.jsonl", "--check", "0") == 0
    assert [row["completion"] for row in records(tmp_path / "labelled.jsonl")] == [f"You ask {question}", answer]
    assert [one["line"] for one in records(tmp_path / "labelled.left-out.jsonl")] == [3]


@pytest.mark.parametrize("options", [["--max-tokens", "700"], ["--max-cost", "0.0007", "--price", "1/1"]])
def test_a_budget_is_never_passed_and_can_be_raised(options: list[str], label: Label, stub: Stub, tmp_path: Path,
                                                    capsys: Capture) -> None:
    """34 tokens a call; no more are begun than fit with the most that they can take."""
    rows = [{"text": f"a cards {place}"} for place in range(30)]
    more = [*LABELS, "--check", "0", "--answer-tokens", "40"]
    assert label(rows, *more, *options) == 3
    shown = capsys.readouterr()
    assert "leaves no room for another call" in shown.err
    assert "next: remove labelled.jsonl, and the same command goes on" in shown.err
    assert 5 < len(stub.requests) < 700 // 34 and len(records(tmp_path / "labelled.jsonl")) == len(stub.requests)
    assert f"{30 - len(stub.requests)} not asked" in shown.out
    (tmp_path / "labelled.jsonl").unlink()
    assert label(rows, *more) == 0 and len(stub.requests) == 30


def test_conversations_keep_their_form_and_tools_are_called(label: Label, stub: Stub, tmp_path: Path) -> None:
    tools = [{"type": "function", "function": {"name": "dim", "parameters": {"type": "object"}}}]
    call = {"id": "c1", "type": "function", "function": {"name": "dim", "arguments": '{"lamp": 2}'}}
    stub.reply = lambda body: said("", tool_calls=[call])
    rows = [{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "dim lamp 2"}],
             "tools": tools, "id": 7}, {"messages": [{"role": "user", "content": "dim it"}]}]
    assert label(rows, "--check", "0") == 0
    made = records(tmp_path / "labelled.jsonl")
    assert len(made) == 1 and made[0]["id"] == 7 and made[0]["messages"][:2] == rows[0]["messages"]
    assert read_rows(tmp_path / "labelled.jsonl")[0].answer == '[{"name":"dim","arguments":{"lamp":2}}]'
    assert stub.requests[0][2]["tools"] == tools
    left = records(tmp_path / "labelled.left-out.jsonl")
    assert left == [{"file": "rows.jsonl", "line": 2, "reason": "calls a tool that it was not given"}]


def test_the_table_beside_the_rows_says_what_the_options_do_not(label: Label, stub: Stub, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch,
                                                                capsys: Capture) -> None:
    monkeypatch.delenv("EDGESTILL_TEACHER_KEY")
    (tmp_path / "rows.task.toml").write_text('[task]\nsystem = "Be brief."\nlabels = ["cards", "loans"]\n')
    assert label(OPEN, "--check", "0", "--json") == 0
    shown = capsys.readouterr()
    assert "no key is sent: EDGESTILL_TEACHER_KEY is not set" in shown.err
    assert json.loads(shown.out)["labelled"] == 6 and stub.requests[0][1] is None
    assert stub.requests[0][2]["messages"][0]["content"].startswith("Be brief.\n\nAnswer with")
    assert (tmp_path / "labelled.task.toml").read_text() == (tmp_path / "rows.task.toml").read_text()


def test_a_missing_package_is_named_with_its_extra(label: Label, capsys: Capture,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    for name, package in (("genai_prices", "genai-prices"), ("openai", "openai"), ("stamina", "stamina")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            assert label(OPEN, *LABELS) == 1
        shown = capsys.readouterr().err
        assert f"{package} is not installed" in shown and "pip install 'edgestill[label]'" in shown


def test_our_own_server_is_a_teacher(packed_llama: dict[str, Path], label: Label, tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"queue": {"enum": ["cards", "loans"]}}, "required": ["queue"],
              "additionalProperties": False}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    with running([Station("tiny", load_streams(packed_llama["gguf"], 1, 1), 8)]) as server:
        assert label([{"prompt": f"which queue, {place}?"} for place in range(3)], "--schema", "schema.json", "--check",
                     "2", "--answer-tokens", "64", "--teacher-url", f"http://127.0.0.1:{server.port}/v1") == 0
    assert all(json.loads(row["completion"])["queue"] in ("cards", "loans")
               for row in records(tmp_path / "labelled.jsonl"))
    assert all(one["logprob"] < 0 for one in records(tmp_path / "labelled.votes.jsonl"))
    assert json.loads((tmp_path / "labelled.report.json").read_text())["takes"] == {
        "logprobs": True, "max_completion_tokens": True, "response_format": True}
