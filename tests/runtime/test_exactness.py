"""Passes over several tokens that round otherwise than passes over one: found, and without a trace in answers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.models import kinds
from edgestill.runtime import load
from edgestill.runtime.engines import _gguf_streams
from edgestill.runtime.engines._batch_exactness import exact_rows
from edgestill.runtime.generation import run
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.generation.sampling import lead
from edgestill.runtime.loading.load import load_streams

PROMPTS = ["turn off the kitchen light", "abc abc abc abc", "the light, the light", "play a song by someone"]


class Rounding:
    """An engine whose passes over `first` or more tokens differ in the last bits."""

    vocabulary_size = 50

    def __init__(self, first: int, context_length: int = 64) -> None:
        self.first, self.context_length, self.held = first, context_length, list[int]()

    def truncate(self, length: int) -> None:
        del self.held[length:]

    def _row(self) -> Any:
        return np.random.default_rng(self.held).standard_normal(self.vocabulary_size).astype(np.float32)

    def decode(self, token: int) -> Any:
        self.held.append(token)
        return self._row()

    def extend(self, ids: list[int]) -> Any:
        rows = np.array([self.decode(token) for token in ids])
        return rows if len(ids) < self.first else np.nextafter(rows, np.float32(9))


@pytest.mark.parametrize(("first", "most", "found"), [(2, 16, 1), (3, 16, 2), (4, 16, 3), (8, 16, 7), (9, 16, 8),
                                                      (16, 16, 8), (99, 16, 16), (99, 5, 5), (99, 1, 1), (4, 4, 3)])
def test_how_many_rows_are_exact_is_measured(first: int, most: int, found: int) -> None:
    engine = Rounding(first)
    assert exact_rows(engine, most) == found  # type: ignore[arg-type]
    assert engine.held == []
    assert exact_rows(Rounding(99, 6), 16) == 6  # type: ignore[arg-type]


def test_the_lead_of_a_token() -> None:
    logits = np.array([1.0, 4.0, 3.5, -2.0], np.float32)
    assert (lead(logits, 1), lead(logits, 2)) == (0.5, -0.5)
    assert logits.tolist() == [1.0, 4.0, 3.5, -2.0]


@pytest.fixture(scope="module", params=kinds.names("runtime.engines"))
def model(request: pytest.FixtureRequest, packed_llama: dict[str, Path]) -> Iterator[Generator]:
    with load(packed_llama[request.param], threads=1) as one:
        assert isinstance(one, Generator)
        yield one


@pytest.mark.parametrize(("near", "same"), [(1.0, True), (0.0, False)])
def test_near_ties_of_a_guessed_pass_are_decided_without_guesses(near: float, same: bool, model: Generator,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass over several tokens has near ties the other way round here: the worst that rounding may do."""
    plain = [model.generate(prompt, max_new_tokens=60).ids for prompt in PROMPTS]
    fast = model.engine.extend

    def turned(ids: list[int]) -> Any:
        rows = np.array(fast(ids))
        for row in rows:
            second, first = np.argsort(row)[-2:]
            if row[first] - row[second] < 0.9:
                row[first], row[second] = row[second], row[first]
        return rows

    monkeypatch.setattr("edgestill.runtime.generation.guessing.SMALLEST", 0)
    monkeypatch.setattr(model.engine, "extend", turned)
    monkeypatch.setattr(run, "NEAR", near)
    monkeypatch.setitem(model._guessing.__dict__, "_exact_rows", 1)
    looked = [model.generate(prompt, max_new_tokens=60, lookup=True) for prompt in PROMPTS]
    assert sum(one.guessed_tokens for one in looked) > 0 and ([one.ids for one in looked] == plain) == same


@pytest.mark.parametrize("together", [1, 2, 3])
def test_streams_share_a_pass_only_as_far_as_it_is_exact(together: int, packed_llama: dict[str, Path],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gguf_streams, "exact_rows", lambda engine, most: min(most, together))
    sizes = []
    fast = _gguf_streams.Driver._decode

    def noted(self: Any, asked: Any, streams: Any) -> Any:
        sizes.append(len(streams))
        return fast(self, asked, streams)

    monkeypatch.setattr(_gguf_streams.Driver, "_decode", noted)
    monkeypatch.setattr(_gguf_streams, "_PATIENCE", 0.2)
    models = load_streams(packed_llama["gguf"], 3, 1)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda pair: pair[0].generate(pair[1], max_new_tokens=20, stop_ids=[]).ids,
                              zip(models, PROMPTS, strict=False)))
    models[0].close()
    assert max(sizes) <= together and (together == 1 or max(sizes) > 1)
    with load(packed_llama["gguf"], threads=1) as alone:
        assert [len(ids) for ids in found] == [20] * 3
        if together == 1:
            assert found == [alone.generate(prompt, max_new_tokens=20, stop_ids=[]).ids for prompt in PROMPTS[:3]]
