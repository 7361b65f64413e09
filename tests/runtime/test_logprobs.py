"""Tokens as bytes, and where they stand in a text; stop strings that are or hold special tokens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.runtime.generation.logprobs import Places, offsets, token_logprob
from edgestill.runtime.text import gguf_tokenizer
from edgestill.runtime.text.codec import Codec
from edgestill.runtime.text.token_stream import StopStrings
from hypothesis import given
from hypothesis import strategies as st

from .test_generator import saying

TEXT = "Grüße aus Köln 🙂 你好"


@pytest.fixture(scope="module")
def codec(tiny_llama: Path) -> Codec:
    return Codec.from_folder(tiny_llama)


@given(text=st.text(max_size=30))
def test_the_bytes_of_tokens_are_those_of_the_text(text: str, codec: Codec) -> None:
    ids = codec.encode(text)
    assert b"".join(map(codec.bytes_of, ids)) == codec.decode(ids, False).encode()
    found = offsets(text, [codec.bytes_of(token) for token in ids])
    assert found == [len(text.encode()[:sum(len(codec.bytes_of(one)) for one in ids[:place])].decode(errors="ignore"))
                     for place in range(len(ids))]


def test_a_gguf_file_gives_the_same_bytes(packed_llama: dict[str, Path], codec: Codec, tmp_path: Path) -> None:
    found = gguf_tokenizer.codec(Path(shutil.copy(packed_llama["gguf"] / "model.gguf", tmp_path / "x.gguf")))
    assert all(found.bytes_of(token) == codec.bytes_of(token) for token in range(codec.vocabulary_size))
    assert found.marks == codec.marks and "<|end|>" in found.marks.values()


@pytest.mark.parametrize("name", ["gpt2", "qwen2.5", "smollm2", "phi-3-mini"])
def test_the_bytes_of_real_tokenizers(name: str, shared: Path) -> None:
    codec = Codec.from_folder(shared / "tokenizers" / name)
    text = f"{TEXT} naïve\n\t  two 12345"
    ids = codec.encode(text)
    assert b"".join(map(codec.bytes_of, ids)).removeprefix(b" ").decode() == text
    found = offsets(text, [codec.bytes_of(token) for token in ids])
    assert found == sorted(found) and found[0] == 0
    assert text[found[-1]:] == codec.bytes_of(ids[-1]).decode().lstrip()
    places = Places(codec)
    assert [places.push(token) for token in ids] == found


def test_offsets_pass_over_what_is_not_in_the_text() -> None:
    assert offsets("Hé x", [b"<s>", b" H", b"\xc3", b"\xa9", b" ", b"x", b"</s>"]) == [0, 0, 1, 1, 2, 3, 4]
    assert offsets("<s>", [b"<s>", b"<s>"]) == [0, 3]
    assert offsets("", [b"<s>"]) == [0]


def test_answers_say_where_their_tokens_begin(codec: Codec) -> None:
    pieces = list(saying(codec, f"a<|user|>{TEXT}").stream("x", logprobs=0, stop=["never"]))
    text = "".join(piece.text for piece in pieces)
    assert text == "a" + TEXT
    begun = [one for piece in pieces for one in piece.logprobs]
    done = pieces[-1].done
    assert done is not None and [one.offset for one in begun] == [one.offset for one in done.logprobs]
    shown = [one for one in begun if one.id not in codec.marks]
    assert [one.offset for one in shown] == offsets(text, [codec.bytes_of(one.id) for one in shown])


@pytest.mark.parametrize(("stop", "text"), [
    ("<|user|>", "one "), (["two<|user|>"], "one "), (["<|user|> th"], "one two"), (["<|user|><|system|>"], None),
    (["zzz", "e<|user|>"], None)])
def test_stop_strings_may_be_or_hold_special_tokens(stop: Any, text: str | None, codec: Codec) -> None:
    whole = "one two<|user|> three" if stop != "<|user|>" else "one <|user|> three"
    answer = saying(codec, whole).generate("x", stop=stop)
    assert answer.text == (text if text is not None else whole.replace("<|user|>", ""))
    assert answer.finish_reason == "stop"
    assert (answer.ids[-1:] == codec.encode("<|user|>")) == (stop == "<|user|>" or stop == ["two<|user|>"])


@given(parts=st.lists(st.tuples(st.text("ab", max_size=3), st.sampled_from(["", "", "<m>", "<n>"])), max_size=8),
       stop=st.lists(st.text("ab<mn>", min_size=1, max_size=5), max_size=3))
def test_what_is_shown_ends_before_the_first_stop_string_of_the_whole(parts: list[tuple[str, str]],
                                                                      stop: list[str]) -> None:
    watch, said, whole, visible = StopStrings(stop), "", "", []
    for text, mark in parts:
        said += watch.push(text, mark)
        whole += text + mark
        visible += [True] * len(text) + [False] * len(mark)
        if watch.hit:
            break
    said += watch.flush()
    ends = [place for one in stop if (place := whole.find(one)) >= 0]
    assert watch.hit == bool(ends)
    end = min(ends, default=len(whole))
    assert said == "".join(letter for letter, shown in zip(whole[:end], visible, strict=False) if shown)


def test_the_likeliest_come_first_and_of_equals_the_lower_id() -> None:
    found = token_logprob(np.log(np.array([0.1, 0.4, 0.2, 0.2, 0.1], np.float32)), 2, 3)
    assert [id for id, _ in found.top] == [1, 2, 3] and found.logprob == pytest.approx(np.log(0.2))
    turned = token_logprob(np.log(np.array([0.2, 0.1, 0.7], np.float32)), 1, 2)
    assert [id for id, _ in turned.top] == [2, 0]
