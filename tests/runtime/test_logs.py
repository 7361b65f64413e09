"""Records of every kind of log become the rows that they should, and nothing but what was asked and answered."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import kinds
from edgestill.models.errors import DataError
from edgestill.runtime.data.calls.exchange import number
from edgestill.runtime.data.calls.log import LOGS, Log, read_logs
from edgestill.runtime.data.reader import read_rows

from .. import log_records as logs
from ..log_records import CALL, SCHEMA, SECRETS, SYSTEM, TOOL

ANSWER = {"role": "assistant", "content": '{"do": "dim"}'}
ROW = {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "dim the lamp"}, ANSWER]}


def of(path: Path, *records: Any) -> Log:
    return read_logs([logs.write(path / "calls.jsonl", records)])


def reasons(log: Log) -> dict[str, list[int]]:
    return {reason: [place.line for place in places] for reason, places in log.left_out.items()}


def camel(name: str) -> str:
    first, *more = name.split("_")
    return first + "".join(word.capitalize() for word in more)


GOLDEN = {
    "openai": logs.pair(logs.asks(response_format=logs.form())),
    "openai bodies": {"request": logs.asks(response_format=logs.form()), "response": logs.says(), "status_code": 200},
    "openai text": {"request_body": json.dumps(logs.asks(response_format=logs.form())),
                    "response_body": json.dumps(logs.says())},
    "openai flat": {**logs.asks(response_format=logs.form()), "response": logs.says()},
    "openai responses": logs.pair(logs.responses_asks(), logs.responses_says()),
    "openai items": logs.pair(
        logs.responses_asks([{"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "dim the lamp"}]}]), logs.responses_says()),
    "litellm": logs.litellm(logs.asks(response_format=logs.form())),
    "litellm callback": {"standard_logging_object": logs.litellm(logs.asks(response_format=logs.form()))},
    "litellm responses": logs.litellm(logs.responses_asks(), logs.responses_says(), call_type="aresponses"),
    "litellm items": logs.litellm(logs.responses_asks([{"role": "user", "content": "dim the lamp"}]),
                                  logs.responses_says(), call_type="responses"),
    "langfuse": logs.langfuse(),
    "langfuse table": {camel(name): value for name, value in logs.langfuse().items()} | {
        "input": logs.asks()["messages"], "output": ANSWER},
    "langfuse answer alone": logs.langfuse(answered='{"do": "dim"}'),
    "langfuse answer as an object": {camel(name): value for name, value in logs.langfuse().items()} | {
        "input": logs.asks()["messages"], "output": {"do": "dim"}},
    "langfuse responses": logs.langfuse({"instructions": SYSTEM, "input": "dim the lamp"},
                                        logs.responses_says()["output"]),
    "langfuse response": logs.langfuse(answered=logs.says()),
    "langfuse item": logs.langfuse(answered=logs.responses_says()["output"][1]),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_record_becomes_its_row(name: str, tmp_path: Path) -> None:
    log = of(tmp_path, GOLDEN[name])
    [call] = log.calls
    expected = json.loads(json.dumps(ROW))
    if name == "langfuse answer as an object":
        expected["messages"][-1]["content"] = '{"do":"dim"}'
    assert call.record["messages"] == expected["messages"] and not call.record.get("tools")
    assert call.schema == SCHEMA
    assert (log.records, log.tokens, log.metered, dict(log.kinds)) == (1, (20, 5), 1, {name.split()[0]: 1})
    priced = name.startswith(("litellm", "langfuse"))
    assert (log.priced, log.cost) == ((1, 0.0125) if priced else (0, 0.0))


@pytest.mark.parametrize("name", GOLDEN)
def test_nothing_but_the_conversation_is_taken_along(name: str, tmp_path: Path) -> None:
    [call] = of(tmp_path, GOLDEN[name]).calls
    made = json.dumps(call.record)
    assert any(secret in json.dumps(GOLDEN[name]) for secret in SECRETS)
    assert [secret for secret in SECRETS if secret in made] == []


def test_every_kind_has_a_golden_record() -> None:
    assert {name.split()[0] for name in GOLDEN} | {"batch"} == set(kinds.names(LOGS))


def test_a_batch_is_joined_by_its_ids_whatever_the_order(tmp_path: Path) -> None:
    pairs = [logs.batch(f"r-{place}", logs.asks(f"question {place}"), logs.says(f"answer {place}"))
             for place in range(3)]
    asked = logs.write(tmp_path / "requests.jsonl", [request for request, _ in pairs])
    said = logs.write(tmp_path / "answers.jsonl", [answer for _, answer in reversed(pairs)])
    error = logs.batch("r-3")[1] | {"response": None, "error": {"code": "batch_expired", "message": "user-4711"}}
    late = logs.write(tmp_path / "errors.jsonl", [error, logs.batch("r-9")[1]])
    with asked.open("a") as file:
        file.write(json.dumps(logs.batch("r-3")[0]) + "\n" + json.dumps(logs.batch("r-4")[0]) + "\n")
    log = read_logs([said, late, asked])
    assert [(call.row.question, call.row.answer) for call in log.calls] == [
        (f"question {place}", f"answer {place}") for place in (2, 1, 0)]
    assert (log.records, log.joined) == (10, 4)
    assert {reason: list(map(str, places)) for reason, places in log.left_out.items()} == {
        "failed call (batch_expired)": ["errors.jsonl:1"], "an answer without its request": ["errors.jsonl:2"],
        "no answer in the log": ["requests.jsonl:5"]}
    assert not any(secret in json.dumps([call.record for call in log.calls]) for secret in SECRETS)


def test_ids_that_stand_twice_join_nothing(tmp_path: Path) -> None:
    request, answer = logs.batch("same")
    other, said = logs.batch("other")
    log = of(tmp_path, request, request, answer, other, said, said, *logs.batch("good"))
    assert len(log.calls) == 1 and log.joined == 1 and log.records == 8
    assert reasons(log) == {"its id stands more than once among the requests": [3, 1, 2],
                            "its id stands more than once among the answers": [5, 6, 4]}


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".json", ".csv"])
def test_files_of_every_format(suffix: str, tmp_path: Path) -> None:
    records = [logs.langfuse(), logs.langfuse(type="SPAN")]
    path = tmp_path / f"calls{suffix}"
    if suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    elif suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows([{name: logs.text(value) for name, value in record.items()} for record in records])
    log = read_logs([path])
    assert [call.record["messages"] for call in log.calls] == [ROW["messages"]] and log.calls[0].schema == SCHEMA
    assert log.tokens == (40, 10) and log.cost == 0.025
    assert list(log.left_out) == ["no call of a model: an observation of the type SPAN"]


def test_parquet_as_langfuse_writes_it(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    record = {**logs.langfuse(), "metadata": json.dumps(logs.langfuse()["metadata"])}
    for name in ("tool_definitions", "tool_calls", "tags"):
        del record[name]
    parquet.write_table(pyarrow.Table.from_pylist([record]), tmp_path / "calls.parquet")
    [call] = read_logs([tmp_path / "calls.parquet"]).calls
    assert call.record["messages"] == ROW["messages"] and call.schema == SCHEMA


@pytest.mark.parametrize("answer", [
    {"content": "a title"}, {"role": "admin", "content": "x"}, {"output": [1]}, {"choices": ["a", "b"]},
    {"type": "invoice"}, [{"content": "a"}, {"content": "b"}], [1, 2]])
@pytest.mark.parametrize("as_text", [True, False])
def test_structured_answers_that_look_like_messages_stay_answers(answer: Any, as_text: bool, tmp_path: Path) -> None:
    [call] = of(tmp_path, logs.langfuse(output=json.dumps(answer) if as_text else answer)).calls
    assert json.loads(call.row.answer) == answer


SAID = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "call_1", "type": "function", "function": {"name": "dim", "arguments": "{\"to\": 3}"}}]}
ITEM = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "dim", "arguments": "{\"to\": 3}",
        "status": "completed"}
FLAT = {"type": "function", "strict": True, **TOOL["function"]}
CALLING = {
    "chat": logs.pair(logs.asks(tools=[TOOL]), logs.says(None, "tool_calls", tool_calls=[CALL])),
    "older": logs.pair(logs.asks(functions=[TOOL["function"]]), logs.says(None, "function_call", function_call={
        "name": "dim", "arguments": "{\"to\": 3}"})),
    "responses": logs.pair(logs.responses_asks(tools=[FLAT]), logs.responses_says(ITEM)),
    "litellm": logs.litellm(logs.asks(tools=[TOOL]), logs.says(None, "tool_calls", tool_calls=[CALL])),
    "langfuse": logs.langfuse({"tools": [TOOL], "messages": logs.asks()["messages"]}, SAID),
    "langfuse columns": logs.langfuse(answered=SAID, tool_definitions={"dim": json.dumps(
        {"description": "", "parameters": TOOL["function"]["parameters"]})}),
}


@pytest.mark.parametrize("name", CALLING)
def test_calls_stay_calls(name: str, tmp_path: Path) -> None:
    [call] = of(tmp_path, CALLING[name]).calls
    last = call.row.messages[-1]
    assert [made["function"] for made in last["tool_calls"]] == [{"name": "dim", "arguments": {"to": 3}}]
    assert [tool["function"]["name"] for tool in call.row.tools] == ["dim"]
    assert call.row.tools[0]["function"]["parameters"] == TOOL["function"]["parameters"]
    assert "strict" not in json.dumps(call.record)
    assert (last["tool_calls"][0].get("id"), call.row.tools[0]["function"]["description"]) == (
        None if name == "older" else "call_1", "" if name == "langfuse columns" else "Dims.")


@pytest.mark.parametrize("place", ["metadata", "model_parameters"])
def test_langfuse_keeps_a_format_in_either_place_also_as_a_schema_alone(place: str, tmp_path: Path) -> None:
    record = logs.langfuse(metadata={}) | {place: {"response_format": SCHEMA}}
    assert of(tmp_path, record).calls[0].schema == SCHEMA


def test_messages_of_chats_stay_apart(tmp_path: Path) -> None:
    request = logs.asks()
    request["messages"][1:1] = [{"role": "assistant", "content": "a"}, {"role": "assistant", "tool_calls": [CALL]}]
    assert len(of(tmp_path, logs.pair(request)).calls[0].row.messages) == 5


def test_parts_of_text_are_joined_as_rows_are(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "dim", "cache_control": {}}, {"type": "text", "text": "the lamp"}]
    [call] = of(tmp_path, logs.pair(logs.asks(parts))).calls  # type: ignore[arg-type]
    assert call.row.question == "dim\nthe lamp"


@pytest.mark.parametrize(("usage", "tokens"), [
    ({"prompt_tokens": 3, "completion_tokens": 0}, (3, 0)), ({"output_tokens": 4}, (0, 4)), (None, (7, 8)),
    ({"prompt_tokens": "3"}, (7, 8))])
def test_the_responses_own_usage_comes_first(usage: Any, tokens: tuple[int, int], tmp_path: Path) -> None:
    log = of(tmp_path, logs.litellm(None, logs.says() | {"usage": usage}, prompt_tokens=7, completion_tokens=8))
    assert log.tokens == tokens


@pytest.mark.parametrize(("value", "price"), [
    (True, None), ("inf", None), (None, None), ([], None), ("0.5", 0.5), (2, 2.0), (10**400, None)])
def test_prices_are_numbers(value: Any, price: float | None) -> None:
    assert number(value) == price


def test_what_was_said_before_is_read_and_not_learned(tmp_path: Path) -> None:
    before = [{"role": "user", "content": "dim it", "name": "Ada"},
              {"role": "assistant", "content": None, "tool_calls": [CALL]},
              {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "done"}]},
              {"role": "assistant", "content": "It is dim."}]
    items = [{"role": "user", "content": "dim it"}, {"type": "reasoning", "id": "rs", "summary": []}, ITEM,
             {"type": "function_call_output", "call_id": "call_1", "output": "done"},
             {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is dim."}]}]
    chat = logs.asks("thanks", system="")
    chat["messages"] = [*before, *chat["messages"]]
    asked = logs.responses_asks([*items, {"role": "user", "content": "thanks"}], instructions=None)
    log = of(tmp_path, logs.pair(chat), logs.pair(asked, logs.responses_says()))
    for call in log.calls:
        assert [one["role"] for one in call.row.messages] == ["user", "assistant", "tool", "assistant", "user",
                                                              "assistant"]
        assert call.row.turns == (5,) and call.row.messages[2]["content"] == "done"
    assert "Ada" not in json.dumps([call.record for call in log.calls]) and log.names == 1


def test_thoughts_are_kept_and_summaries_of_them_are_not(tmp_path: Path) -> None:
    thoughts = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "a summary"}],
                "content": [{"type": "reasoning_text", "text": "dim it, then"}]}
    message = logs.responses_says()["output"][1]
    log = of(tmp_path, logs.pair(None, logs.says(reasoning_content="dim it, then")),
             logs.pair(logs.responses_asks(), logs.responses_says(thoughts, message)), GOLDEN["openai responses"])
    assert [call.row.reasoning for call in log.calls] == ["dim it, then", "dim it, then", ""]
    assert "a summary" not in json.dumps([call.record for call in log.calls])


def test_the_rows_are_read_by_our_own_reader(tmp_path: Path) -> None:
    records = [*GOLDEN.values(), *CALLING.values()]
    log = of(tmp_path, *records)
    assert len(log.calls) == len(records)
    rows = read_rows(logs.write(tmp_path / "rows.jsonl", [call.record for call in log.calls]))
    assert [row.messages for row in rows] == [call.row.messages for call in log.calls]


def test_a_log_without_a_usable_call_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no call in it that could be learned from: 1 of 1: answer cut off"):
        of(tmp_path, logs.pair(None, logs.says("{", "length")))
    with pytest.raises(DataError, match="it is empty"):
        of(tmp_path)
