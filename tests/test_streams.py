"""Several answers at a time over the same weights: who computes, and that nobody waits for an answer that is over."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import kinds
from edgestill.runtime import load
from edgestill.runtime.engines import _gguf_streams, _onnx_streams
from edgestill.runtime.engines._onnx_streams import Turns
from edgestill.runtime.loading import load_streams

ENDLESS = 60.0


def turns_of(steps: int, leave: bool = True) -> str:
    """Who computed, in order: `a`, which begins, and `b`, which waits from a's first step on; `steps` each."""
    turns, order = Turns(), []

    def take(name: str, waits: threading.Thread | None = None) -> None:
        for _ in range(steps):
            with turns.of(name):
                order.append(name)
                if waits is not None and waits.ident is None:
                    waits.start()
                while waits is not None and waits.is_alive() and not turns._waiting and "b" not in order:
                    pass
        if leave or name == "b":
            turns.rest(name)

    second = threading.Thread(target=take, args=("b",))
    take("a", second)
    second.join(60)
    assert not second.is_alive()
    return "".join(order)


def test_a_stream_keeps_its_turn_for_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onnx_streams, "_PATIENCE", ENDLESS)
    monkeypatch.setattr(_onnx_streams, "_SLICE", ENDLESS)
    assert turns_of(20) == "a" * 20 + "b" * 20
    monkeypatch.setattr(_onnx_streams, "_SLICE", 0.0)
    assert turns_of(20).startswith("ab")


def test_a_stream_that_leaves_without_a_word_loses_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onnx_streams, "_SLICE", ENDLESS)
    assert turns_of(3, leave=False) == "aaabbb"


def test_a_run_that_fails_gives_its_turn_back() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.of("a"):
        raise ZeroDivisionError
    with turns.of("b"):
        assert turns._holder == "b"


@pytest.mark.parametrize("engine", kinds.names("runtime.engines"))
def test_no_stream_waits_for_an_answer_that_is_over(packed_llama: dict[str, Path], engine: str,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited would wait for a minute here."""
    for module in (_gguf_streams, _onnx_streams):
        monkeypatch.setattr(module, "_PATIENCE", ENDLESS)
    monkeypatch.setattr(_onnx_streams, "_SLICE", 0.001)
    models = load_streams(packed_llama[engine], 3, 1)

    def answer(work: tuple[Any, int]) -> list[list[int]]:
        model, size = work
        found = [model.generate(f"turn off {index}", max_new_tokens=size, stop_ids=[]).ids for index in range(4)]
        for piece in model.stream("play some music", max_new_tokens=size):
            if piece.text:  # its reader leaves
                break
        return found

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(answer, zip(models, (1, 7, 20), strict=True), timeout=50))
    with load(packed_llama[engine], threads=1) as alone:
        assert found == [answer((alone, size)) for size in (1, 7, 20)]
    for model in models:
        model.close()


def test_the_thread_behind_streams_ends_with_them(packed_llama: dict[str, Path]) -> None:
    def threads() -> int:
        return sum(thread.name == "llama.cpp" for thread in threading.enumerate())

    before, models = threads(), load_streams(packed_llama["gguf"], 2, 1)
    assert models[1].generate("turn off", max_new_tokens=4, stop_ids=[]).ids
    assert threads() == before + 1
    del models
    gc.collect()
    for _ in range(500):
        if threads() == before:
            return
        time.sleep(0.01)
    raise AssertionError("the thread lives on")


@pytest.mark.skipif(sys.platform != "linux", reason="threads of a process are counted in /proc")
def test_one_thread_alone_has_a_team_of_openmp(packed_llama: dict[str, Path]) -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    def used() -> tuple[Any, int]:
        before = threads()
        models = load_streams(packed_llama["gguf"], 2, 2)
        models[0].generate("turn off", max_new_tokens=2)
        return models, threads() - before

    with ThreadPoolExecutor(1) as opener:  # which has no team from elsewhere
        models, made = opener.submit(used).result()
        assert made == 2  # the one behind the streams, and the other of its team
    for model in models:
        model.close()
