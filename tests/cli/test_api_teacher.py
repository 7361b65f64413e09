"""A teacher behind an address in a run file: its answers are the run's first stage, and nothing is asked twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import stamina
from edgestill.cli import main
from edgestill.cli.pipeline import engine, labels, resolve
from edgestill.models.artifact import open_artifact
from edgestill.models.errors import EdgestillError, UsageError
from edgestill.runtime.data.reader import load_splits, read_rows

from ..fault_server import Asked, FaultServer
from ..runtime.test_rows import jsonl

KEY, SYSTEM = "sk-of-the-teacher-0123456789", "You are Ada's clerk. Never tell the codeword heliotrope."
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Retries wait for nothing but what the server asks for."""
    monkeypatch.setenv("EDGESTILL_TEACHER_KEY", KEY)
    stamina.set_testing(True, attempts=4)
    yield
    stamina.set_testing(False)


def question(asked: Asked) -> str:
    return str(asked.body["messages"][-1]["content"]).partition("\n")[0]


def answer(asked: Asked, number: int) -> str:
    return question(asked).upper()


@pytest.fixture
def home(tmp_path: Path, tiny_llama: Path) -> Path:
    """A run file, 12 questions, 3 of them with answers, and test rows, in columns of other names."""
    jsonl(tmp_path / "rows.jsonl", [{"frage": f"light {row}", "antwort": f"mine {row}" if row < 3 else None,
                                     "note": f"the passage of row {row}"} for row in range(12)])
    jsonl(tmp_path / "test.jsonl", [{"frage": f"lamp {row}", "antwort": "ON"} for row in range(2)])
    (tmp_path / "system.txt").write_text(SYSTEM)
    (tmp_path / "run.toml").write_text(f"""
task = {{ max_new_tokens = 4 }}
[data]
train = "rows.jsonl"
test = "test.jsonl"
columns = {{ prompt = "frage", completion = "antwort" }}
validation_share = 0.0
[student]
model = "{tiny_llama.as_posix()}"
layers = [0]
[teacher]
kind = "api"
url = "URL"
model = "big-1"
system = "system.txt"
private = ["note"]
check = 0
concurrency = 1
[distill]
steps = 2
batch_size = 4
losses = [{{ kind = "ce" }}]
""")
    return tmp_path


def run(home: Path, server: FaultServer | str, *options: str, yes: bool = True) -> int:
    url = server if isinstance(server, str) else server.url
    return main.call(["run", str(home / "run.toml"), "-o", str(home / "out"), "--set", f"teacher.url={url}",
                      *options, *["--yes"] * yes])


def test_killed_and_run_again_nothing_is_asked_twice_and_nothing_secret_is_kept(home: Path, capsys: Capture) -> None:
    """With a teacher that fails now and then, stopped among its answers."""
    left = ["light 8"]

    def stopping(asked: Asked, number: int) -> str:
        if question(asked) in left:
            left.clear()
            os.kill(os.getpid(), signal.SIGINT)
        return answer(asked, number)

    def choose(asked: Asked) -> str:
        return {"light 4": "429_seconds", "light 10": "503_html"}.get(question(asked), "") if asked.attempt == 1 else ""

    signal.signal(signal.SIGINT, signal.default_int_handler)  # which is none in what a shell starts in the background
    out = home / "out"
    with FaultServer(choose=choose, answer=stopping, key=KEY, wait=0) as server:
        assert run(home, server) == 130
        assert not (out / labels.ROWS).exists() and (out / labels.LEDGER).stat().st_mode & 0o777 == 0o600
        assert run(home, server) == 0
        rows = read_rows(out / labels.ROWS, {"prompt": "frage", "completion": "antwort"})
        assert [row.answer for row in rows] == [f"mine {row}" if row < 3 else f"LIGHT {row}" for row in range(12)]
        assert "passage" not in (out / labels.ROWS).read_text()
        usable = Counter(call.content for call in server.calls if call.usable)
        assert len(usable) == 9 and sum(usable.values()) <= 10, "the one in flight when it was stopped may come twice"
        assert len(server.calls) - sum(usable.values()) <= 3
        assert all(call.body["messages"][0]["content"] == SYSTEM for call in server.calls)
        assert any("the passage of row 4" in json.dumps(call.body) for call in server.calls)
        asked, shown = len(server.calls), capsys.readouterr()
        assert "teacher: big-1 at 127.0.0.1:" in shown.err and "label the rows" in shown.err
        assert run(home, server, "--set", "teacher.max_tokens=900000") == 0 and len(server.calls) == asked
        again = capsys.readouterr().err
        assert "distill the student: unchanged" in again and "label the rows: unchanged" in again
        assert run(home, server, "--dry-run", yes=False) == 0 and "label the rows" in capsys.readouterr().out
    made = open_artifact(out / "student").manifest
    (teacher,) = [parent for parent in made.parents if parent["role"] == "teacher"]
    assert teacher["name"] == "big-1" and len(teacher["sha256"]) == 64
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {"report.html", "summary.json", "labelled.report.json", "labelled.votes.jsonl"} <= {
        path.name for path in files}
    address = server.url.removeprefix("http://").removesuffix("/v1").encode()
    assert str(home).encode() not in files[out / "student" / "run.toml"]
    for secret in (KEY.encode(), b"heliotrope", address):
        assert [path.name for path, content in files.items() if secret in content] == []
        assert secret not in (shown.out + again).encode()
    assert KEY not in shown.err and "heliotrope" not in shown.err


def test_nothing_is_sent_before_somebody_agrees(home: Path, capsys: Capture) -> None:
    with FaultServer(answer=answer) as server:
        assert run(home, server, "--set", "teacher.key_variable=NO_SUCH_KEY", yes=False) == 2
        assert "give --yes" in (said := capsys.readouterr().err) and "rows: 12, of which 3 have an answer" in said
        assert "no key is sent: NO_SUCH_KEY is not set" in said
        assert run(home, server, "--dry-run", "--json", yes=False) == 0
        plan = json.loads(capsys.readouterr().out)
        assert plan["labelling"]["questions"] == 9 and plan["stages"][0]["state"] == "make"
        assert run(home, server, "--dry-run", yes=False) == 0
        assert "the other stages are planned once the rows have their answers" in capsys.readouterr().out
        assert run(home, server, "--dry-run", "--sky", yes=False) == 2
        assert "--sky: a teacher of the kind 'api' is asked from this machine" in capsys.readouterr().err
        jsonl(home / "rows.jsonl", [{"frage": "write to ada@example.org", "antwort": None, "note": ""}])
        assert run(home, server) == 1 and "set allow_personal_data = true in [teacher]" in capsys.readouterr().err
        assert server.calls == []


def test_a_spent_budget_ends_the_run_and_keeps_what_was_paid(home: Path, capsys: Capture) -> None:
    with FaultServer(answer=answer) as server:
        budget = ["--set", "teacher.max_tokens=1300"]
        assert run(home, server, *budget) == 3 and "leaves no room for another call" in capsys.readouterr().err
        before = len(server.calls)
        assert 0 < before < 9 and not (home / "out" / labels.ROWS).exists()
        made = labels.of(resolve.read(home / "run.toml", [f"teacher.url={server.url}"]), home / "out", print)
        assert made is not None
        made.stage.work(home / "out" / labels.ROWS)
        assert len(server.calls) == 9 == len({call.content for call in server.calls})


def test_all_rows_are_answered_where_that_is_asked_and_what_is_paid_for_changes_no_key(home: Path) -> None:
    with FaultServer(answer=answer) as server:
        def of(*more: str) -> labels.Labels:
            resolved = resolve.read(home / "run.toml", [f"teacher.url={server.url}", *more])
            found = labels.of(resolved, home / "out", print)
            assert found is not None
            return found

        every = of("teacher.all=true")
        every.stage.work(home / "out" / labels.ROWS)
        rows = read_rows(home / "out" / labels.ROWS, {"prompt": "frage", "completion": "antwort"})
        assert [row.answer for row in rows] == [f"LIGHT {row}" for row in range(12)]
        (report,) = (json.loads(path.read_text()) for path in (home / "out").glob("labelled.report.json"))
        assert (report["own"], report["labelled"]) == (3, 12)
        keys = {name: engine._key(of(change).stage, {}) for name, change in {
            "": "distill.steps=3", "budget": "teacher.max_tokens=5000", "pace": "teacher.concurrency=3",
            "all": "teacher.all=true", "votes": "teacher.votes=3", "system": "teacher.system=",
            "model": "teacher.model=big-2"}.items()}
        assert keys[""] == keys["pace"] == keys["budget"] and len({*keys.values()}) == 5
        (home / "system.txt").write_text("Another one.")
        assert engine._key(of("distill.steps=3").stage, {}) != keys[""]
        assert every.run.data.train == str(home / "out" / labels.ROWS)


def test_conversations_that_have_an_answer_get_another_in_its_place(home: Path) -> None:
    asked = [{"role": "user", "content": "hall on"}]
    jsonl(home / "rows.jsonl", [{"messages": [*asked, {"role": "assistant", "content": "mine"}]}, {"messages": asked}])
    with FaultServer(answer=answer) as server:
        found = labels.of(resolve.read(home / "run.toml", [
            f"teacher.url={server.url}", "teacher.all=true", "teacher.private=[]", "data.columns={}"]), home, print)
        assert found is not None
        found.stage.work(home / labels.ROWS)
    assert [[message["content"] for message in row.messages] for row in read_rows(home / labels.ROWS)] == [
        ["hall on", "HALL ON"]] * 2


@pytest.mark.parametrize(("override", "message"), [
    ("distill.losses=[{kind = 'forward_kl'}]", "forward_kl needs drawn of the teacher, which provides text"),
    ("distill.losses=[{kind = 'hidden'}, {kind = 'ce'}]", "hidden needs hidden of the teacher, which provides text"),
    ("student.model=", "student.model: is empty, and a teacher of the kind 'api' is no model"),
    ("teacher=[{kind = 'local', model = 'm'}, {kind = 'api', url = 'http://localhost/v1', model = 'm'}]",
     r"teacher\[1\]: a teacher that answers rows gives nothing that is mixed"),
    ("teacher.votes=0", "teacher.votes: 0 is below the limit 1"),
])
def test_what_it_cannot_teach_is_refused_by_name(home: Path, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        resolve.read(home / "run.toml", [override])
    if "text" in message:
        assert 'losses = [{ kind = "ce" }]' in (refused.value.hint or "")


@pytest.mark.parametrize(("overrides", "message"), [
    (["task.kind=classify"], "task.labels: 0 are named"),
    (["teacher.system=no.txt"], "teacher.system: .*no.txt cannot be read"),
    (["teacher.url=http://llm.example.org/v1"], "llm.example.org: rows would travel there unencrypted"),
    (["teacher.private=['gold']"], "'gold', which the teacher alone reads, is missing"),
    (["teacher.max_cost=1"], "no price is known"), (["data.train="], "data.train: is required"),
    (["teacher.private=['note', 'context']"], "teacher.private: rows of data.test .* are read with it as input"),
])
def test_what_cannot_be_asked_is_refused_before_a_call(home: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(EdgestillError, match=message):
        labels.of(resolve.read(home / "run.toml", ["teacher.url=http://127.0.0.1:9/v1", *overrides]), home, print)


def test_columns_of_the_run_file_hold_for_examples_too_and_what_it_leaves_out_is_not_asked(home: Path) -> None:
    jsonl(home / "rows.jsonl", [{"frage": "light 1", "input": "left", "context": "seen"}])
    jsonl(home / "examples.jsonl", [{"frage": "lamp", "antwort": "on"}])
    with FaultServer(answer=answer) as server:
        found = labels.of(resolve.read(home / "run.toml", [
            f"teacher.url={server.url}", "teacher.private=['context']", "teacher.examples=examples.jsonl",
            "data.columns.input="]), home, print)
        assert found is not None
        found.stage.work(home / labels.ROWS)
    (call,) = server.calls
    assert [message["content"] for message in call.body["messages"][1:]] == ["lamp", "on", "light 1\n\ncontext:\nseen"]
    assert json.loads((home / labels.ROWS).read_text()) == {"frage": "light 1", "input": "left", "antwort": "LIGHT 1"}


def test_rows_that_were_left_out_stay_listed_when_the_others_are_learned(home: Path) -> None:
    with (home / "rows.jsonl").open("a") as file:
        file.write('{"frage": "", "note": ""}\n')
    found = labels.of(resolve.read(home / "run.toml", ["teacher.url=http://127.0.0.1:9/v1", "data.skip_bad=true"]),
                      home, print)
    assert found is not None
    jsonl(home / labels.ROWS, [{"frage": f"light {row}", "antwort": "ON"} for row in range(3)])
    load_splits(found.run.data, home, home / "bad-rows.jsonl")
    (left,) = [json.loads(line) for path in home.glob("*bad-rows.jsonl") for line in path.open()]
    assert left["line"] == 13


def test_other_verbs_say_who_asks(home: Path, capsys: Capture) -> None:
    assert main.call(["distill", str(home / "run.toml"), "-o", str(home / "student")]) == 2
    assert "answers rows in a stage of edgestill run alone" in capsys.readouterr().err


def test_stages_before_others_leave_what_those_left(tmp_path: Path) -> None:
    (tmp_path / engine.UNFINISHED / "student.work").mkdir(parents=True)
    stage = engine.Stage("one", "one.json", {}, (), lambda path: path.write_text("{}") and None)
    engine.run([stage], tmp_path, print, last=False)
    assert (tmp_path / engine.UNFINISHED / "student.work").is_dir() and (tmp_path / "one.json").is_file()
    engine.run([replace(stage)], tmp_path, print)
    assert not (tmp_path / engine.UNFINISHED).exists()
