"""What all calls of a log have in common, what repeats, and what looks personal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.runtime.data import personal
from edgestill.runtime.data.calls.common import Common, common, rows
from edgestill.runtime.data.calls.log import Log, read_logs
from edgestill.runtime.data.calls.report import LogReport, report

from .. import log_records as logs
from ..log_records import CALL, SYSTEM, TOOL

NAMES = ["billing", "delivery", "billing", "other"]
CHOICE = {"type": "object", "properties": {"queue": {"type": "string", "enum": NAMES}}, "required": ["queue"],
          "additionalProperties": False}


def of(path: Path, *records: Any) -> tuple[Log, Common]:
    log = read_logs([logs.write(path / "calls.jsonl", records)])
    return log, common(log.calls)


def picks(question: str, name: str, schema: Any = CHOICE, **request: Any) -> logs.Record:
    return logs.pair(logs.asks(question, response_format=logs.form(schema), **request),
                     logs.says(json.dumps({"queue": name})))


def reported(log: Log, labels: bool = False) -> LogReport:
    return report(log, common(log.calls), labels)


@pytest.mark.parametrize(("systems", "common_one", "count"), [
    ((SYSTEM, SYSTEM), SYSTEM, 1), ((SYSTEM, "Another."), "", 2), ((SYSTEM, ""), "", 2), (("", ""), "", 1)])
def test_a_system_prompt_leaves_the_rows_where_all_have_it(systems: tuple[str, ...], common_one: str, count: int,
                                                            tmp_path: Path) -> None:
    log, found = of(tmp_path, *(logs.pair(logs.asks(f"question {place}", system))
                                for place, system in enumerate(systems)))
    assert (found.system, found.systems) == (common_one, count)
    for row, system in zip(rows(log.calls, found, False), systems, strict=True):
        left = [message["content"] for message in row["messages"] if message["role"] == "system"]
        assert left == ([system] if system and not common_one else [])
        assert [message["role"] for message in row["messages"]][-2:] == ["user", "assistant"]


def test_a_second_system_message_keeps_both_in_the_rows(tmp_path: Path) -> None:
    request = logs.asks()
    request["messages"].insert(1, {"role": "developer", "content": "Be brief."})
    log, found = of(tmp_path, logs.pair(request), logs.pair(request))
    assert found.system == "" and len(rows(log.calls, found, False)[0]["messages"]) == 4


def test_a_developer_message_is_the_system_prompt_too(tmp_path: Path) -> None:
    request = logs.asks(system="") | {"messages": [{"role": "developer", "content": SYSTEM},
                                                   {"role": "user", "content": "x"}]}
    assert of(tmp_path, logs.pair(request))[1].system == SYSTEM


def test_a_schema_is_the_tasks_where_all_calls_have_it(tmp_path: Path) -> None:
    formed, free = logs.pair(logs.asks(response_format=logs.form())), logs.pair()
    assert of(tmp_path, formed, formed)[1].schema == logs.SCHEMA
    found = of(tmp_path, formed, free)[1]
    assert (found.schema, found.schemas) == (None, 2)
    loose = logs.pair(logs.asks(response_format={"type": "json_object"}))
    assert of(tmp_path, loose)[1].schema is None


def test_a_schema_is_the_same_in_any_order_of_its_keys(tmp_path: Path) -> None:
    turned = dict(reversed(logs.SCHEMA.items()))
    records = [logs.pair(logs.asks(response_format=logs.form(schema))) for schema in (logs.SCHEMA, turned)]
    assert of(tmp_path, *records)[1].schemas == 1


def test_answers_out_of_a_list_are_labels(tmp_path: Path) -> None:
    log, found = of(tmp_path, picks("late again", "delivery"), picks("paid twice", "billing"))
    assert found.labels == ("billing", "delivery") and found.unseen == ("other",)
    assert rows(log.calls, found, True) == [{"text": "late again", "label": "delivery"},
                                            {"text": "paid twice", "label": "billing"}]
    lines = "\n".join(reported(log, True).lines())
    assert "labels: 2, and never answered: other" in lines
    assert "labels" not in "\n".join(reported(log).lines())


TWO_KEYS = {"type": "object", "properties": {**CHOICE["properties"], "why": {"type": "string"}}}  # type: ignore[dict-item]
UNCLEAR = {
    "more in the answer": [picks("a", "billing"), logs.pair(
        logs.asks("b", response_format=logs.form(CHOICE)), logs.says('{"queue": "other", "why": "x"}'))],
    "one label": [picks("a", "billing"), picks("b", "billing")],
    "not in the list": [picks("a", "billing"), picks("b", "refunds")],
    "two properties": [picks("a", "billing", TWO_KEYS), picks("b", "other", TWO_KEYS)],
    "no list": [picks("a", "billing", logs.SCHEMA), picks("b", "other", logs.SCHEMA)],
    "numbers": [picks(name, name, {"properties": {"queue": {"enum": ["billing", "other", 3]}}})
                for name in ("billing", "other")],
    "no schema": [logs.pair(logs.asks(name), logs.says(json.dumps({"queue": name}))) for name in NAMES],
    "tools": [picks(name, name, tools=[TOOL]) for name in NAMES],
    "other prompts": [picks(name, name, system=name) for name in NAMES],
    "no JSON": [picks("a", "billing"),
                logs.pair(logs.asks("b", response_format=logs.form(CHOICE)), logs.says("other"))],
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_answers_that_are_not_clearly_labels_stay_conversations(name: str, tmp_path: Path) -> None:
    assert of(tmp_path, *UNCLEAR[name])[1].labels == ()


def test_a_conversation_of_several_turns_is_no_text_to_label(tmp_path: Path) -> None:
    longer = picks("a", "billing")
    longer["request"]["body"]["messages"] += [{"role": "assistant", "content": "?"}, {"role": "user", "content": "!"}]
    assert of(tmp_path, longer, picks("b", "other"))[1].labels == ()


def test_questions_that_come_again_are_counted(tmp_path: Path) -> None:
    log, _ = of(tmp_path, *(logs.pair(logs.asks(question), logs.says(said)) for question, said in [
        ("a", "1"), ("A ", "1"), ("a", "2"), ("b", "1"), ("b", " 1"), ("c", "1")]))
    found = reported(log)
    assert (found.rows, found.repeated, found.contradicted) == (6, 2, 1)
    assert "questions: 1 answered in different ways, 2 rows repeat" in "\n".join(found.lines())


def test_the_report_says_what_became_of_every_record(tmp_path: Path) -> None:
    calling = logs.litellm(logs.asks(tools=[TOOL]), logs.says(None, "tool_calls", tool_calls=[CALL]))
    cut = logs.litellm(None, logs.says("{", "length"))
    log, _ = of(tmp_path, calling, *[cut] * 4, *logs.batch("r"), {"msg": "started"})
    found = reported(log)
    assert found.records == found.rows + found.joined + sum(found.left_out.values()) == 8
    assert json.loads(json.dumps(found.to_json()))["left_out"] == {
        "answer cut off by a limit of tokens": 4, "a record of no kind known here": 1}
    text = "\n".join(found.lines())
    assert "8 records (batch 2, litellm 5): 2 rows, 1 requests joined to their answers, 5 left out" in text
    assert "4 answer cut off by a limit of tokens: calls.jsonl:2, calls.jsonl:3, calls.jsonl:4 …" in text
    assert "1 a record of no kind known here: calls.jsonl:8\n" in text
    assert "tokens: 120 read and 30 written, as 6 calls say" in text
    assert "cost: 0.06 US dollars, as 5 calls say" in text and "tools: 1 answers call some" in text
    assert "response formats" not in text and "system prompts" not in text
    plain = "\n".join(reported(of(tmp_path, logs.pair(None, logs.says() | {"usage": None}))[0]).lines())
    assert "tokens: the log does not say" in plain and "cost: the log does not say" in plain


def test_different_prompts_and_formats_are_told(tmp_path: Path) -> None:
    log, _ = of(tmp_path, logs.pair(logs.asks("a", "One.", response_format=logs.form())),
                logs.pair(logs.asks("b", "Two.") | {"messages": [{"role": "user", "content": "b", "name": "Ada"}]}))
    text = "\n".join(reported(log).lines())
    assert "system prompts: 2 different ones stay in the rows" in text and "response formats: 2 different ones" in text
    assert "left out of the rows: 1 names of participants" in text


def test_personal_data_in_calls_counts_too(tmp_path: Path) -> None:
    call = CALL | {"function": {"name": "send", "arguments": '{"to": "ada@example.org"}'}}
    log, _ = of(tmp_path, logs.pair(None, logs.says(None, "tool_calls", tool_calls=[call])))
    assert reported(log).personal["e-mail addresses"] == 1


def test_personal_data_is_counted_and_stays(tmp_path: Path) -> None:
    log, found = of(tmp_path, logs.pair(logs.asks("write to ada@example.org or +49 30 1234567")),
                    logs.pair(logs.asks("my card is 4111 1111 1111 1111")), logs.pair(logs.asks("dim the lamp")))
    report = reported(log)
    assert report.personal == {"e-mail addresses": 1, "phone numbers": 1, "card numbers": 1,
                               "bank accounts (IBAN)": 0, "API keys": 0}
    assert report.lines()[-1] == ("personal data: 1 e-mail addresses, 1 phone numbers, 1 card numbers in 2 rows; they "
                                  "stay as they are")
    assert "ada@example.org" not in "\n".join(report.lines())
    assert "ada@example.org" in json.dumps(rows(log.calls, found, False))


@pytest.mark.parametrize(("text", "kinds"), [
    ("a.b+c@mail.example.com, x@y", ["e-mail addresses"]), ("@ada mentions 3@4", []),
    ("4111-1111-1111-1111", ["card numbers"]), ("4111 1111 1111 1112", []), ("order 1234567890123456789", []),
    ("5500005555555559", ["card numbers"]),
    ("DE89 3704 0044 0532 0130 00", ["bank accounts (IBAN)"]), ("GB82WEST12345698765432", ["bank accounts (IBAN)"]),
    ("NO9386011117947.", ["bank accounts (IBAN)"]), ("DE88370400440532013000", []), ("AB12 CDEF", []),
    ("+1 (555) 123-4567", ["phone numbers"]), ("555-123-4567", ["phone numbers"]),
    ("0049 30 1234567", ["phone numbers"]), ("030 1234567", ["phone numbers"]),
    ("on 2026-11-30 at 09:15:00", []), ("version 3.11.4, 1024 x 768, 100 000", []),
    ("key sk-abcdefghijklmnopqrstuvwx", ["API keys"]), ("ask-me-anything-about-cooking", []), ("", [])])
def test_what_looks_personal(text: str, kinds: list[str]) -> None:
    assert list(personal.kinds_in([text])) == kinds


def test_check_digits_of_cards() -> None:
    assert personal.luhn("79927398713") and not personal.luhn("79927398710")
