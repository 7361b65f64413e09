"""Guessed tokens: the same answers with and without, on every engine; what is guessed; when guessing rests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import kinds
from edgestill.models.errors import UsageError
from edgestill.runtime import load
from edgestill.runtime.generation import speculation
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.generation.guessing import Guessing
from edgestill.runtime.generation.prompt_lookup import Lookup
from edgestill.runtime.generation.speculation import Draft, Speculator
from edgestill.runtime.text.codec import Codec
from hypothesis import given, settings
from hypothesis import strategies as st

from . import packed, tiny
from .test_constrain import CALL

PROMPTS = ["turn off the kitchen light", "abc abc abc abc", "the light, the light"]


@pytest.fixture(scope="module", params=[*kinds.names("runtime.engines"), "gguf:Q8_0"])
def model(request: pytest.FixtureRequest, packed_llama: dict[str, Path], tiny_llama: Path,
          tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    folder = packed_llama.get(request.param)
    with load(folder or packed.pack(tiny_llama, tmp_path_factory.mktemp("exact") / "q8", request.param),
              threads=1) as one:
        assert isinstance(one, Generator)
        yield one


@pytest.fixture(scope="module")
def draft(packed_llama: dict[str, Path]) -> Iterator[Generator]:
    with load(packed_llama["gguf"], threads=1) as one:
        assert isinstance(one, Generator)
        yield one


class Always(Speculator):
    """Guesses whatever it costs."""

    def settle(self, right: int) -> None:
        super().settle(right)
        self._rest = 0

    def _worth(self, found: Any) -> list[int]:
        return [token for token, _ in found]


OPTIONS: list[dict[str, Any]] = [
    {}, {"stop": ["e"]}, {"temperature": 1.2, "seed": 3, "top_p": 0.9}, {"repetition_penalty": 1.2}, {"schema": CALL},
    {"schema": CALL, "temperature": 2.0, "seed": 1}, {"logprobs": 2}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_answers_are_the_same_with_guesses(options: dict[str, Any], model: Generator, draft: Generator,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestill.runtime.generation.guessing.Speculator", Always)
    model.__dict__["_guessing"] = Guessing(model)
    guessed = right = told = 0
    for prompt in PROMPTS:
        plain = model.generate(prompt, max_new_tokens=60, **options)
        for _ in range(2):  # the second time the first answer is known
            looked = model.generate(prompt, max_new_tokens=60, lookup=True, **options)
            assert (looked.ids, looked.text, looked.finish_reason) == (plain.ids, plain.text, plain.finish_reason)
            guessed, right = guessed + looked.guessed_tokens, right + looked.accepted_tokens
        drafted = model.generate(prompt, max_new_tokens=60, draft=draft, **options)
        assert drafted.ids == plain.ids and len(drafted.logprobs) == len(plain.logprobs)
        told += drafted.accepted_tokens
    drawn = options.get("temperature", 0) > 0 or "logprobs" in options
    if drawn and model._guessing._exact_rows == 1:
        assert guessed == 0  # a draw, or a number that is told, would show which pass it came from
    else:
        assert "stop" in options or (guessed > 0 and (drawn or right > 0))
    assert told or options
    assert model.generate(PROMPTS[0], max_new_tokens=60).guessed_tokens == 0


@settings(max_examples=100)
@given(texts=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=4),
       split=st.integers(0, 6), worth=st.floats(0, 1))
def test_guesses_are_what_followed_before(texts: list[list[int]], split: int, worth: float) -> None:
    lookup = Lookup("abcde".__getitem__)
    for number, text in enumerate(texts):
        prompt, ids = text[:split + 1], text[split + 1:]
        lookup.propose(prompt, [], 5, worth)
        found, shares = proposed(lookup, prompt, ids, 5, worth)
        assert len(found) <= 5 and all(1 >= one >= other >= worth for one, other in pairwise([1, *shares]))
        seen = {pair for one in (*texts[:number], text) for pair in pairwise(one)}
        assert set(pairwise([text[-1], *found])) <= seen
        assert proposed(lookup, prompt, ids, 5, worth)[0] == found  # asking changes nothing
        surer, _ = proposed(lookup, prompt, ids, 5, (1 + worth) / 2)
        assert found[:len(surer)] == surer


def proposed(lookup: Lookup, *asked: Any) -> tuple[list[int], list[float]]:
    found = lookup.propose(*asked)
    return [token for token, _ in found], [share for _, share in found]


def test_words_are_found_without_their_blanks() -> None:
    words = ["play", " bob", " dylan", " please", "{", '"', "bob", "x"]
    lookup = Lookup(words.__getitem__)
    prompt = [0, 1, 2, 3]
    assert proposed(lookup, prompt, [4, 5], 3, 0.1)[0] == []
    assert proposed(lookup, prompt, [4, 5, 6], 3, 0.1)[0] == [2, 3, 4]
    assert proposed(lookup, prompt, [4, 5, 6], 3, 0.5)[0] == [2]
    assert proposed(lookup, prompt, [4, 5, 6], 3, 0.6)[0] == []  # a name may end after any word
    assert proposed(lookup, prompt, [4, 5, 6, 7], 3, 0.1)[0] == []


def test_what_always_follows_is_sure_and_what_stops_following_is_forgotten() -> None:
    lookup = Lookup(str)
    for number in range(20):
        prompt, ids = [100 + number], [1, 2]
        lookup.propose(prompt, ids, 4, 0.5)
        ids += [3, 4, 5, 6]  # the end of an answer is read when the next one begins
    assert proposed(lookup, [200], [1, 2], 4, 0.8)[0] == [3, 4, 5, 6]
    for number in range(20):
        lookup.propose([300 + number], [1, 2, 3, 4, 7, 8], 4, 0.5)
    assert proposed(lookup, [400], [1, 2, 3, 4], 4, 0.8)[0] == [7, 8]


class Says:
    """A draft's engine that always says the same token."""

    context_length = 10 ** 6

    def __init__(self, token: int) -> None:
        self.held, self._logits = list[int](), np.eye(8)[token]

    @property
    def position(self) -> int:
        return len(self.held)

    def truncate(self, length: int) -> None:
        del self.held[length:]

    def prefill(self, ids: list[int]) -> Any:
        self.held += ids
        return self._logits

    def decode(self, token: int) -> Any:
        return self.prefill([token])


@pytest.mark.parametrize(("said", "sizes"), [(3, [15, 15, 15]), (4, [0, 1, 0])])
def test_a_draft_learns_how_often_it_is_right_and_has_a_chance_with_every_answer(said: int, sizes: list[int]) -> None:
    draft = Draft(Says(3), 8)  # type: ignore[arg-type]
    prompt, ids = [1], [2]
    for _ in range(20_000 if said == 3 else 100):
        ids += [said] * (len(draft.propose(prompt, ids, 15, 0.6)) or 1)
    assert len(draft.propose(prompt, ids, 15, 0.6)) == sizes[0]
    assert len(draft.propose([1], [2], 15, 0.6)) >= sizes[1]
    draft.propose([1], [2, *[said] * 15], 15, 0.6)
    assert draft._right.value == pytest.approx(0.999 if said == 3 else 0.8, abs=0.2)


def test_a_word_that_two_words_follow_in_the_prompt_is_no_guess() -> None:
    assert proposed(Lookup(str), [1, 2, 9, 1, 3], [5, 1], 4, 0.0)[0] == []
    assert proposed(Lookup(str), [1, 2, 9, 1, 2, 8], [5, 1], 1, 0.0)[0] == [2]


def test_a_lookup_remembers_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestill.runtime.generation.prompt_lookup._REMEMBERED", 100)
    lookup = Lookup(str)
    for number in range(50):
        lookup.propose([number], list(range(number, number + 40)), 4, 0.5)
    assert len(lookup._said) <= 100 + 2 * 40


class Clocked:
    """An engine whose passes take a given time."""

    context_length, position = 10 ** 6, 0

    def __init__(self, clock: list[float], base: float, each: float) -> None:
        self._clock, self._base, self._each, self.passes = clock, base, each, []

    def decode(self, token: int) -> Any:
        self._clock[0] += 1.0
        self.passes.append(1)
        return None

    def extend(self, ids: list[int]) -> Any:
        self._clock[0] += 1.0 + self._base + self._each * (len(ids) - 1)
        self.passes.append(len(ids))


@pytest.mark.parametrize(("base", "each", "right", "rests"), [
    (0.0, 0.2, True, False), (0.0, 0.2, False, True), (0.0, 0.8, True, False), (0.0, 0.8, False, True),
    (0.0, 2.0, True, True), (8.0, 0.2, True, True)])
def test_guessing_rests_where_it_is_slower(base: float, each: float, right: bool, rests: bool,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    class Guesses:
        def propose(self, prompt: list[int], ids: list[int], count: int, least: float) -> list[tuple[int, float]]:
            return [(5, 1.0)] * min(count, 3 + len(ids) % 5)

    clock = [0.0]
    monkeypatch.setattr(speculation.time, "perf_counter", lambda: clock[0])
    engine, speculator = Clocked(clock, base, each), Speculator(Guesses())
    ids = [1]
    while len(ids) < 3000:
        _, guesses = speculator.step(engine, [1], ids, 10 ** 4)  # type: ignore[arg-type]
        gained = len(guesses) if right else 0
        if guesses:
            speculator.settle(gained)
        ids += [5] * (gained + 1)
    plain = sum(size == 1 for size in engine.passes) / len(engine.passes)
    assert (plain > 0.8) == rests and speculator.right <= speculator.guessed


@pytest.mark.parametrize(("base", "each", "shares", "taken"), [
    (0.0, 0.3, [0.9, 0.8, 0.4, 0.2], 3), (0.0, 0.3, [0.2], 0), (2.0, 0.3, [0.9, 0.8, 0.4], 0),
    (1.0, 0.1, [0.9, 0.8, 0.4, 0.05], 3)])
def test_as_many_guesses_are_taken_as_pay(base: float, each: float, shares: list[float], taken: int,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    class Guesses:
        def propose(self, prompt: list[int], ids: list[int], count: int, least: float) -> list[tuple[int, float]]:
            if len(ids) < 1000:  # at first, so that the cost becomes known
                return [(5, 1.0)] * (len(ids) % 7 + 1)
            return [(5, share) for share in shares]

    clock = [0.0]
    monkeypatch.setattr(speculation.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(speculation, "_TRIALS", 10 ** 6)
    engine, speculator, ids = Clocked(clock, base, each), Speculator(Guesses()), [1]
    while len(ids) < 1000:
        if speculator.step(engine, [1], ids, 10 ** 4)[1]:  # type: ignore[arg-type]
            speculator.settle(0)
        ids.append(5)
    assert len(speculator.step(engine, [1], ids, 10 ** 4)[1]) == taken  # type: ignore[arg-type]


def test_guesses_that_cannot_be_are_refused(model: Generator, draft: Generator, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="cannot both guess"):
        model.generate("x", lookup=True, draft=draft)
    with pytest.raises(UsageError, match="cannot guess for itself"):
        model.generate("x", draft=model)
    tiny.word_piece_tokenizer(tmp_path)
    with pytest.raises(UsageError, match="draft: another vocabulary"):
        model.generate("x", draft=Generator(draft.engine, Codec.from_folder(tmp_path)))
    monkeypatch.setattr(model.engine, "rewinds", False)
    with pytest.raises(UsageError, match="lookup: the model keeps a running state"):
        model.generate("x", lookup=True)
