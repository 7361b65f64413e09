"""A teacher that fails in every way that providers document: rows get their answers, and nothing is paid for twice."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina
from edgestill.cli import main
from edgestill.distill.labelling import Labelling, Settings
from edgestill.distill.labelling.endpoint import TeacherError
from edgestill.distill.labelling.items import read_items
from edgestill.models.errors import CheckFailed, EdgestillError, UsageError

from ..fault_server import FAULTS, Asked, FaultServer, Group, of_group
from ..fault_server.answers import instance

KEY = "sk-proj-0123456789abcdefghij"
LABELS = ["cards", "loans", "other"]
SCHEMA = {"type": "object", "properties": {"queue": {"enum": LABELS}}, "required": ["queue"],
          "additionalProperties": False}


@pytest.fixture(autouse=True)
def without_pauses() -> Iterator[None]:
    """Retries wait for nothing but what the server asks for."""
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


def questioned(asked: Asked) -> str:
    """The row that is asked."""
    return str(asked.body["messages"][-1]["content"])


def meant(text: str) -> str:
    """The label that the teacher means."""
    return str(instance({"enum": LABELS}, text))


def answering(asked: Asked, number: int) -> str:
    """A label, or an object where a schema is told."""
    label = meant(questioned(asked))
    return json.dumps({"queue": label}) if asked.body.get("response_format") else label


def labelling(server: FaultServer, folder: Path, texts: list[str], **settings: Any) -> Labelling:
    """Texts to label, or with a schema prompts to answer."""
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    labels = [] if "schema" in settings else LABELS
    items = read_items(folder / "rows.jsonl", {}, (), labels)
    given: dict[str, Any] = {"key": KEY, "labels": labels, "check": 0, "concurrency": 16, "timeout": 5.0, **settings}
    return Labelling(items, Settings(server.url, "big", **given), folder / "ledger.jsonl")


PASSING = [name for name in of_group(Group.REFUSED, Group.LOST, Group.SPOILT, Group.ODD)
           if name not in ("slow_first_byte", "slow_drip", "503_html",
                           "length", "length_reasoned", "model_length")]  # which are not asked again


def test_every_passing_fault_is_passed(tmp_path: Path) -> None:
    """The first call for each row fails; a good answer in an odd wrapping is taken as it is."""
    def choose(asked: Asked) -> str:
        return questioned(asked) if asked.attempt == 1 and questioned(asked) in FAULTS else ""

    with FaultServer(choose=choose, answer=answering, key=KEY, wait=0) as server:
        found = labelling(server, tmp_path, ["first", *PASSING], concurrency=80).run()
    assert [row["label"] for row in found.rows] == [meant(text) for text in ("first", *PASSING)]
    assert found.stopped is None and not found.left_out
    asked = [questioned_of(call.body) for call in server.calls]
    odd = of_group(Group.ODD)
    unlabelled = {"json_cut", "schema_broken"}
    assert {name for name in PASSING if asked.count(name) == 1} == {*odd}
    assert unlabelled <= {name for name in PASSING if asked.count(name) == 2}
    billed = sum(call.prompt_tokens + call.completion_tokens for call in server.calls)
    assert found.report.tokens_read + found.report.tokens_written >= billed
    assert found.report.unusable["none of the labels"] >= 2 and found.report.calls["answered"] == len(PASSING) + 1


def questioned_of(body: dict[str, Any]) -> str:
    """The row that a call asked."""
    return str(body["messages"][-1]["content"])


@pytest.mark.parametrize("name", ["429_seconds", "429_ms", "429_date", "429_together"])
def test_what_a_server_asks_to_wait_holds_for_all_questions(name: str, tmp_path: Path) -> None:
    with FaultServer(choose=lambda asked: name if questioned(asked) == "b" and asked.attempt == 1 else "",
                     answer=answering) as server:
        found = labelling(server, tmp_path, list("abcdef"), concurrency=1 + (name == "429_ms")).run()
    assert len(found.rows) == 6 and not any(call.early for call in server.calls)
    assert server.calls[-1].asked_at - server.calls[0].asked_at > 0.9
    assert sum(call.asked_at - server.calls[0].asked_at > 0.9 for call in server.calls) >= 4


def test_a_slow_answer_is_not_waited_for_beyond_the_limit(tmp_path: Path) -> None:
    """Not for its first byte, nor for one that drips."""
    slow = ("slow_first_byte", "slow_drip")
    with FaultServer(choose=lambda asked: questioned(asked) if asked.attempt == 1 and questioned(asked) in slow else "",
                     answer=answering, stall=9.0) as server:
        began = time.monotonic()
        found = labelling(server, tmp_path, ["first", *slow], timeout=1.0).run()
    assert len(found.rows) == 3 and time.monotonic() - began < 8
    assert found.report.calls["failed"] >= 2 and found.report.tokens_written > 2 * 1024  # they may have been billed


def test_rows_that_are_never_answered_are_listed_and_the_others_are_not(tmp_path: Path) -> None:
    permanent = sorted(of_group(Group.PERMANENT), key="422_quotes_input".__ne__)  # which does not blame the row
    with FaultServer(choose=lambda asked: questioned(asked) if questioned(asked) in permanent else "",
                     answer=answering) as server:
        found = labelling(server, tmp_path, [permanent[0], "a", *permanent[1:], *"bcd"]).run()
    assert [one.line for one in found.left_out] == [1, *range(3, len(permanent) + 2)] and len(found.rows) == 4
    reasons = {one.reason for one in found.left_out}
    assert "no reply: answered 400 context_length_exceeded messages" in reasons
    assert "no reply: answered 400 content_filter prompt" in reasons
    assert found.stopped is None and found.report.takes["logprobs"]


def test_rows_that_are_refused_for_their_own_sake_do_not_end_a_run_that_has_just_begun(tmp_path: Path) -> None:
    with FaultServer(choose=lambda asked: "400_context" if questioned(asked) < "h" else "", answer=answering) as server:
        found = labelling(server, tmp_path, list("abcdefghi")).run()
    assert [row["text"] for row in found.rows] == ["h", "i"] and found.stopped is None and len(found.left_out) == 7


@pytest.mark.parametrize("key", ["sk-0123\n", "sk 0123", "sk-\x7f", "sk-ключ"])
def test_a_key_that_no_header_carries_is_refused_and_not_told(key: str, tmp_path: Path) -> None:
    with FaultServer() as server, pytest.raises(UsageError, match="key holds a blank, a line end") as refused:
        labelling(server, tmp_path, ["a"], key=key)
    assert key.strip() not in f"{refused.value} {refused.value.hint}" and not (tmp_path / "ledger.jsonl").exists()


@pytest.mark.parametrize("name", of_group(Group.FATAL))
def test_what_no_call_can_mend_ends_the_run_at_once(name: str, tmp_path: Path) -> None:
    with FaultServer(choose=lambda asked: name if questioned(asked) > "b" else "", answer=answering) as server:
        found = labelling(server, tmp_path, list("abcdefghijklmnopqrstuvwxyz"), concurrency=4).run()
    assert isinstance(found.stopped, TeacherError) and len(server.calls) <= 9
    assert [row["text"] for row in found.rows] == ["a", "b"] and {one.reason for one in found.left_out} <= {
        "not asked", f"no reply: {found.stopped.message.partition(': ')[2]}"}
    assert not any(secret in str(found.stopped) + (tmp_path / "ledger.jsonl").read_text()
                   for secret in (KEY, KEY[:8], KEY[-4:], "127.0.0.1", "localhost"))
    assert not any(call.host.startswith("localhost") for call in server.calls)  # no redirect was followed


@pytest.mark.parametrize(("name", "given_up"), [
    ("400_logprobs", {"logprobs"}), ("403_logprobs", {"logprobs"}), ("logprobs_ignored", {"logprobs"}),
    ("400_schema", {"response_format"})])
def test_what_an_endpoint_does_not_take_is_found_out_once(name: str, given_up: set[str], tmp_path: Path) -> None:
    """And kept: the next run does not try again."""
    with FaultServer(choose=lambda asked: name, answer=lambda asked, number: '{"queue": "cards"}') as server:
        found = labelling(server, tmp_path, ["a", "b"], schema=SCHEMA).run()
        asked = len(server.calls)
        again = labelling(server, tmp_path, ["a", "b", "c"], schema=SCHEMA).run()
    assert len(found.rows) == 2 and len(again.rows) == 3 and len(server.calls) == asked + 1
    assert {key for key, taken in found.report.takes.items() if not taken} == given_up
    asked_most = [entry["tokens"][0] for entry in map(json.loads, (tmp_path / "ledger.jsonl").read_text().splitlines())
                  if entry["event"] == "asked"]
    form = 100 * ("response_format" in given_up)  # which weighs, too, while it is told
    assert asked_most[0] - asked_most[-1] >= form and (asked_most[0] == asked_most[-1]) == (not form)
    assert found.rows[0] == {"prompt": "a", "completion": '{"queue":"cards"}'}


def test_an_option_that_the_model_refuses_is_named(tmp_path: Path) -> None:
    with FaultServer(choose=lambda asked: "400_temperature") as server:
        found = labelling(server, tmp_path, list("abcdefghij"), temperature=0.5).run()
    assert found.stopped is not None and "answered 400 unsupported_value temperature" in found.stopped.message


@pytest.mark.parametrize("name", ["502_html", "error_in_200", "error_in_200_vllm"])
def test_a_teacher_that_is_down_ends_the_run_and_the_same_run_goes_on(name: str, tmp_path: Path) -> None:
    down = True
    with FaultServer(choose=lambda asked: name if down and questioned(asked) > "b" else "",
                     answer=answering) as server:
        found = labelling(server, tmp_path, list("abcdefghijklmnopqrst"), concurrency=1).run()
        assert found.stopped is not None and len(found.rows) == 2 and len(server.calls) == 2 + 5 * 3
        down = False
        found = labelling(server, tmp_path, list("abcdefghijklmnopqrst"), concurrency=1).run()
    assert found.stopped is None and len(found.rows) == 20 and len(server.calls) == 2 + 5 * 3 + 18
    assert (found.report.tokens_written < 1024) == (name == "502_html")  # a gateway that is down bills nothing


def test_rows_that_fail_now_and_then_do_not_end_the_run(tmp_path: Path) -> None:
    """Five in succession do, and these are not. Nobody is told of retries: structlog would write them to stdout."""
    told: list[Any] = []
    stamina.instrumentation.set_on_retry_hooks([told.append])
    with FaultServer(choose=lambda asked: "500" if questioned(asked) > "x" else "", answer=answering) as server:
        found = labelling(server, tmp_path, ["a", "x1", "x2", "x3", "x4", "b", "x5", "x6", "c"], concurrency=1).run()
    assert found.stopped is None and [row["text"] for row in found.rows] == ["a", "b", "c"] and not told


def test_replies_of_no_use_are_bounded_in_all_runs_together(tmp_path: Path) -> None:
    """One that was cut off is asked for again when the limit is higher, and not before."""
    with FaultServer(choose=lambda asked: {"b": "blank", "c": "length"}.get(questioned(asked), ""),
                     answer=answering) as server:
        for _ in range(2):
            found = labelling(server, tmp_path, list("abc")).run()
            assert [one.reason for one in found.left_out] == ["empty answer", "answer cut off by a limit of tokens"]
            assert len(server.calls) == 1 + 4 + 1
        server.choose = lambda asked: ""
        found = labelling(server, tmp_path, list("abc"), answer_tokens=2048).run()
    assert len(found.rows) == 2 and len(server.calls) == 1 + 4 + 1 + 1


def test_a_teacher_of_no_use_is_stopped_by_the_check_whatever_the_limit(tmp_path: Path) -> None:
    with FaultServer(choose=lambda asked: "length_reasoned", answer=answering) as server:
        with pytest.raises(CheckFailed, match="no answer that can be used to 2 rows: answer cut off by a limit"):
            labelling(server, tmp_path, list("abcdef"), check=2).run()
        assert len(server.calls) == 2 * 2


def test_log_probabilities_are_judged_by_the_first_answer_in_words(tmp_path: Path) -> None:
    with FaultServer(choose=lambda asked: "refusal" if asked.attempt == 1 else "logprobs_ignored" if
                     questioned(asked) == "b" else "", answer=answering) as server:
        assert labelling(server, tmp_path, ["a", "b"], concurrency=1).run().report.takes["logprobs"]
        assert len(server.calls) == 4


def killed(work: Callable[[], object], when: Callable[[], bool]) -> None:
    """Do `work` in a forked child, and kill it `when` it is time."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            work()
        finally:
            os._exit(0)
    while not when():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it came to its end before it was killed"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_400_rows_of_a_faulty_teacher_survive_three_kills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """None is lost, none is there twice, and no more is paid for twice than was in flight."""
    texts = [f"row {number}" for number in range(400)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    stamina.set_testing(True, attempts=8)
    out, ledger = tmp_path / "labelled.jsonl", tmp_path / "labelled.ledger.jsonl"
    monkeypatch.setenv("EDGESTILL_TEACHER_KEY", KEY)
    with FaultServer(seed=3, rate=0.12, faults=PASSING, answer=answering, key=KEY, wait=0, latency=0.002) as server:
        command = ["data", "label", str(tmp_path / "rows.jsonl"), "--teacher-url", server.url, "--teacher-model", "big",
                   "--yes", "--check", "0", "-o", str(out), *(f"--label={label}" for label in LABELS)]
        for calls in (90, 210, 330):
            killed(lambda: main.call(command), lambda calls=calls: len(server.calls) >= calls)  # type: ignore[misc]
            assert not out.exists()
        lost = in_flight(ledger)
        assert main.call(command) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == [{"text": text, "label": meant(text)} for text in texts]
    assert sum(bool(call.fault) for call in server.calls) > 0.1 * len(server.calls)
    answers = [json.loads(line)["key"] for line in ledger.read_text().splitlines() if '"answered"' in line]
    assert len(answers) == len(set(answers)) == 400
    paid = [call.content for call in server.calls if call.usable]
    assert len(paid) - len(set(paid)) <= lost <= 3 * 8
    assert f"and {lost} were in flight when an earlier run ended" in capsys.readouterr().out


def in_flight(ledger: Path) -> int:
    """Calls that a ledger says were begun and not ended."""
    entries = [json.loads(line) for line in ledger.read_text().splitlines(keepends=True) if line.endswith("\n")]
    ended = {entry["call"] for entry in entries if entry["event"] not in ("asked", "settled")}
    return sum(entry["event"] == "asked" and entry["call"] not in ended for entry in entries)


def test_a_ledger_has_one_writer(tmp_path: Path) -> None:
    from edgestill.distill.labelling.ledger import Ledger

    with Ledger(tmp_path / "ledger.jsonl"), pytest.raises(EdgestillError, match="another process"):
        Ledger(tmp_path / "ledger.jsonl")
