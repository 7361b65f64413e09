"""Guessed tokens: the same answers with and without, on every engine; what is guessed, and by whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import kinds
from edgestill.models.errors import UsageError
from edgestill.runtime import load
from edgestill.runtime.generation import guessing
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.generation.prompt_lookup import SAME, Lookup
from edgestill.runtime.generation.speculation import Draft
from edgestill.runtime.text.codec import Codec
from hypothesis import given
from hypothesis import strategies as st

from .. import packed, tiny
from .test_constraints import CALL

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


OPTIONS: list[dict[str, Any]] = [
    {}, {"stop": ["e"]}, {"temperature": 1.2, "seed": 3, "top_p": 0.9}, {"repetition_penalty": 1.2}, {"schema": CALL},
    {"schema": CALL, "temperature": 2.0, "seed": 1}, {"logprobs": 2}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_answers_are_the_same_with_guesses(options: dict[str, Any], model: Generator, draft: Generator,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "SMALLEST", 0)
    guessed = right = told = 0
    for prompt in PROMPTS:
        plain = model.generate(prompt, max_new_tokens=60, **options)
        looked = model.generate(prompt, max_new_tokens=60, lookup=True, **options)
        assert (looked.ids, looked.text, looked.finish_reason) == (plain.ids, plain.text, plain.finish_reason)
        guessed, right = guessed + looked.guessed_tokens, right + looked.accepted_tokens
        drafted = model.generate(prompt, max_new_tokens=60, draft=draft, **options)
        assert drafted.ids == plain.ids and len(drafted.logprobs) == len(plain.logprobs)
        told += drafted.accepted_tokens
    drawn = options.get("temperature", 0) > 0 or "logprobs" in options
    if drawn and model._guessing._exact_rows == 1:
        assert guessed == 0  # a draw, or a number that is told, would show which pass it came from
    assert options or (guessed > right > 0 and told)
    assert model.generate(PROMPTS[0], max_new_tokens=60).guessed_tokens == 0


@given(prompt=st.lists(st.integers(0, 3), max_size=12), ids=st.lists(st.integers(0, 3), min_size=1, max_size=12),
       count=st.integers(1, 4))
def test_guesses_are_what_followed_the_last_time(prompt: list[int], ids: list[int], count: int) -> None:
    text, lookup = [*prompt, *ids], Lookup()
    for end in range(1, len(ids)):
        lookup.propose(prompt, ids[:end], count)
    places = [place for place in range(SAME, len(text)) if text[place - SAME:place] == text[-SAME:]]
    assert lookup.propose(prompt, ids, count) == (text[places[-1]:places[-1] + count] if places else [])


class Says:
    """A draft's engine that counts upwards."""

    def __init__(self, context_length: int) -> None:
        self.context_length, self.held = context_length, list[int]()

    @property
    def position(self) -> int:
        return len(self.held)

    def truncate(self, length: int) -> None:
        del self.held[length:]

    def prefill(self, ids: list[int]) -> Any:
        self.held += ids
        return np.eye(10)[self.held[-1] + 1]

    def decode(self, token: int) -> Any:
        return self.prefill([token])


@pytest.mark.parametrize(("context", "vocabulary", "guesses"), [
    (100, 10, [4, 5, 6, 7]), (5, 10, [4, 5]), (3, 10, []), (100, 6, [4, 5]), (100, 4, [])])
def test_a_draft_guesses_what_fits_its_context_and_the_other_vocabulary(context: int, vocabulary: int,
                                                                       guesses: list[int]) -> None:
    engine: Any = Says(context)
    assert Draft(engine, vocabulary).propose([1, 2], [3], 4) == guesses
    assert engine.held[:3] == [1, 2, 3][:len(engine.held)]


@pytest.mark.parametrize(("parameters", "off"), [(49_999_999, True), (50_000_000, False), (None, False)])
def test_lookup_is_off_where_a_token_costs_little(parameters: int | None, off: bool, model: Generator,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model._guessing, "_parameters", parameters)
    assert (model.generate(PROMPTS[1], max_new_tokens=30, lookup=True).guessed_tokens == 0) == off


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
