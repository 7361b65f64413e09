"""Batches: what is learned from, padded to little, in an order that can be taken up at any step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from edgestill.distill.data.batches import Schedule, next_tokens, whole_rows
from edgestill.distill.data.token_sets import TokenSet, everything
from edgestill.distill.tasks import generate
from edgestill.distill.training.token_cache import tokenize
from edgestill.models.errors import DataError
from edgestill.models.task import Task
from edgestill.runtime.data import learned_tokens
from edgestill.runtime.data.reader import Row
from edgestill.runtime.text.codec import Codec
from hypothesis import given, settings
from hypothesis import strategies as st


def chat(question: str, answer: str) -> Row:
    return Row(messages=({"role": "user", "content": question}, {"role": "assistant", "content": answer}), where="t:1")


ROWS = [chat(f"turn off the light {'please ' * (index % 7)}", f"answer {index}") for index in range(53)]


@pytest.fixture()
def codec(tiny_llama: Path) -> Codec:
    return Codec.from_folder(tiny_llama)


def token_set(lengths: list[int]) -> TokenSet:
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    return everything(TokenSet(np.arange(offsets[-1], dtype=np.int32), offsets, np.ones(offsets[-1], dtype=np.bool_),
                               np.zeros(len(lengths), dtype=np.int32), np.arange(len(lengths), dtype=np.int32), 0))


def test_only_completions_are_learned_from(codec: Codec) -> None:
    tokens = tokenize(ROWS, codec, Task(), 256)
    schedule = Schedule(tokens, 8, 100000, 0, next_tokens, pad_id=4)
    for batch in schedule.step(0):
        width = batch.ids.shape[1]
        seen = torch.split(batch.labels, batch.counts)
        places = torch.split(batch.positions, batch.counts)
        for place, (row, labels, positions) in enumerate(zip(batch.rows, seen, places, strict=True)):
            ids, start = learned_tokens.training_ids(codec, ROWS[row])
            assert labels.tolist() == ids[start:]
            assert positions.tolist() == [place * width + t - 1 for t in range(start, len(ids))]
            assert codec.decode(labels.tolist()).startswith("answer")
            assert int(labels[-1]) in codec.stop_ids
        assert batch.tokens == sum(int(tokens.lengths[row]) for row in batch.rows)


def test_plain_texts_are_packed_and_every_token_is_predicted_once(codec: Codec) -> None:
    texts = [Row(text=f"the weather today is number {index}") for index in range(9)]
    tokens = tokenize(texts, codec, Task(), 16)
    stream = [token for row in texts for token in learned_tokens.training_ids(codec, row)[0]]
    assert max(tokens.lengths) == 16 and tokens.left_out == 0
    learned = [int(token) for index in range(len(tokens)) for token in tokens.row(index)[1:]]
    assert learned == stream[1:]
    firsts = np.isin(np.arange(len(tokens.ids)), tokens.offsets[:-1])  # nothing stands before them to predict them
    for each in tokens, everything(tokens):
        assert (each.learned == ~firsts).all()


def test_texts_to_classify_carry_their_label(tiny_bert: Path) -> None:
    codec = Codec.from_folder(tiny_bert)
    rows = [Row(text="play some music", label="music", where="a:1"), Row(text="lamp", label="light", where="a:2")]
    tokens = tokenize(rows, codec, Task("classify", labels=["light", "music"]), 64)
    (batch,) = Schedule(tokens, 2, 4096, 0, whole_rows).step(0)
    assert {(row, int(label)) for row, label in zip(batch.rows, batch.labels, strict=True)} == {(0, 1), (1, 0)}
    assert batch.mask is not None and int(batch.mask.sum()) == batch.tokens
    with pytest.raises(DataError, match="a:2.*'light'"):
        tokenize(rows, codec, Task("classify", labels=["music"]), 64)


def test_rows_that_are_too_long_are_left_out_and_counted(codec: Codec) -> None:
    tokens = tokenize([*ROWS, chat("x " * 400, "y")], codec, Task(), 128)
    assert tokens.left_out == 1 and len(tokens) == len(ROWS)
    with pytest.raises(DataError, match="max_tokens = 8"):
        tokenize(ROWS, codec, Task(), 8)


def test_the_cache_is_read_back_and_a_damaged_one_is_made_again(codec: Codec, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    first = tokenize(ROWS, codec, Task(), 256, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patched:
        patched.setattr(generate.Kind, "examples", lambda *a: pytest.fail("the cache was not used"))
        again = tokenize(ROWS, codec, Task(), 256, cache=tmp_path)
    for name in ("ids", "offsets", "learned", "targets", "sources"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    file.write_bytes(file.read_bytes()[:-100])
    np.testing.assert_array_equal(tokenize(ROWS, codec, Task(), 256, cache=tmp_path).ids, first.ids)


def test_the_cache_key_holds_all_that_ids_depend_on(codec: Codec, tiny_llama: Path, tmp_path: Path) -> None:
    tokenize(ROWS, codec, Task(), 256, cache=tmp_path)
    tokenize(ROWS, codec, Task(), 255, cache=tmp_path)
    tokenize(ROWS[1:], codec, Task(), 256, cache=tmp_path)
    tokenize(ROWS, Codec.from_folder(tiny_llama, Task(system="be brief")), Task(), 256, cache=tmp_path)
    other = Codec.from_folder(tiny_llama)
    other.tokenizer.add_tokens(["light"])
    tokenize(ROWS, other, Task(), 256, cache=tmp_path)
    tokenize(ROWS, codec, Task(), 256, cache=tmp_path, learn="last")
    tokenize(ROWS, Codec.from_folder(tiny_llama, Task(template_options={"enable_thinking": False})), Task(), 256,
             cache=tmp_path)
    tokenize(ROWS, codec.changed({}, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"), Task(), 256,
             cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 8


def test_every_turn_is_learned_or_the_last_alone_and_never_one_of_weight_0(codec: Codec) -> None:
    talk = Row(messages=tuple({"role": role, "content": f"{role} {number}"} for number in range(3)
                              for role in ("user", "assistant")), where="t:1")
    read = replace(talk, unlearned=(1, 5))
    nothing = replace(talk, unlearned=(1, 3, 5))
    for rows, learn, wanted in (([talk], "all", ["0", "1", "2"]), ([talk], "last", ["2"]), ([read], "all", ["1"]),
                                ([read, nothing], "last", ["1"])):
        tokens = tokenize(rows, codec, Task(), 256, learn=learn)
        (batch,) = Schedule(tokens, 8, 4096, 0, next_tokens).step(0)
        said = codec.decode(batch.labels.tolist(), False)
        assert said == "".join(f"assistant {number}<|end|>" for number in wanted)
        assert batch.ids.flatten()[batch.positions + 1].tolist() == batch.labels.tolist()
        assert tokens.unlearned == len(rows) - 1
    before = tokenize([read], codec, Task(), 256).ids.tolist()
    assert "user 0" in codec.decode(before, False)  # read as what came before
    with pytest.raises(DataError, match="no row is left.*1 have nothing to learn"):
        tokenize([nothing], codec, Task(), 256)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=60), size=st.integers(1, 9),
       limit=st.integers(16, 200))
def test_an_epoch_holds_every_row_once_within_the_limits(lengths: list[int], size: int, limit: int) -> None:
    schedule = Schedule(token_set(lengths), size, limit, 3, next_tokens)
    seen = []
    for step in range(schedule.steps_per_epoch):
        rows = 0
        for batch in schedule.step(step):
            assert batch.ids.numel() <= limit or len(batch.rows) == 1
            seen += batch.rows
            rows += len(batch.rows)
        assert rows <= size
    assert sorted(seen) == list(range(len(lengths)))


def test_any_step_can_be_asked_for_and_epochs_differ() -> None:
    tokens = token_set([3 + index % 9 for index in range(40)])

    def rows(step: int, seed: int = 0) -> list[list[int]]:
        return [batch.rows for batch in Schedule(tokens, 4, 4096, seed, next_tokens).step(step)]

    running = Schedule(tokens, 4, 4096, 0, next_tokens)
    in_order = [[batch.rows for batch in running.step(step)] for step in range(25)]
    assert in_order == [rows(step) for step in range(25)]
    assert in_order[0] != in_order[10] and rows(0) != rows(0, seed=1)


def test_rows_of_like_length_stand_together() -> None:
    random = np.random.default_rng(0)
    tokens = token_set([int(length) for length in random.integers(4, 60, 2000)])
    schedule = Schedule(tokens, 16, 100000, 0, next_tokens)
    found = [batch for step in range(schedule.steps_per_epoch) for batch in schedule.step(step)]
    assert sum(batch.tokens for batch in found) / sum(batch.ids.numel() for batch in found) > 0.95
    assert all((batch.mask is None) == (batch.tokens == batch.ids.numel()) for batch in found)
