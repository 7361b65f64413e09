"""Every record of a log is a row, is joined to one, or is counted by name with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError
from edgestill.runtime.data.calls.log import read_logs
from hypothesis import given, settings
from hypothesis import strategies as st

from .. import log_records as logs
from ..log_records import CALL, TOOL

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def shows(part: Any) -> logs.Record:
    return logs.pair(logs.asks() | {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]})


def chunk(**delta: Any) -> logs.Record:
    return {"id": "c", "object": "chat.completion.chunk", "model": "big-1", "choices": [{"index": 0, "delta": delta}]}


def hears(**request: Any) -> logs.Record:
    return logs.pair(logs.responses_asks(**request), logs.responses_says())


def gives(*output: logs.Record, **more: Any) -> logs.Record:
    return logs.pair(logs.responses_asks(), logs.responses_says(*output, **more))


TWO = logs.says() | {"choices": [*logs.says()["choices"] * 2]}
WORDS = logs.responses_says()["output"][1]
STREAM = "a piece of a stream, not the whole answer"
ODD = [
    # calls that failed
    (logs.pair(status_code=429), "failed call (HTTP 429)"),
    (logs.pair() | {"response": {"status_code": 500, "body": "sk-proj-secret"}}, "failed call (HTTP 500)"),
    (logs.pair(error={"code": "context_length_exceeded"}), "failed call (context_length_exceeded)"),
    (logs.pair(error="Rate limit reached for user-4711"), "failed call"),
    (logs.pair(None, {"error": {"message": "user-4711", "code": "a code with user-4711, which is none"}}),
     "failed call"),
    (logs.litellm(status="failure", response=None, error_information={"error_code": "429"}), "failed call (429)"),
    (logs.litellm(status="failure", error_information={"error_class": "Timeout"}), "failed call (Timeout)"),
    (logs.langfuse(level="ERROR", status_message="user-4711", output=""), "failed call"),
    (gives(status="failed", error={"code": "server_error", "message": "m"}), "failed call (server_error)"),
    # answers that are not to be learned from
    (logs.pair(None, logs.says('{"do": "di', "length")), "answer cut off by a limit of tokens"),
    (gives(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
     "answer cut off by a limit of tokens"),
    (logs.pair(None, logs.says("", "content_filter")), "stopped by a content filter"),
    (gives(status="incomplete", incomplete_details={"reason": "content_filter"}), "stopped by a content filter"),
    (gives(status="incomplete"), "an answer that ended for another reason than its own end"),
    (gives(status="in_progress"), "not finished when it was logged"),
    (logs.pair(None, logs.says(finish=["stop"])), "an answer that ended for another reason than its own end"),
    (logs.pair(None, logs.says(None, refusal="I cannot")), "the model refused to answer"),
    (gives({**WORDS, "content": [{"type": "refusal", "refusal": "I cannot"}]}), "the model refused to answer"),
    (logs.pair(None, logs.says("  ")), "empty answer"),
    (logs.pair(None, logs.says(None)), "empty answer"),
    (gives({"type": "reasoning", "summary": []}), "empty answer"),
    (logs.pair(None, TWO), "several choices: which one was used is not known"),
    (logs.pair(None, logs.says() | {"choices": []}), "no answer in the log"),
    (logs.langfuse(output=""), "no answer in the log"),
    (logs.asks(), "no answer in the log"),
    (gives(WORDS, WORDS), "several messages in one answer"),
    (logs.pair(None, logs.says(audio={"data": "AAAA"})), "audio in a message"),
    # pieces of streams
    (logs.pair(None, chunk(content="d")), STREAM), (chunk(content="d"), STREAM),
    (logs.pair(None, [chunk(content="d")]), STREAM), (logs.pair(None, "data: {}\n\ndata: [DONE]"), STREAM),
    (logs.pair(None, {"type": "response.output_text.delta", "delta": "d"}), STREAM),
    # questions that no row can hold
    (shows(IMAGE), "an image in a message"), (shows({"type": "input_audio"}), "audio in a message"),
    (shows({"type": "file"}), "a file in a message"), (shows({"type": "gif"}), "a part that is no text in a message"),
    (hears(input=[{"role": "user", "content": [{"type": "input_image"}]}]), "an image in a message"),
    (logs.pair(logs.asks(tools=[TOOL, {"type": "custom", "custom": {"name": "c"}}])), "a tool that is no function"),
    (hears(tools=[{"type": "web_search"}]), "a tool that the provider runs"),
    (gives({"type": "web_search_call", "id": "w"}, WORDS), "a tool that the provider runs"),
    (hears(input=[{"type": "item_reference", "id": "i"}]), "the question is not whole in the log (item_reference)"),
    (hears(input=[{"type": "compaction"}]), "an item that is no message"),
    (logs.pair(None, logs.says(None, tool_calls=[{"type": "custom", "custom": {}}])),
     "a call that is no call of a function"),
    (logs.pair(None, logs.says(None, tool_calls=[{**CALL, "function": {"name": "dim", "arguments": "{"}}])),
     "messages[…].tool_calls: the arguments of …: broken JSON at character … of its text: Expecting property name "
     "enclosed in double quotes"),
    (logs.pair(logs.asks() | {"messages": "dim it"}), "a record of another form than its API has"),
    (logs.pair(logs.asks() | {"messages": [{"role": "system", "content": "x"}]}),
     "the conversation has no user message"),
    (logs.pair(logs.asks() | {"messages": [{"role": "robot", "content": "x"}]}), "messages[…].role is …"),
    (logs.says(), "no messages in what was asked"),
    # other records
    (logs.litellm(call_type="aembedding"), "no chat: a call of another type"),
    (logs.litellm(messages=[{"role": "user", "content": "redacted-by-litellm"}]), "texts redacted by LiteLLM"),
    (logs.langfuse(answered=[{"role": "assistant", "content": "a"}] * 2),
     "several choices: which one was used is not known"),
    (logs.langfuse(type="SPAN"), "no call of a model: an observation of the type SPAN"),
    (logs.langfuse({"city": "Rome"}), "no messages in what was asked"),
    (logs.pair({"model": "e", "input": "x"}, {"object": "list", "data": []}),
     "no chat: a text completion, embedding or the like"),
    ({"model": "old", "prompt": "x", "response": {"object": "text_completion", "choices": [{"text": "y"}]}},
     "no chat: a text completion, embedding or the like"),
    ({"model": "old", "prompt": "x", "response": logs.says()}, "no chat: a text completion, embedding or the like"),
    ({"prompt": "x", "completion": "y"}, "a record of no kind known here"),
    ({"level": "info", "msg": "started"}, "a record of no kind known here"),
    ("{no json", "broken JSON at column …: Expecting property name enclosed in double quotes"),
    ('{"request": NaN}', "NaN is not JSON"), ("[1]", "a JSON object was expected, this is list"),
]
ODD += [(hears(**{name: value}), f"the question is not whole in the log ({name})")
        for name, value in (("previous_response_id", "r"), ("conversation", "c"), ("conversation", {"id": "c"}),
                            ("prompt", {"id": "p"}))]


def test_odd_records_are_named_with_their_line_and_quote_nobody(tmp_path: Path) -> None:
    path = logs.write(tmp_path / "calls.jsonl", [logs.pair(), *(record for record, _ in ODD)])
    log = read_logs([path])
    found = {place.line: reason for reason, places in log.left_out.items() for place in places}
    for line, (record, reason) in enumerate(ODD, 2):
        assert found.get(line) == reason, record
    assert len(log.calls) == 1 and log.records == len(ODD) + 1
    assert not any(secret in " ".join(log.left_out) for secret in logs.SECRETS)


def test_an_answer_of_a_batch_that_failed(tmp_path: Path) -> None:
    request, answer = logs.batch("a")
    answer["response"]["status_code"] = 400
    records = [logs.pair(), request, answer]
    assert list(read_logs([logs.write(tmp_path / "calls.jsonl", records)]).left_out) == ["failed call (HTTP 400)"]


def test_what_failed_calls_cost_counts_too(tmp_path: Path) -> None:
    records = [logs.litellm(), logs.litellm(None, logs.says("{", "length")), logs.pair(None, logs.says("{", "length"))]
    log = read_logs([logs.write(tmp_path / "calls.jsonl", records)])
    assert (log.tokens, log.metered, log.cost, log.priced) == ((60, 15), 3, 0.025, 2)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                    | st.text(max_size=5) | st.sampled_from(["message", "function_call", "assistant", "user", "{}"]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                        ["role", "type", "content", "text", "tool_calls", "choices", "message", "input", "output"]),
                        inner, max_size=4), max_leaves=8)
GOOD = [logs.pair(), logs.pair(logs.responses_asks(), logs.responses_says()), logs.litellm(), logs.langfuse(),
        *logs.batch("a"), *logs.batch("b")]


def spoiled(record: Any, path: list[int], value: Any) -> Any:
    """The record with a value somewhere inside it replaced."""
    if not path or not isinstance(record, (dict, list)) or not record:
        return value
    keys = list(record) if isinstance(record, dict) else list(range(len(record)))
    key = keys[path[0] % len(keys)]
    copy = dict(record) if isinstance(record, dict) else list(record)
    copy[key] = spoiled(record[key], path[1:], value)  # type: ignore[call-overload]
    return copy


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(GOOD), st.lists(st.integers(0, 20), min_size=1, max_size=7), JSON),
                max_size=6))
def test_the_counts_add_up_whatever_the_records_are(tmp_path_factory: pytest.TempPathFactory, changes: Any) -> None:
    records = [spoiled(*change) for change in changes]
    path = logs.write(tmp_path_factory.mktemp("logs") / "calls.jsonl", [logs.pair(), *map(json.dumps, records)])
    log = read_logs([path])
    left = [place.line for places in log.left_out.values() for place in places]
    assert log.records == len(log.calls) + log.joined + len(left) and len(set(left)) == len(left)
    assert {call.place.line for call in log.calls}.isdisjoint(left)


def test_a_file_that_is_no_log_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "calls.log").write_text("x")
    with pytest.raises(DataError, match="not a format known here"):
        read_logs([tmp_path / "calls.log"])
