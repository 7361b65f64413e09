"""What may be asked of an answer, on every engine: penalties, stops, log-probabilities, cancelling, a full context."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import kinds
from edgestill.models.errors import UsageError
from edgestill.runtime import load
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.generation.options import Options
from edgestill.runtime.generation.run import shifted
from edgestill.runtime.generation.sampling import Penalties, Sampling
from edgestill.runtime.text.token_stream import StopStrings
from hypothesis import given, settings
from hypothesis import strategies as st

PROMPT = "turn off the kitchen light"


@pytest.fixture(scope="module", params=kinds.names("runtime.engines"))
def model(request: pytest.FixtureRequest, packed_llama: dict[str, Path]) -> Iterator[Generator]:
    with load(packed_llama[request.param], threads=1) as one:
        assert isinstance(one, Generator)
        yield one


@settings(max_examples=200)
@given(pieces=st.lists(st.text("ab<", max_size=4), max_size=12), stop=st.lists(st.text("ab<", max_size=5), max_size=3))
def test_no_part_of_a_stop_string_shows(pieces: list[str], stop: list[str]) -> None:
    watch = StopStrings(stop)
    shown = "".join([*(watch.push(piece) for piece in pieces), "" if watch.hit else watch.flush()])
    whole = "".join(pieces)
    places = [whole.find(text) for text in stop if text and text in whole]
    # The earliest that is complete first: a longer one that began before it was not yet there.
    assert shown == (whole[:len(shown)]) and watch.hit == bool(places)
    assert not any(text in shown for text in stop if text)
    assert shown == whole or any(whole[len(shown):].startswith(text) for text in stop if text)


@settings(max_examples=60)
@given(table=st.dictionaries(st.sampled_from([*Options.__dataclass_fields__, "other"]), st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(allow_nan=True), st.text(max_size=3),
    st.lists(st.text(max_size=2), max_size=2))))
def test_options_are_built_or_refused_by_name(table: dict[str, Any]) -> None:
    try:
        options = Options.of(table)
    except UsageError as error:
        assert "generate" in error.message
    else:
        assert 0 <= options.temperature <= 100 and options.seed >= 0 and "other" not in table


@pytest.mark.parametrize("penalty", [0.7, 1.3])
def test_the_repetition_penalty_is_transformers_own(penalty: float) -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = np.random.default_rng(0).normal(size=50).astype(np.float32)
    wanted = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([[3, 4, 3, 7]]), torch.tensor(logits)[None])[0]
    penalties = Penalties(Sampling(repetition_penalty=penalty), [3, 4], 50)
    penalties.accept(3)
    penalties.accept(7)
    penalties.apply(logits)
    np.testing.assert_allclose(logits, wanted.numpy(), rtol=1e-6)


def test_presence_frequency_and_bias_count_the_answer_alone() -> None:
    logits = np.zeros(10, np.float32)
    penalties = Penalties(Sampling(presence_penalty=0.5, frequency_penalty=0.25, logit_bias={"9": 3.0}), [1, 2], 10)
    for token in (4, 4, 5):
        penalties.accept(token)
    penalties.apply(logits)
    assert logits.tolist() == [0, 0, 0, 0, -1.0, -0.75, 0, 0, 0, 3.0]


def test_penalties_and_bias_change_answers(model: Generator) -> None:
    plain = model.generate(PROMPT, max_new_tokens=16).ids
    assert len(set(model.generate(PROMPT, max_new_tokens=16, frequency_penalty=2.0, repetition_penalty=5.0).ids)) == 16
    banned = model.generate(PROMPT, max_new_tokens=16, logit_bias={plain[0]: -100}).ids
    assert plain[0] not in banned
    assert set(model.generate(PROMPT, max_new_tokens=5, logit_bias={"77": 100}).ids) == {77}


def test_stop_ids_end_an_answer(model: Generator) -> None:
    plain = model.generate(PROMPT, max_new_tokens=16)
    end = next(index for index, token in enumerate(plain.ids) if index > 2 and token not in plain.ids[:index])
    found = model.generate(PROMPT, max_new_tokens=16, stop_ids=[plain.ids[end]])
    assert (found.ids, found.finish_reason) == (plain.ids[:end], "stop")


def test_logprobs_are_the_models_own(model: Generator) -> None:
    ids = model.codec.prompt_ids([{"role": "user", "content": PROMPT}])
    found = model.generate_ids(ids, 8, logprobs=3, temperature=2.0, presence_penalty=1.0, seed=4)
    logits = model.engine.logits([*ids, *found.ids])[len(ids) - 1:-1].astype(np.float64)
    wanted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for row, scored, token in zip(wanted, found.logprobs, found.ids, strict=True):
        assert scored.id == token and scored.logprob == pytest.approx(row[token], abs=0.01)
        best = np.argsort(-row)[:3]
        assert [logprob for _, logprob in scored.top] == pytest.approx(row[best].tolist(), abs=0.01)
    again = model.score([*ids, *found.ids], top=2)[len(ids) - 1:]
    assert [one.logprob for one in again] == pytest.approx([one.logprob for one in found.logprobs], abs=0.01)
    assert len(model.score(ids)) == len(ids) - 1
    pieces = list(model.stream(PROMPT, max_new_tokens=8, logprobs=0))
    assert pieces[-1].done is not None
    assert [one for piece in pieces for one in piece.logprobs] == pieces[-1].done.logprobs


def test_batches_answer_as_alone(model: Generator) -> None:
    prompts: list[Any] = [PROMPT, "what time is it", [{"role": "user", "content": PROMPT}], "a" * 70]
    alone = []
    for prompt in reversed(prompts):
        model.engine.truncate(0)
        alone.append(model.generate_all([prompt], max_new_tokens=12)[0].ids)
    assert [found.ids for found in model.generate_all(prompts, max_new_tokens=12)] == alone[::-1]
    drawn = model.generate_all([PROMPT], n=3, temperature=2.0, seed=5, max_new_tokens=12)
    assert [found.ids for found in drawn] == [
        model.generate(PROMPT, temperature=2.0, seed=seed, max_new_tokens=12).ids for seed in (5, 6, 7)]
    with pytest.raises(UsageError, match="generate.n: 0"):
        model.generate_all([PROMPT], n=0)


def test_answers_end_between_tokens_when_cancelled(model: Generator) -> None:
    cancel = threading.Event()
    pieces = []
    for piece in model.stream(PROMPT, max_new_tokens=100, cancel=cancel):
        pieces.append(piece)
        cancel.set()
    done = pieces[-1].done
    assert done is not None and done.finish_reason == "cancelled" and len(done.ids) < 12
    assert model.generate(PROMPT, cancel=cancel).finish_reason == "cancelled"
    long = "light " * 30
    assert model.generate(long, cancel=threading.Event(), max_new_tokens=9).ids == model.generate(
        long, max_new_tokens=9, reuse="none").ids
    stream = model.stream(PROMPT, max_new_tokens=100)
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # whoever leaves closes the generator
    assert model.generate(PROMPT, max_new_tokens=9).ids == model.generate(PROMPT, max_new_tokens=9, reuse="none").ids


def test_a_full_context_is_refused_or_shifted(packed_llama: dict[str, Path]) -> None:
    for folder in packed_llama.values():
        with load(folder, threads=1, context=64) as small:
            assert isinstance(small, Generator)
            messages = [{"role": "system", "content": "You are short."}, {"role": "user", "content": "a b c " * 30}]
            with pytest.raises(UsageError, match="the context holds 64"):
                small.chat(messages)
            found = small.chat(messages, overflow="shift", max_new_tokens=100, logit_bias={"0": -100, "4": -100},
                               stop_ids=[])
            head = small.codec.render([messages[0]], add_generation_prompt=False)
            assert small.codec.decode(small.engine.held, False).startswith(head)
            assert len(found.ids) > 64 or found.finish_reason == "stop"
            assert len(small.engine.held) <= 64
            with pytest.raises(UsageError, match="the system message has"):
                small.chat([{"role": "system", "content": "a b c " * 30}, messages[1]], overflow="shift")


def test_shifting_keeps_the_head_and_the_newest() -> None:
    ids = list(range(100))
    assert shifted(ids, 10, 101) == ids
    assert shifted(ids, 10, 100) == [*range(10), *range(55, 100)]
    assert shifted(ids, 10, 40) == [*range(10), *range(78, 100)]


@pytest.mark.parametrize("reuse", ["exact", "all", "none"])
def test_what_was_read_before_is_not_read_again(reuse: str, model: Generator) -> None:
    model.engine.truncate(0)
    talk = [{"role": "user", "content": "light " * 45}]
    first = model.chat(talk, max_new_tokens=12, reuse=reuse)
    talk += [{"role": "assistant", "content": first.text}, {"role": "user", "content": PROMPT}]
    second = model.chat(talk, max_new_tokens=12, reuse=reuse)
    least = {"exact": first.prompt_tokens // 64 * 64, "all": first.prompt_tokens - 2, "none": 0}[reuse]
    assert first.cached_tokens == 0 and least <= second.cached_tokens < second.prompt_tokens
    if reuse != "all":
        assert second.ids == model.chat(talk, max_new_tokens=12, reuse="none").ids
    assert (second.cached_tokens == 0) == (reuse == "none")


def test_an_answer_depends_on_its_prompt_alone(model: Generator) -> None:
    def logits(prompt: str, reuse: str) -> bytes:
        model.generate(prompt, max_new_tokens=1, reuse=reuse)
        model.engine.decode(7)
        return model.engine.decode(9).tobytes()

    texts = ["light " * length for length in (20, 60, 25, 61, 30)]
    fresh = [logits(text, "none") for text in texts]
    assert [logits(text, "exact") for text in texts] == fresh
