"""A job's items on their way from a worker to the loop: in order, none lost, and not one wake-up for each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from edgestill.runtime.server import work_queue
from edgestill.runtime.server.validation import Refusal
from edgestill.runtime.server.work_queue import Job, Station

WAIT = 20.0


async def pieces(work: Callable[[threading.Event], Iterator[Any]], saw: threading.Event) -> list[list[Any]]:
    """What `work` yields, as the loop finds it: lists of items that had come together. `saw` is set after each."""
    job = Job(lambda _, cancel: work(cancel))

    def worker() -> None:
        job.end(job.run(None))

    thread = threading.Thread(target=worker)
    thread.start()
    found: list[list[Any]] = [[]]
    async with asyncio.timeout(WAIT):
        async for item in job:
            found[-1].append(item)
            if not job.ready:
                saw.set()
                found.append([])
    thread.join()
    return [piece for piece in found if piece]


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_nothing_is_lost_and_the_order_stays(count: int) -> None:
    found = asyncio.run(pieces(lambda _: iter(range(count)), threading.Event()))
    assert [item for piece in found for item in piece] == list(range(count))


def test_the_first_comes_at_once_the_next_with_the_frame_and_the_last_with_the_end(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_queue, "_FRAME", 3600)
    saw = threading.Event()

    def work(cancel: threading.Event) -> Iterator[int]:
        yield 0
        assert saw.wait(WAIT)
        yield from range(1, 50)

    found = asyncio.run(pieces(work, saw))
    # The look that the first item called for may see one of the next: the loop had found the first before.
    assert found[0] == [0] and len(found) <= 3 and [item for piece in found for item in piece] == list(range(50))


def test_after_a_silence_an_item_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work_queue, "_FRAME", 0.001)
    saw = threading.Event()

    def work(cancel: threading.Event) -> Iterator[int]:
        for number in range(5):
            yield number
            assert saw.wait(WAIT)
            saw.clear()
            cancel.wait(0.01)  # longer than a frame: the loop no longer looks by itself

    assert asyncio.run(pieces(work, saw)) == [[0], [1], [2], [3], [4]]


def test_a_full_queue_says_when_to_come_again() -> None:
    gate = threading.Event()

    def slow(model: Any, cancel: threading.Event) -> Iterator[int]:
        yield int(gate.wait(WAIT))

    async def refused() -> str:
        station = Station("small", [SimpleNamespace(close=lambda: None) for _ in range(2)], 5)
        async with asyncio.timeout(WAIT):
            assert [item async for item in station.submit(lambda *_: iter([1]))] == [1]
            jobs = [station.submit(slow) for _ in range(7)]
            while station.active < 2:
                await asyncio.sleep(0.01)
            with pytest.raises(Refusal) as found:
                station.submit(slow)
            gate.set()
            assert [item for job in jobs async for item in job] == [1] * 7
        station.close()
        return found.value.headers["Retry-After"]

    # An answer is taken to last a second until many were made: six, two at a time, take three.
    assert asyncio.run(refused()) == "3"


def test_an_error_comes_after_what_was_yielded() -> None:
    def work(cancel: threading.Event) -> Iterator[int]:
        yield 1
        raise ValueError("planted")

    seen: list[int] = []

    async def read() -> None:
        job = Job(lambda _, cancel: work(cancel))
        threading.Thread(target=lambda: job.end(job.run(None))).start()
        async with asyncio.timeout(WAIT):
            async for item in job:
                seen.append(item)

    with pytest.raises(ValueError, match="planted"):
        asyncio.run(read())
    assert seen == [1]
