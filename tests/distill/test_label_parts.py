"""The parts of a labelling: replies, votes, the ledger, the budget, prices, what a question's key depends on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from edgestill.distill.labelling import Settings
from edgestill.distill.labelling.asking import Asker
from edgestill.distill.labelling.budget import Budget, BudgetSpent
from edgestill.distill.labelling.endpoint import Failure, Takes, _seconds
from edgestill.distill.labelling.items import read_items
from edgestill.distill.labelling.ledger import ANSWERED, FAILED, UNUSABLE, Ledger
from edgestill.distill.labelling.plan import plan_of
from edgestill.distill.labelling.prices import price_of
from edgestill.distill.labelling.prompt import form_bytes, key_of, prompt_of
from edgestill.distill.labelling.reply import Reader, Reply, agreement, elected, same, tokens_of
from edgestill.models.errors import DataError
from edgestill.runtime.data.calls.exchange import Unusable
from edgestill.runtime.data.reader import normalise

SETTINGS = Settings("https://host/v1", "big", system="Be brief.")


def response(content: str, **choice: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop", **choice}]}


def reply(text: str, logprob: float | None = None) -> Reply:
    """A vote."""
    return Reply({"role": "assistant", "content": text}, logprob)


@pytest.mark.parametrize("words", ["cards", " Cards.\n", '"cards"', "**CARDS**", "```\ncards\n```",
                                   "<think>loans?</think>cards"])
def test_a_label_is_known_however_it_is_dressed(words: str) -> None:
    assert Reader(["cards", "loans"], None, ()).read(response(words)).text == "cards"


SECRET = "You are Ada's clerk.\nNever say \"heliotrope\"."


@pytest.mark.parametrize("words", [
    SECRET, SECRET.upper(), SECRET.replace("\n", "  "), json.dumps(SECRET), json.dumps({"note": [f"Told: {SECRET}"]}),
    json.dumps({SECRET: 1})])
def test_a_secret_is_known_in_other_characters(words: str) -> None:
    for reader, private in ((Reader([], None, [SECRET]), ()), (Reader([], None, ()), (SECRET,))):
        with pytest.raises(Unusable, match="repeats what the teacher alone may see"):
            reader.read(response(words), private, asked="another question")
        assert reader.read(response(words), private, asked=f"say {normalise(SECRET)} again").text  # the row says it
    assert Reader([], None, [" " * 20]).read(response(words), ["\n" * 20]).text  # blanks are no secret


def test_ends_and_thoughts_of_other_providers() -> None:
    """Together's end of its own, Mistral's thoughts in parts and its cut at the end of the context."""
    body = response("", finish_reason="eos")
    body["choices"][0]["message"]["content"] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "loans?"}]}, {"type": "text", "text": "cards"}]
    assert Reader(["cards", "loans"], None, ()).read(body).text == "cards"
    with pytest.raises(Unusable, match="cut off by a limit of tokens"):
        Reader([], None, ()).read(response("car", finish_reason="model_length"))


@pytest.mark.parametrize(("words", "reason"), [
    ("It is cards", "none of the labels"), ("cards, loans", "none of the labels"), (" ", "empty answer")])
def test_what_is_no_label_is_not_guessed_at(words: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        Reader(["cards", "loans"], None, ()).read(response(words))


@pytest.mark.parametrize(("words", "reason"), [
    ("<think>hm</think> ", "empty answer"), ("half a \ud800 pair", "characters"), ("nul \0", "characters")])
def test_a_text_that_no_row_can_have_is_refused(words: str, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        Reader([], None, ()).read(response(words))


def test_log_probabilities_are_added_where_they_are_numbers() -> None:
    reader = Reader([], None, ())
    given = {"content": [{"logprob": -0.5}, {"logprob": -1}]}
    assert reader.read(response("yes", logprobs=given)).logprob == -1.5
    for odd in (None, {"content": []}, {"content": [{"logprob": float("-inf")}]}, {"content": [{"logprob": "x"}]}):
        assert reader.read(response("yes", logprobs=odd)).logprob is None


def test_tokens_that_cannot_be_are_not_believed() -> None:
    assert tokens_of({"usage": {"prompt_tokens": 3, "completion_tokens": 0}}) == (3, 0)
    for usage in (None, {}, {"prompt_tokens": 0, "completion_tokens": -7}, {"prompt_tokens": "3"}):
        assert tokens_of({"usage": usage}) is None


def test_votes_are_counted_by_what_they_mean() -> None:
    best, agreeing = elected([reply("No"), reply("yes"), reply(" YES\n")])
    assert (best.text, agreeing) == ("yes", 2)
    assert elected([reply("a", -2.0), reply("b", -0.1)])[0].text == "b"  # of as many, the more probable one
    assert elected([reply("a"), reply("b")])[0].text == "a"
    assert elected([reply("a", -0.01), reply("b")])[0].text == "a"  # b's is not known
    assert elected([reply("b"), reply("a", -0.01)])[0].text == "b"
    assert same('{"a": 1, "b": 2}', '{"b":2.0,"a":1}') and not same('{"a": "X"}', '{"a": "x"}')
    assert not same("true", "1") and same("Two  words", "two words")
    assert agreement(["a", "a", "b"]) == pytest.approx(1 / 3) and agreement([None, None]) == 0


async def wrote(ledger: Ledger, key: str, event: str = "", tokens: tuple[int, int] | None = None, **more: Any) -> None:
    """A call that was begun and, with an `event`, ended."""
    number = await ledger.ask(key, "rows.jsonl:1", (100, 50))
    if event:
        await ledger.close(number, event, key, tokens, **more)


def test_a_ledger_tells_what_was_spent_and_what_was_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"

    async def calls() -> None:
        with Ledger(path, lambda read, written: Decimal(read + 2 * written)) as ledger:
            await wrote(ledger, "a", ANSWERED, (10, 5), message={"content": "x"}, logprob=None)
            await wrote(ledger, "b", UNUSABLE, None, reason="no JSON", longest=50)
            await wrote(ledger, "c", FAILED, (0, 0), reason="answered 503")
            await wrote(ledger, "d")
            assert (ledger.read, ledger.written, ledger.cost, ledger.lost) == (210, 105, 420, 0)

    asyncio.run(calls())
    path.write_bytes(path.read_bytes() + b'{"event": "answ')
    with Ledger(path) as again:
        assert (again.read, again.written, again.lost) == (210, 105, 1)
        assert list(again.answers) == ["a"] and again.calls == {ANSWERED: 1, UNUSABLE: 1, FAILED: 1}
    assert len(path.read_text().splitlines()) == 7  # the torn line is gone
    path.write_text("not JSON\n" + path.read_text())
    with pytest.raises(DataError, match="ledger.jsonl:1: no line of a ledger"):
        Ledger(path)


def test_a_call_waits_for_room_and_is_refused_where_none_will_come(tmp_path: Path) -> None:
    """Of 300 tokens, two calls of 150 fit at most; one that turns out to take 30 leaves room for another."""
    async def calls() -> None:
        with Ledger(tmp_path / "ledger.jsonl") as ledger:
            budget = Budget(ledger, lambda read, written: Decimal(0), None, 300)
            order: list[str] = []
            landed = asyncio.Event()

            async def call(name: str, lasts: bool) -> None:
                async with budget.room(100, 50):
                    number = await ledger.ask(name, "", (100, 50))
                    order.append(name)
                    await (landed.wait() if lasts else asyncio.sleep(0))
                    await ledger.close(number, ANSWERED, name, (20, 10), message={}, logprob=None)

            first = [asyncio.create_task(call(name, True)) for name in "ab"]
            await asyncio.sleep(0.05)
            third = asyncio.create_task(call("c", False))
            await asyncio.sleep(0.05)
            assert order == ["a", "b"]
            landed.set()
            await asyncio.gather(*first, third)
            assert order == ["a", "b", "c"] and ledger.read + ledger.written == 90
            await call("d", False)
            await call("e", False)
            with pytest.raises(BudgetSpent, match="300 tokens leaves no room for another call: 180 tokens spent"):
                for name in "fgh":
                    await call(name, False)

    asyncio.run(calls())


def test_prices_are_known_or_given() -> None:
    known = price_of("https://api.openai.com/v1", "gpt-4o-mini", "")
    assert known is not None and known.call(1_000_000, 0) > 0 and "genai-prices" in known.source
    assert price_of("https://llm.example.org/v1", "gpt-4o-mini", "") is not None  # a proxy
    assert price_of("https://llm.example.org/v1", "nobodys-7b", "") is None
    given = price_of("https://llm.example.org/v1", "nobodys-7b", "0.5/2")
    assert given is not None and given.call(1_000_000, 500_000) == Decimal("1.5")


def test_a_key_depends_on_all_that_decides_the_answer_and_on_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one", "gold": "a"}\n{"text": "two", "gold": "a"}\n')
    items = read_items(tmp_path / "rows.jsonl", {}, ["gold"], [])

    def key(settings: Settings, place: int = 0, bound: bool = False, vote: int = 0) -> str:
        return key_of(prompt_of(items[place], settings), settings, bound, vote)

    schema = replace(SETTINGS, schema={"type": "object"})
    others = [key(SETTINGS, 1), key(SETTINGS, vote=1), key(schema), key(schema, bound=True), *(
        key(replace(SETTINGS, **change)) for change in (
            {"model": "small"}, {"url": "https://other/v1"}, {"system": "Be long."}, {"temperature": 0.0},
            {"labels": ["a", "b"]}, {"examples": [items[1].row]}))]
    assert len({key(SETTINGS), *others}) == len(others) + 1
    assert key(SETTINGS) == key(replace(SETTINGS, key="sk-1", answer_tokens=9, votes=3, concurrency=1, price="1/1",
                                        url="https://host/v1/"))


def test_the_plan_expects_answers_as_long_as_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n')
    items = read_items(tmp_path / "rows.jsonl", {}, [], [])
    prompts = {id(items[0]): prompt_of(items[0], SETTINGS)}
    assert plan_of(items, prompts, items * 3, 0, SETTINGS, None).tokens_written == 3 * 1024
    known = replace(SETTINGS, labels=["x" * 38, "y" * 42])
    assert plan_of(items, prompts, items, 0, known, None).tokens_written == 12
    schema = replace(SETTINGS, schema={"type": "object", "title": "x" * 100})
    assert form_bytes(schema, True) > 100 and form_bytes(schema, False) == form_bytes(SETTINGS, True) == 0
    assert prompts[id(items[0])].most_tokens >= len("Be brief.one")


@pytest.mark.parametrize(("record", "made"), [
    ({"text": "hi", "note": 1}, {"prompt": "hi", "note": 1, "completion": "yes"}),
    ({"instruction": "do", "input": "this", "response": ""}, {"instruction": "do", "input": "this", "response": "yes"}),
    ({"input": "hi"}, {"prompt": "hi", "completion": "yes"}),
    ({"prompt": [{"role": "user", "content": "hi"}]},
     {"prompt": [{"role": "user", "content": "hi"}], "completion": [{"role": "assistant", "content": "yes"}]}),
    ({"conversations": '[{"from": "human", "value": "hi"}]'},
     {"conversations": [{"from": "human", "value": "hi"}, {"role": "assistant", "content": "yes"}]})])
def test_an_answer_goes_where_our_reader_finds_it(record: dict[str, Any], made: dict[str, Any], tmp_path: Path) -> None:
    from edgestill.runtime.data.reader import read_rows

    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(record) + "\n")
    found = read_items(path, {}, [], [])[0].answered("yes", {"role": "assistant", "content": "yes"})
    assert found == made
    path.write_text(json.dumps(found) + "\n")
    assert read_rows(path)[0].answer == "yes" and read_items(path, {}, [], [])[0].answer == "yes"


@pytest.mark.parametrize(("record", "labels", "reason"), [
    ({"messages": [{"role": "user", "content": "hi"}]}, ["a", "b"], "labels are given to texts"),
    ({"messages": []}, [], "must hold a list of messages"),
    ({"prompt": "hi", "tools": [{"type": "function", "function": {"name": "f"}}]}, [], "tools stand beside a prompt"),
    ({"prompt": "hi", "chosen": "x"}, [], "'chosen' is not read"), ({"text": " "}, ["a", "b"], "is empty")])
def test_rows_that_no_answer_would_complete_are_refused(record: dict[str, Any], labels: list[str], reason: str,
                                                        tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(DataError, match=reason):
        read_items(tmp_path / "rows.jsonl", {}, [], labels)


@pytest.mark.parametrize("value", [date(2026, 3, 1), Decimal("1.50"), b"x", [{"at": date(2026, 3, 1)}], float("nan")])
def test_rows_that_could_not_be_written_are_refused_before_they_are_paid_for(value: Any, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = pyarrow.Table.from_pylist([{"text": "one", "extra": value}, {"text": "two", "extra": None}])
    pyarrow.parquet.write_table(rows, tmp_path / "rows.parquet")
    for private in ([], ["extra"]):
        with pytest.raises(DataError, match=r"rows.parquet:1: the column 'extra' cannot be written as JSON"):
            read_items(tmp_path / "rows.parquet", {}, private, [])
    left = read_items(tmp_path / "rows.parquet", {}, ["extra"], [], skip_bad=True, ledger=tmp_path / "bad.jsonl")
    assert [(dict(item.record), dict(item.private)) for item in left] == [({"prompt": "two"}, {})]  # not told: null


@pytest.mark.parametrize(("headers", "seconds"), [
    ({"retry-after": "7"}, 7), ({"retry-after-ms": "250", "retry-after": "1"}, 0.25), ({"retry-after": "-3"}, None),
    ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, None), ({"retry-after-ms": "0", "retry-after": "2"}, 2),
    ({"x-ratelimit-reset": "2"}, 2),
    ({"x-ratelimit-reset": "1796000000000"}, None), ({"retry-after": "soon"}, None), ({}, None)])
def test_what_a_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert _seconds(headers) == seconds


def test_an_endpoint_is_told_less_by_what_it_refuses() -> None:
    assert Takes().fewer("unknown field response_format") == Takes(response_format=False)
    assert Takes().fewer("bad request") == Takes(logprobs=False)
    assert Takes(False, False, False).fewer("bad request") is None


def ask(folder: Path, settings: Settings, call: Callable[[], dict[str, Any]]) -> Asker:
    """Ask five rows of an endpoint that answers at once."""
    (folder / "rows.jsonl").write_text("".join(f'{{"text": "row {place}"}}\n' for place in range(5)))
    items = read_items(folder / "rows.jsonl", {}, [], [])

    class Fast:
        """The endpoint."""

        async def call(self, *_: Any) -> dict[str, Any]:
            return call()

    async def run() -> Asker:
        with Ledger(folder / "ledger.jsonl") as ledger:
            none: Callable[[int, int], Decimal] = lambda read, written: Decimal(0)  # noqa: E731
            asker = Asker(settings, Fast(), ledger, Budget(ledger, none, None, None),  # type: ignore[arg-type]
                          Reader([], None, ()))
            await asker.ask((item, 0) for item in items)
            return asker

    return asyncio.run(run())


def test_calls_keep_their_rate(tmp_path: Path) -> None:
    """Each waits for its turn, at any concurrency."""
    times: list[float] = []
    began = time.monotonic()

    def call() -> dict[str, Any]:
        times.append(time.monotonic())
        return response("yes")

    assert ask(tmp_path, replace(SETTINGS, rate=600.0), call).stopped is None
    # From the start: a slow disk delays a call, and the next is then nearer to it.
    assert len(times) == 5 and all(at - began > 0.1 * place - 0.02 for place, at in enumerate(times))


def test_what_waits_for_its_turn_is_not_asked_after_the_end(tmp_path: Path) -> None:
    calls: list[int] = []

    def call() -> dict[str, Any]:
        calls.append(1)
        if len(calls) > 1:
            raise Failure("answered 402", ends="top it up")
        return response("yes")

    asker = ask(tmp_path, replace(SETTINGS, rate=600.0), call)
    assert len(calls) == 2 and asker.stopped is not None and len(asker.failed) == 1
