"""Load: requests sent when they are due, latencies counted from then, rates held to limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import UsageError
from edgestill.runtime.generation.remote import RemoteError
from edgestill.runtime.profiling import load, open_loop
from edgestill.runtime.profiling.http_requests import TimedAnswer, ask
from edgestill.runtime.profiling.limits import Limit

from ..remote_stub import Stub, streamed

Ask = Callable[[int], TimedAnswer]


def one_by_one(seconds: Callable[[int], float]) -> Ask:
    """A server that answers one request after the other, each in its time."""
    turn, clock = threading.Lock(), time.perf_counter_ns

    def answer(number: int) -> TimedAnswer:
        start = clock()
        with turn:
            time.sleep(seconds(number))
        took = clock() - start
        return TimedAnswer(start, 0, took, (took,), new_tokens=1, prompt_tokens=3)

    return answer


def limit(text: str) -> Limit:
    return Limit.parse(text, "generate")


def test_a_stall_is_seen_by_those_who_come_meanwhile_too() -> None:
    """A server that stalls 200 ms at every 50th request: whoever asks again only when answered meets 2 % slow ones."""
    def stalls(number: int) -> float:
        return 0.2 if number % 50 == 49 else 0.001

    waits = [1000 * stalls(number) for number in range(200)]
    assert np.quantile(waits, 0.95) == 1
    sent = open_loop.send(one_by_one(stalls), open_loop.send_times(100, 200, "fixed"))
    met = np.array([one["end_ns"] / 1e6 for one in sent])
    assert np.quantile(met, 0.95) > 100 and np.quantile(met, 0.99) > 150 and (met > 20).mean() > 0.2
    assert [one["intended_ns"] for one in sent] == [number * 10**7 for number in range(200)]


def test_times_are_drawn_before_and_as_many_as_asked_for() -> None:
    fixed, drawn = (np.diff(open_loop.send_times(50, 4000, arrivals)) / 1e9 for arrivals in open_loop.ARRIVALS[::-1])
    assert np.allclose(fixed, 0.02) and drawn.mean() == pytest.approx(0.02, rel=0.05)
    assert drawn.std() == pytest.approx(0.02, rel=0.05)  # exponential
    assert open_loop.send_times(50, 9) == open_loop.send_times(50, 9) != open_loop.send_times(50, 9, seed=1)
    with pytest.raises(UsageError, match="arrivals: 'often'"):
        open_loop.send_times(1, 2, "often")


def test_the_highest_rate_that_holds_is_found_with_its_cost() -> None:
    said: list[str] = []
    held_to = [limit("request_ms.p50<=150"), limit("ttft_ms.max<=1e5")]
    found = load.load(one_by_one(lambda number: 0.02), {10: 6, 20: 6, 1000: 40}, "fixed", held_to, 0.36,
                      say=said.append)
    assert [all(judged.passed for judged in one["gates"]) for one in found["rates"]] == [True, True, False]
    assert found["holds_up_to"] == 20 and found["verdict"][0].startswith("up to 20 requests a second hold request_ms")
    assert found["cost_per_million"] == pytest.approx(0.36 / found["rates"][1]["achieved_per_s"] / 3600 * 1e6)
    last = found["rates"][2]
    assert last["achieved_per_s"] < 60 and last["offered_per_s"] == pytest.approx(1000) and last["answered"] == 40
    assert any("at 1000 a second the server did not keep up" in line for line in found["verdict"])
    assert "52 requests: about 0.0 minutes" in said[0]


def test_requests_without_an_answer_are_later_than_any() -> None:
    drawn = np.random.default_rng(0)
    times = drawn.permutation(100) * 10**6
    sent = [{"end_ns": int(took)} if took > 25e6 else {"end_ns": 1, "error": "answered 429"} for took in times]
    spread = load._spread(sent, "end_ns")
    assert spread["values"] == 74 and spread["p50"] == pytest.approx(62.5) and spread["max"] == np.inf
    assert 75 < spread["upper"]["p50"] < 90 and spread["upper"]["p95"] is None
    assert spread["why"]["p95"] == "26 of 100 requests were not answered" and not spread["needed"].get("p95")

    def refuses(number: int) -> TimedAnswer:
        if number % 2:
            raise RemoteError("http://x", "answered 429", busy=True)
        return TimedAnswer(time.perf_counter_ns(), 0, 1000, (1000,), new_tokens=1)

    found = load.load(refuses, {100: 10}, held_to=[limit("request_ms.max<=1e9")], warmup=0)
    assert (found["rates"][0]["answered"], found["rates"][0]["errors"]) == (5, {"answered 429": 5})
    assert found["holds_up_to"] is None and found["verdict"][0].startswith("no rate holds request_ms.max <= 1e+09")
    assert any("5 of 10 requests were not answered: answered 429 (5)" in line for line in found["verdict"])

    def refuse(number: int) -> TimedAnswer:
        raise RemoteError("http://x", "answered 500")

    none = load.load(refuse, {1000: 3}, held_to=[limit("ttft_ms.p50<=1e6")], warmup=0)["rates"][0]
    assert none["ttft_ms"]["p50"] is None and none["achieved_per_s"] is None and not none["gates"][0].passed
    with pytest.raises(RemoteError):
        load.load(refuse, {1000: 3})


def test_a_client_that_is_too_slow_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "AT_ONCE", 1)
    found = load.load(one_by_one(lambda number: 0.03), {200: 10}, "fixed", warmup=0)
    one = found["rates"][0]
    assert one["late_share"] > 0.5 and one["request_ms"]["max"] > 200  # and all the same counted from when it was due
    assert any("sent more than 10 ms late: this client was held up" in line for line in found["verdict"])


def test_a_bound_takes_as_many_requests_as_elsewhere() -> None:
    held_to = [limit("ttft_ms.p99<=300")]
    assert load.counts([50, 25], 60, 0, held_to) == {25: 299, 50: 299}
    assert list(load.counts([50, 25], 60, 4, ())) == [25, 50] and load.counts([50, 25], 60, 4, ())[50] == 200
    with pytest.raises(UsageError, match="decode_tokens_per_s is not measured under load"):
        load.counts([1], 1, 0, [limit("decode_tokens_per_s>=1")])


def test_a_server_is_asked_for_another_request_every_time(stub: Stub) -> None:
    stub.reply = lambda body: streamed("a", "b")

    def request(number: int) -> TimedAnswer:
        return ask(stub.url, {"model": "x", "messages": [{"role": "user", "content": str(number)}]})

    found: dict[str, Any] = load.load(request, {100: 8, 200: 8}, warmup=2)
    asked = [body["messages"][0]["content"] for _, _, body in stub.requests]
    assert sorted(map(int, asked)) == list(range(18))
    assert all(one["answered"] == 8 and one["new_tokens"] == 4 and one["ttft_ms"]["p50"] <= one["request_ms"]["p50"]
               for one in found["rates"])
