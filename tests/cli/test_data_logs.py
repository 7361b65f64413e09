"""`edgestill data logs`, and what `init` makes of what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.models import runfile
from edgestill.runtime.data.calls import task_file
from edgestill.runtime.data.reader import read_rows

from .. import log_records as logs
from ..log_records import SCHEMA, SYSTEM

Capture = pytest.CaptureFixture[str]
PROMPT = " ".join([SYSTEM] * 4)
QUEUES = {"type": "object", "properties": {"queue": {"type": "string", "enum": ["billing", "delivery", "other"]}},
          "required": ["queue"]}


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """Forty calls with one prompt and one schema, and two that are left out."""
    calls = [logs.pair(logs.asks(f"dim lamp {place}", PROMPT, response_format=logs.form()),
                       logs.says(f'{{"do": "dim", "at": "{place}"}}')) for place in range(40)]
    return logs.write(tmp_path / "calls.jsonl", [*calls, logs.pair(status_code=429), {"msg": "started"}])


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    """Forty calls whose answer is one of a list."""
    return logs.write(tmp_path / "calls.jsonl", [
        logs.pair(logs.asks(f"ticket {place}", response_format=logs.form(QUEUES)),
                  logs.says(json.dumps({"queue": ("delivery", "billing")[place % 2]}))) for place in range(40)])


def test_rows_and_what_all_calls_share_are_written(orders: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "rows.jsonl"
    assert main.call(["data", "logs", str(orders), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert "42 records (openai 41): 40 rows, 2 left out" in said.out
    assert "1 failed call (HTTP 429): calls.jsonl:41" in said.out
    assert f'system = "{PROMPT}"' in said.out and "next: edgestill init" in said.err
    rows = read_rows(out)
    assert len(rows) == 40 and [one["role"] for one in rows[0].messages] == ["user", "assistant"]
    assert json.loads((tmp_path / "rows.schema.json").read_text()) == SCHEMA
    assert list(json.loads((tmp_path / "rows.schema.json").read_text())["properties"]) == ["do", "at"]
    left = [json.loads(line) for line in (tmp_path / "rows.left-out.jsonl").read_text().splitlines()]
    assert left == [{"file": "calls.jsonl", "line": 41, "reason": "failed call (HTTP 429)"},
                    {"file": "calls.jsonl", "line": 42, "reason": "a record of no kind known here"}]
    made = [*tmp_path.glob("rows*")]
    assert len(made) == 4
    everything = said.out + said.err + "".join(path.read_text() for path in made)
    assert [secret for secret in logs.SECRETS if secret in everything] == []


def test_init_takes_up_what_all_calls_share(orders: Path, tmp_path: Path, capsys: Capture, tiny_llama: Path) -> None:
    rows, run_file = tmp_path / "rows.jsonl", tmp_path / "runs" / "run.toml"
    assert main.call(["data", "logs", str(orders), "-o", str(rows)]) == 0
    student = ["--student", str(tiny_llama)]
    assert main.call(["init", str(rows), "-o", str(run_file), *student]) == 0
    assert "[task] as" in capsys.readouterr().err
    run = runfile.read(run_file)
    assert run.task.system == PROMPT and run.task.kind == "generate"
    assert json.loads((run_file.parent / run.task.schema).read_text()) == SCHEMA
    assert main.call(["data", "check", str(run_file), "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["splits"]["train"]["tokens"]
    assert tokens["over_limit"] == 0 and tokens["max"] > 40  # the prompt is among them
    (tmp_path / "rows.task.toml").unlink()
    assert main.call(["init", str(rows), "-o", str(tmp_path / "plain.toml"), *student]) == 0
    plain = runfile.read(tmp_path / "plain.toml")
    assert (plain.task.system, plain.task.schema) == ("", "") and plain.data.max_tokens < run.data.max_tokens


def test_answers_out_of_a_list_become_labels(tickets: Path, tmp_path: Path, capsys: Capture) -> None:
    rows, run_file = tmp_path / "rows.jsonl", tmp_path / "run.toml"
    assert main.call(["data", "logs", str(tickets), "-o", str(rows)]) == 0
    assert {row.label for row in read_rows(rows)} == {"billing", "delivery"}
    assert 'labels = ["billing", "delivery"]' in capsys.readouterr().out
    assert not (tmp_path / "rows.schema.json").exists() and not (tmp_path / "rows.left-out.jsonl").exists()
    assert main.call(["init", str(rows), "-o", str(run_file)]) == 0
    task = runfile.read(run_file).task
    assert (task.kind, task.labels, task.system, task.schema) == ("classify", ["billing", "delivery"], "", "")
    assert main.call(["data", "logs", str(tickets), "--chat", "-o", str(tmp_path / "chats.jsonl")]) == 0
    assert read_rows(tmp_path / "chats.jsonl")[0].kind == "chat"
    assert json.loads((tmp_path / "chats.schema.json").read_text()) == QUEUES


def test_one_document_and_a_look_alone(orders: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ["data", "logs", str(orders), "-o", str(tmp_path / "rows.jsonl"), "--json"]
    assert main.call([*command, "--dry-run"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["task"], found["written"]) == (40, {"system": PROMPT}, [])
    assert [path.name for path in tmp_path.iterdir()] == ["calls.jsonl"]
    assert main.call(command) == 0
    assert json.loads(capsys.readouterr().out)["written"] == [str(tmp_path / f"rows.{name}") for name in (
        "jsonl", "left-out.jsonl", "schema.json", "task.toml")]


def test_calls_that_share_nothing_have_no_table(tmp_path: Path, capsys: Capture) -> None:
    calls = logs.write(tmp_path / "calls.jsonl", [logs.pair(logs.asks("a", "One.")), logs.pair(logs.asks("b", "Two."))])
    assert main.call(["data", "logs", str(calls), "-o", str(tmp_path / "rows.jsonl")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calls.jsonl", "rows.jsonl"]
    assert "[task]" not in capsys.readouterr().out


@pytest.mark.parametrize("standing", ["rows.jsonl", "rows.schema.json", "rows.task.toml", "rows.left-out.jsonl"])
def test_nothing_is_written_over(standing: str, orders: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / standing).write_text("mine")
    assert main.call(["data", "logs", str(orders), "-o", str(tmp_path / "rows.jsonl")]) == 2
    assert f"{standing}: already exists" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["calls.jsonl", standing])


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (["{calls}", "-o", "{folder}/rows.csv"], 2, "rows are written as JSON lines"),
    (["{calls}", "-o", "{folder}/rows.jsonl.gz"], 2, "rows are written as JSON lines"),
    (["{folder}/missing.jsonl"], 1, "no such file"), ([], 2, "Missing argument"), (["{folder}"], 1, "no such file"),
    (["owner/name"], 1, "no such file"),  # and nothing is asked of the hub
    (["{folder}/empty.jsonl"], 1, "no call in it that could be learned from")])
def test_mistakes_are_told(arguments: list[str], code: int, message: str, orders: Path, tmp_path: Path,
                           capsys: Capture) -> None:
    (tmp_path / "empty.jsonl").touch()
    found = [argument.format(calls=orders, folder=tmp_path) for argument in arguments]
    assert main.call(["data", "logs", *found]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("text", "message"), [
    ("[task]\nkind = 'classify'", "'kind' is not read here"), ("[data]\ntrain = 'x'", "'data' is not read here"),
    ("task = 3", "'task' is not read here"), ("[task", "not valid TOML"), ("", "'task' is not read here"),
    ("[task]\nsystem = 3", "task.system")])
def test_a_table_beside_rows_that_says_something_else_is_refused(text: str, message: str, tmp_path: Path,
                                                                 capsys: Capture) -> None:
    rows = logs.write(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}])
    (tmp_path / "rows.task.toml").write_text(text)
    assert main.call(["init", str(rows), "-o", str(tmp_path / "run.toml")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("system", ['say "no"\\n', "lines\nand\ttabs", "del \x7f and ünïcode \u2028 🙂"])
def test_a_prompt_of_any_characters_reaches_the_run_file(system: str, tmp_path: Path) -> None:
    calls = logs.write(tmp_path / "calls.jsonl", [logs.pair(logs.asks(str(place), system)) for place in range(3)])
    assert main.call(["data", "logs", str(calls), "-o", str(tmp_path / "rows.jsonl")]) == 0
    assert main.call(["init", str(tmp_path / "rows.jsonl"), "-o", str(tmp_path / "run.toml")]) == 0
    assert runfile.read(tmp_path / "run.toml").task.system == system


@pytest.mark.parametrize(("rows", "table"), [
    ("a/rows.jsonl", "a/rows.task.toml"), ("a/rows.jsonl.gz", "a/rows.task.toml"), ("rows.v2.csv", "rows.v2.task.toml"),
    ("owner/name", "owner/name.task.toml"), (".", ".task.toml")])
def test_the_table_stands_beside_its_rows(rows: str, table: str) -> None:
    assert task_file.path_of(Path(rows)) == Path(table)


def test_a_long_prompt_is_shown_in_part(tmp_path: Path, capsys: Capture) -> None:
    calls = logs.write(tmp_path / "calls.jsonl", [logs.pair(logs.asks("a", "word " * 500))])
    assert main.call(["data", "logs", str(calls), "--dry-run"]) == 0
    shown: Any = next(line for line in capsys.readouterr().out.splitlines() if "system = " in line)
    assert len(shown) < 200 and "…" in shown
