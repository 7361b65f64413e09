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
from edgestill.models.artifact import open_artifact
from edgestill.runtime import load
from edgestill.runtime.engines import _gguf_streams, _onnx_streams
from edgestill.runtime.engines._onnx_streams import Cores
from edgestill.runtime.loading.load import load_streams

from .. import packed

ENDLESS = 60.0


def cores_of(cores: Cores, steps: int, leave: bool = True) -> dict[str, str]:
    """What two streams had at every step, 1 core or (2) all: `a`, which begins alone, and `b`, which comes then."""
    had = {"a": "", "b": ""}

    def take(name: str, waits: threading.Thread | None = None) -> None:
        for _ in range(steps):
            with cores.of(name) as narrow:
                had[name] += "1" if narrow else "2"
                if waits is not None and waits.ident is None:
                    waits.start()
                    while not cores._waiting:
                        pass
                time.sleep(0.002)
        if leave or name == "b":
            cores.rest(name)

    second = threading.Thread(target=take, args=("b",))
    take("a", second)
    second.join(60)
    assert not second.is_alive()
    return had


def test_a_stream_takes_all_cores_and_one_in_company_of_as_many() -> None:
    had = cores_of(Cores(2), 20)
    assert had["a"].startswith("2" + "1" * 15) and had["b"].startswith("1" * 10)  # who ends last is alone again
    had = cores_of(Cores(3), 20)
    assert had == {"a": "2" * 20, "b": "2" * 20}  # all three: of two streams with one each a core would be idle
    with Cores(1).of("a") as narrow:
        assert not narrow


def test_a_stream_that_leaves_without_a_word_loses_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onnx_streams, "_SLICE", ENDLESS)
    had = cores_of(Cores(2, shared=False), 3, leave=False)
    assert had == {"a": "222", "b": "222"}


@pytest.mark.parametrize("shared", [True, False])
def test_no_more_compute_at_once_than_there_are_cores(shared: bool) -> None:
    cores, lock, now, seen = Cores(3, shared), threading.Lock(), 0, []

    def take(stream: int) -> None:
        nonlocal now
        for _ in range(50):
            with cores.of(stream) as narrow:
                with lock:
                    now += 1 if narrow else 3
                    seen.append(now)
                time.sleep(0.0005)
                with lock:
                    now -= 1 if narrow else 3
        cores.rest(stream)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, range(8), timeout=60))
    assert len(seen) == 400 and max(seen) == 3 and now == 0
    assert sum(one < 3 for one in seen) > 0 if shared else set(seen) == {3}


def test_a_run_that_fails_gives_its_cores_back() -> None:
    cores = Cores(2)
    with pytest.raises(ZeroDivisionError), cores.of("a"):
        raise ZeroDivisionError
    cores.rest("a")
    with cores.of("b") as narrow:
        assert not narrow


def test_onnx_streams_share_the_cores_only_where_one_thread_gives_the_bits_of_two_and_it_is_worth_it(
        packed_llama: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for same, seconds, sessions in ((True, 1.0, 2), (False, 1.0, 1), (True, 0.001, 1)):
        monkeypatch.setattr(_onnx_streams, "same_bits", lambda one, other, same=same: same)
        monkeypatch.setattr(_onnx_streams, "seconds_a_token", lambda engine, seconds=seconds: seconds)
        assert {len(model.engine.sessions) for model in load_streams(packed_llama["onnx"], 2, 2)} == {sessions}
    one, other = (kinds.load("runtime.engines", "onnx").open(open_artifact(packed_llama["onnx"]), threads, 0)
                  for threads in (1, 2))
    monkeypatch.undo()
    assert _onnx_streams.same_bits(one, other) and 0 < _onnx_streams.seconds_a_token(one) < 1
    right = other.decode
    monkeypatch.setattr(other, "decode", lambda token: right(token) + 1e-6)
    assert not _onnx_streams.same_bits(one, other)


@pytest.mark.parametrize(("engine", "worth"), [("gguf", 0.0), ("onnx", 0.0), ("onnx", ENDLESS)])
def test_no_stream_waits_for_an_answer_that_is_over(packed_llama: dict[str, Path], engine: str, worth: float,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited would wait for a minute here."""
    for module in (_gguf_streams, _onnx_streams):
        monkeypatch.setattr(module, "_PATIENCE", ENDLESS)
    monkeypatch.setattr(_onnx_streams, "_SLICE", 0.001)
    monkeypatch.setattr(_onnx_streams, "_WORTH", worth)
    models = load_streams(packed_llama[engine], 3, 2)

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


def test_every_stream_gets_its_own_logits(tiny_llama: Path, tmp_path: Path) -> None:
    """At Q8_0, whose steps take the tokens of all streams in one pass: each answers as it would alone."""
    prompts = ["turn off the kitchen light", "play some music", "what time is it"]
    options: dict[str, Any] = {"max_new_tokens": 40, "stop_ids": [], "logit_bias": {"0": -100}, "reuse": "none"}
    models: Any = load_streams(packed.pack(tiny_llama, tmp_path / "q8", "gguf:Q8_0"), len(prompts), threads=1)
    alone = [models[0].generate(prompt, **options).ids for prompt in prompts]
    assert len(set(map(tuple, alone))) == len(prompts)
    steps: list[int] = []
    driver = _gguf_streams.Driver._decode
    gate = threading.Barrier(len(prompts))

    def answer(index: int) -> list[int]:
        gate.wait(60)
        return models[index].generate(prompts[index], **options).ids  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(prompts)) as pool:
        patch.setattr(_gguf_streams.Driver, "_decode",
                      lambda self, asked, streams: (steps.append(len(streams)), driver(self, asked, streams))[1])
        assert list(pool.map(answer, range(len(prompts)), timeout=60)) == alone
    assert max(steps) > 1  # they were made together
    for model in models:
        model.close()
