"""Generators: greedy against torch, streams, stop strings, limits, loading."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from edgestill.models import kinds
from edgestill.models.errors import ArtifactError, DataError, UsageError
from edgestill.runtime import load
from edgestill.runtime.engines._base import Cache
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.text.chat_template import ChatTemplate
from edgestill.runtime.text.codec import Codec

from .. import packed
from .test_constraints import CALL

PROMPT = "turn off the kitchen light"


@pytest.fixture(scope="module", params=kinds.names("runtime.engines"))
def model(request: pytest.FixtureRequest, packed_llama: dict[str, Path]) -> Iterator[Generator]:
    with load(packed_llama[request.param], threads=1) as one:
        assert isinstance(one, Generator)
        yield one


class Scripted(Cache):
    """An engine that says given ids, whatever it is told."""

    vocabulary_size, context_length, threads, block = 384, 64, 1, 16

    def __init__(self, ids: list[int]) -> None:
        super().__init__()
        self.ids, self.said = ids, 0

    def prefill(self, ids: list[int]) -> np.ndarray:
        self.said = 0
        return self.decode(*ids)

    def decode(self, *ids: int) -> np.ndarray:
        self.held += ids
        logits = np.zeros(self.vocabulary_size, np.float32)
        logits[self.ids[self.said]] = 1.0
        self.said += 1
        return logits

    def reserve(self, length: int) -> None:
        pass


@pytest.fixture(scope="module")
def codec(tiny_llama: Path) -> Codec:
    return Codec.from_folder(tiny_llama)


def saying(codec: Codec, text: str, end: bool = True) -> Generator:
    ids = codec.encode(text) + ([codec.eos_id or 0] if end else [codec.encode("x")[0]] * 100)
    return Generator(Scripted(ids), codec)  # type: ignore[arg-type]


def test_greedy_is_what_torch_says(model: Generator, tiny_llama: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    float_model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    ids = model.codec.prompt_ids([{"role": "user", "content": PROMPT}])
    # A float16 cache may decide a near tie otherwise, so each token is compared given the same text before it.
    for token in model.generate_ids(ids, max_new_tokens=24).ids:
        with torch.no_grad():
            logits = float_model(torch.tensor([ids])).logits[0, -1]
        assert logits[token] >= logits.max() - 0.05
        ids = [*ids, token]


def test_every_way_in_gives_the_same_answer(model: Generator) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    first = model.generate(PROMPT, max_new_tokens=12)
    assert first.ids == model.generate(messages=messages, max_new_tokens=12).ids == model.chat(messages,
                                                                                               max_new_tokens=12).ids
    assert first.ids == model.generate_ids(model.codec.prompt_ids(messages), 12).ids
    pieces = list(model.stream(PROMPT, max_new_tokens=12))
    assert "".join(piece.text for piece in pieces) == first.text == model.codec.decode(first.ids)
    assert pieces[-1].done is not None and pieces[-1].done.ids == first.ids
    assert all(piece.done is None for piece in pieces[:-1])


def test_numbers_are_measured(model: Generator) -> None:
    found = model.generate(PROMPT, max_new_tokens=8)
    assert found.prompt_tokens == len(model.codec.prompt_ids([{"role": "user", "content": PROMPT}]))
    assert found.ttft_ms > 0 and (found.decode_tokens_per_s > 0) == (len(found.ids) > 1)


def test_sampling_repeats_with_its_seed(model: Generator) -> None:
    def draw(seed: int) -> list[int]:
        return model.generate(PROMPT, max_new_tokens=12, temperature=1.5, top_k=50, seed=seed).ids

    assert draw(1) == draw(1) != draw(2)


def test_answers_satisfy_a_schema(model: Generator) -> None:
    for options in ({}, {"temperature": 2.0, "seed": 3}):
        found = model.generate(PROMPT, schema=CALL, max_new_tokens=100, **options)
        assert found.finish_reason == "stop"
        jsonschema.validate(json.loads(found.text), CALL)


def test_the_task_limits_the_answer(codec: Codec, packed_llama: dict[str, Path]) -> None:
    endless = saying(codec, "", end=False)
    endless._max_new_tokens = 24
    assert (len(endless.generate("x").ids), endless.generate("x").finish_reason) == (24, "length")
    assert len(endless.generate("x", max_new_tokens=3).ids) == 3


def test_stop_tokens_end_and_stay_out(codec: Codec) -> None:
    found = saying(codec, "all done").generate("x")
    assert (found.text, found.finish_reason, found.ids) == ("all done", "stop", codec.encode("all done"))


def test_a_turn_that_ends_with_a_text_of_several_tokens_ends_there(codec: Codec) -> None:
    template = ChatTemplate({"default": "{% for m in messages %}{{ m.content }} [/turn]\n{% endfor %}"}, {})
    plain = Codec(codec.tokenizer, template, eos_id=codec.eos_id)
    found = saying(plain, "all done [/turn]\nand more").generate("x")
    assert (found.text, found.finish_reason) == ("all done ", "stop") and len(codec.encode("[/turn]")) > 1


@pytest.mark.parametrize(("stop", "text"), [
    (["kitchen"], "the "), (["kit", "zzz"], "the "), ("chen", "the kit"), (["nothing"], "the kitchen light"),
    ([""], "the kitchen light"),
    (["light"], "the kitchen "), (["lights"], "the kitchen light")])
def test_stop_strings_end_before_they_show(stop: Any, text: str, codec: Codec) -> None:
    pieces = list(saying(codec, "the kitchen light").stream("x", stop=stop))
    assert "".join(piece.text for piece in pieces) == text
    assert pieces[-1].done is not None
    assert (pieces[-1].done.text, pieces[-1].done.finish_reason) == (text, "stop")


def test_characters_are_streamed_whole(codec: Codec) -> None:
    pieces = [piece.text for piece in saying(codec, "你好 🙂!").stream("x")]
    assert "".join(pieces) == "你好 🙂!" and not any("\ufffd" in piece for piece in pieces)


def test_an_answer_ends_where_the_context_ends(codec: Codec) -> None:
    endless = saying(codec, "", end=False)
    prompt = codec.encode("abc")
    found = endless.generate_ids(prompt, 1000)
    assert (len(found.ids), found.finish_reason) == (64 - len(prompt), "length")
    with pytest.raises(UsageError, match="the prompt has 64 tokens, the context holds 64"):
        endless.generate_ids([5] * 64)
    with pytest.raises(UsageError, match="the prompt has 503 tokens, the context holds 64"):
        endless.generate("1" * 500)


@pytest.mark.parametrize(("options", "match"), [
    ({"temperature": -1.0}, "generate.temperature"), ({"top_p": 1.5}, "generate.top_p"),
    ({"min_p": -0.1}, "generate.min_p"),
    ({"top_k": -1}, "generate.top_k"), ({"max_new_tokens": 0}, "max_new_tokens: 0"),
    ({"repetition_penalty": 0.0}, "generate.repetition_penalty"), ({"presence_penalty": 3.0}, "above the limit 2"),
    ({"frequency_penalty": -3.0}, "below the limit -2"),
    ({"logprobs": 21}, "generate.logprobs: 21 is above the limit 20"),
    ({"logit_bias": {"5": 101.0}}, "'5': 101.0, token ids and -100 to 100"), ({"logit_bias": {"x": 1.0}}, "'x': 1.0"),
    ({"logit_bias": {384: 1.0}}, "token 384, the vocabulary has 384"),
    ({"stop_ids": [3, 384]}, "stop_ids: token 384, the vocabulary has 384"),
    ({"logit_bias": {10 ** 20: 1.0}}, "token 10{20}, the vocabulary has 384"),
    ({"overflow": "drop"}, "refuse, shift"),
    ({"reuse": "some"}, "exact, all, none"), ({"regex": "a", "choices": ["b"]}, "regex and choices"),
    ({"topk": 3}, "did you mean 'top_k'"), ({"stop": 3}, "generate.stop"),
    ({"schema": {"type": "objekt"}}, "schema: ")])
def test_settings_out_of_range_are_refused(options: dict[str, Any], match: str, codec: Codec) -> None:
    with pytest.raises(UsageError, match=match):
        saying(codec, "x").generate("x", **options)


def test_a_prompt_or_messages(codec: Codec) -> None:
    for given in ({}, {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}):
        with pytest.raises(UsageError, match="a prompt or messages"):
            saying(codec, "x").generate(**given)
    with pytest.raises(DataError, match="at least one message"):
        saying(codec, "x").generate(messages=[])
    for messages in ("hello", [1], {"role": "user"}, 3):
        with pytest.raises(UsageError, match="no list of messages"):
            saying(codec, "x").chat(messages)


@pytest.mark.parametrize(("ids", "match"), [([], "no token ids"), ([5, 10**6], "token id 1000000"),
                                            ([-1], "token id -1")])
def test_ids_that_are_none_of_the_models_are_refused(ids: list[int], match: str, model: Generator) -> None:
    model.generate("turn off the light", max_new_tokens=2)
    for ask in (model.generate_ids, model.score, lambda ids: list(model.stream_ids(ids))):
        with pytest.raises(UsageError, match=match):
            ask(ids)


def changed(source: Path, folder: Path, **changes: Any) -> Path:
    """A copy of an artifact with other keys in its manifest."""
    shutil.copytree(source, folder)
    return packed.resealed(folder, **changes)


def test_loading_checks_every_hash(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    folder = changed(packed_llama["gguf"], tmp_path / "copy")
    data = bytearray((folder / "model.gguf").read_bytes())
    data[-100] ^= 1
    (folder / "model.gguf").write_bytes(data)
    with pytest.raises(ArtifactError, match="SHA-256"):
        load(folder)
    load(folder, check_hashes=False).close()


def test_what_cannot_be_loaded_says_why(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stored as 'hf', which no engine here runs"):
        load(changed(packed_llama["gguf"], tmp_path / "hf", scheme="hf"))
    with pytest.raises(UsageError, match="classifiers run as onnx only"):
        load(changed(packed_llama["gguf"], tmp_path / "labels", task={"kind": "classify"}))
    for threads in (-1, 100_000):
        with pytest.raises(UsageError, match=f"threads: {threads} .* 0 to 512"):
            load(packed_llama["gguf"], threads=threads)
    with pytest.raises(UsageError, match="context: 1000"):
        load(packed_llama["onnx"], context=1000)
    folder = changed(packed_llama["gguf"], tmp_path / "other")
    table = json.loads((folder / "tokenizer.json").read_text())
    table["added_tokens"].append({**table["added_tokens"][0], "id": 384, "content": "<|new|>"})
    (folder / "tokenizer.json").write_text(json.dumps(table))
    (folder / "config.json").unlink()  # it would say how many tokens have a place in the embedding
    packed.resealed(folder)
    with pytest.raises(ArtifactError, match="the tokenizer has 385 tokens, the model 384"):
        load(folder)


def test_a_generation_is_plain_data(codec: Codec) -> None:
    assert json.loads(json.dumps(asdict(saying(codec, "x").generate("x"))))["text"] == "x"
