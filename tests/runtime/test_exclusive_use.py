"""One answer at a time on one cache, and nothing after the model is closed: refused, never wrong, never a crash."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from edgestill.models import kinds
from edgestill.models.errors import UsageError
from edgestill.runtime import load
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.loading.load import load_streams

PROMPT, OTHER = "turn off the kitchen light", "play some music"
SIZE = 24


@pytest.fixture(scope="module", params=kinds.names("runtime.engines"))
def model(request: pytest.FixtureRequest, packed_llama: dict[str, Path]) -> Iterator[Generator]:
    with load(packed_llama[request.param], threads=1) as one:
        assert isinstance(one, Generator)
        yield one


def ids_of(model: Generator, prompt: str = PROMPT, **options: Any) -> list[int]:
    return model.generate(prompt, max_new_tokens=SIZE, stop_ids=[], logit_bias={"0": -100}, **options).ids


def test_a_second_answer_is_refused_and_the_first_stays_right(model: Generator) -> None:
    wanted, other = ids_of(model), ids_of(model, OTHER)
    first = model.stream(PROMPT, max_new_tokens=SIZE, logit_bias={"0": -100})
    second = model.stream(OTHER, max_new_tokens=SIZE, logit_bias={"0": -100})
    next(first)
    asked: list[Callable[[], Any]] = [
        lambda: next(second), lambda: model.generate(OTHER), lambda: model.score([5, 6]), lambda: model.logits([5, 6]),
        lambda: model.prefix("a"), lambda: model.generate_ids([5, 6])]
    for ask in asked:
        with pytest.raises(UsageError, match="in the middle of another answer"):
            ask()
    *_, last = first
    assert last.done is not None and last.done.ids == wanted
    assert ids_of(model, OTHER) == other


def test_an_answer_left_half_way_is_in_nobodys_way(model: Generator) -> None:
    wanted = ids_of(model, OTHER, reuse="none")
    for _ in model.stream(PROMPT):
        break
    assert ids_of(model, OTHER) == wanted

    def breaks_down() -> None:
        for _ in model.stream(PROMPT):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaks_down()
    assert ids_of(model, OTHER) == wanted
    stream = model.stream(PROMPT)
    del stream  # never begun
    assert ids_of(model, OTHER) == wanted


def test_an_interrupt_in_the_middle_of_a_pass_leaves_no_trace(model: Generator,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, fast = ids_of(model, reuse="none"), model.engine.decode

    def interrupted(token: int) -> Any:
        held = len(model.engine.held)
        fast(token)
        del model.engine.held[held:]  # the pass was made and could not be noted
        raise KeyboardInterrupt

    monkeypatch.setattr(model.engine, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ids_of(model, OTHER)
    monkeypatch.undo()
    assert model.engine.held == []
    assert ids_of(model) == wanted


def test_of_two_threads_each_is_right_or_refused(model: Generator) -> None:
    wanted = {prompt: ids_of(model, prompt) for prompt in (PROMPT, OTHER)}

    def ask(prompt: str) -> bool:
        try:
            return ids_of(model, prompt) == wanted[prompt]
        except UsageError as error:
            return "in the middle of another answer" in error.message

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(ask, [PROMPT, OTHER] * 20, timeout=60))


def test_guesses_need_both_models_for_themselves(packed_llama: dict[str, Path]) -> None:
    for folder in packed_llama.values():
        with load(folder, threads=1) as big, load(folder, threads=1) as small:
            assert isinstance(big, Generator) and isinstance(small, Generator)
            wanted = ids_of(big)
            held = big.stream(PROMPT, draft=small, max_new_tokens=SIZE, logit_bias={"0": -100})
            next(held)
            for ask in (lambda: ids_of(small), lambda: ids_of(big)):  # noqa: B023
                with pytest.raises(UsageError, match="in the middle of another answer"):
                    ask()
            *_, last = held
            assert last.done is not None and last.done.ids == wanted == ids_of(small) == ids_of(big, draft=small)
            small.close()
            with pytest.raises(UsageError, match="closed"):
                ids_of(big, draft=small)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("engine", kinds.names("runtime.engines"))
def test_a_closed_model_says_so(engine: str, count: int, packed_llama: dict[str, Path]) -> None:
    models: Any = load_streams(packed_llama[engine], count, threads=1)
    model, begun = models[-1], [one.stream(PROMPT) for one in models]
    for stream in begun:
        next(stream)
    for one in models:
        one.close()
        one.close()
    asked: list[Callable[[], Any]] = [
        lambda: list(begun[-1]), lambda: model.generate(OTHER), lambda: model.score([5, 6]),
        lambda: model.logits([5, 6]), lambda: model.prefix("a"), lambda: list(model.stream_ids([5, 6])),
        lambda: model.engine.prefill([5, 6]), lambda: model.engine.decode(5), lambda: model.engine.extend([5, 6]),
        lambda: model.engine.saved(), lambda: model.generate(OTHER, lookup=True)]
    asked += [lambda: model.engine.tokenize("a"), lambda: model.engine.is_stop(0)] if engine == "gguf" else []
    for ask in asked:
        with pytest.raises(UsageError, match="closed"):
            ask()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("engine", kinds.names("runtime.engines"))
def test_closing_ends_the_answer_of_another_thread(engine: str, count: int, packed_llama: dict[str, Path]) -> None:
    models: Any = load_streams(packed_llama[engine], count, threads=1)
    begun, found = threading.Event(), []

    def answer() -> None:
        try:
            while True:
                for _ in models[0].stream(PROMPT, max_new_tokens=200):
                    begun.set()
        except UsageError as error:
            found.append(error.message)

    thread = threading.Thread(target=answer)
    thread.start()
    assert begun.wait(60)
    for one in reversed(models):
        one.close()
    thread.join(60)
    assert not thread.is_alive() and found == ["the model is closed"]
