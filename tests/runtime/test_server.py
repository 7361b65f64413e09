"""The server as OpenAI's own client sees it: chats, streams, structure, tools, texts, vectors, labels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import openai
import pytest
from edgestill.models import kinds
from edgestill.runtime import load
from edgestill.runtime.loading.load import load_streams
from edgestill.runtime.server.work_queue import Station

from ..serving import Running, running

QUESTION = [{"role": "user", "content": "turn off the kitchen light"}]
SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
          "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "turn_off", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module", params=kinds.names("runtime.engines"))
def one(request: pytest.FixtureRequest, packed_llama: dict[str, Path]) -> Iterator[Running]:
    with running([Station(request.param, load_streams(packed_llama[request.param], 2, 1), 8)]) as found:
        yield found


def test_a_chat_says_what_the_model_says(one: Running, packed_llama: dict[str, Path]) -> None:
    answer = one.client().chat.completions.create(model="any", messages=QUESTION, max_tokens=12)
    name = one.client().models.list().data[0].id
    with load(packed_llama[name], threads=1) as model:
        wanted = model.chat(QUESTION, max_new_tokens=12)
    assert answer.choices[0].message.content == wanted.text
    assert answer.choices[0].finish_reason == wanted.finish_reason
    assert answer.usage.prompt_tokens == wanted.prompt_tokens
    assert answer.usage.completion_tokens == len(wanted.ids)
    assert answer.model == name
    assert answer.timings["ttft_ms"] > 0 and answer.timings["queue_ms"] >= 0


def test_a_stream_sums_to_the_answer(one: Running) -> None:
    client = one.client()
    whole = client.chat.completions.create(model="", messages=QUESTION, max_tokens=12, logprobs=True, top_logprobs=2)
    chunks = list(client.chat.completions.create(model="", messages=QUESTION, max_tokens=12, logprobs=True,
                                                 top_logprobs=2, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens and not chunks[-1].choices
    scores = [token for c in chunks if c.choices and c.choices[0].logprobs for token in c.choices[0].logprobs.content]
    assert [t.token for t in scores] == [t.token for t in whole.choices[0].logprobs.content]
    assert len(scores) == whole.usage.completion_tokens and all(len(token.top_logprobs) == 2 for token in scores)
    assert all(token.logprob == token.top_logprobs[0].logprob for token in scores)


def test_answers_are_bound_and_drawn_as_asked(one: Running) -> None:
    client = one.client()
    bound = client.chat.completions.create(
        model="", messages=QUESTION, response_format={"type": "json_schema", "json_schema": {
            "name": "light", "schema": SCHEMA, "strict": True}})
    assert set(json.loads(bound.choices[0].message.content)) == {"on"}
    three = client.chat.completions.create(model="", messages=QUESTION, max_tokens=8, n=3, temperature=1.5, seed=7)
    again = client.chat.completions.create(model="", messages=QUESTION, max_tokens=8, n=3, temperature=1.5, seed=7)
    texts = [choice.message.content for choice in three.choices]
    assert texts == [choice.message.content for choice in again.choices] and len(set(texts)) > 1
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    chosen = client.chat.completions.create(model="", messages=QUESTION, extra_body={"choices": ["yes", "no"]})
    assert chosen.choices[0].message.content in ("yes", "no")
    parts = [{"role": "user", "content": [{"type": "text", "text": "turn off "}, {"type": "text", "text": "it"}]}]
    client.chat.completions.create(model="", messages=parts, max_tokens=1)


def test_texts_are_scored_for_evaluation_harnesses(one: Running, packed_llama: dict[str, Path]) -> None:
    client = one.client()
    name = client.models.list().data[0].id
    with load(packed_llama[name], threads=1) as model:
        ids = model.codec.plain_ids("the kitchen light is on")
        wanted = [score.logprob for score in model.score(ids)]
        tokens = [model.codec.decode([token], False) for token in ids]
        further = model.generate_ids(ids, 4)
        further_text = model.codec.decode(further.ids)
    for prompt in ("the kitchen light is on", ids):
        found = client.completions.create(model="", prompt=prompt, max_tokens=1, logprobs=1, echo=True, seed=1234,
                                          temperature=0).choices[0]
        assert found.logprobs.tokens[:-1] == tokens
        assert found.logprobs.token_logprobs[0] is None
        assert found.logprobs.token_logprobs[1:-1] == pytest.approx(wanted)
        for own, top in zip(found.logprobs.token_logprobs[1:], found.logprobs.top_logprobs[1:], strict=True):
            assert own <= max(top.values())
        assert found.logprobs.text_offset == list(accumulate(map(len, tokens), initial=0))
    text = "Grüße 🙂"
    found = client.completions.create(model="", prompt=text, max_tokens=1, logprobs=1, echo=True).choices[0]
    assert bytes(byte for own in found.logprobs.bytes[:-1] for byte in own).decode() == text
    assert [text[place] for place in found.logprobs.text_offset[-3:-1]] == ["🙂"] * 2
    assert found.logprobs.tokens[-2].startswith("bytes:\\x")
    both = client.completions.create(model="", prompt=["the kitchen light is on", "go"], max_tokens=4)
    assert [choice.index for choice in both.choices] == [0, 1]
    assert both.choices[0].text == further_text
    assert both.usage.prompt_tokens > len(ids)
    nothing = client.completions.create(model="", prompt="the light", max_tokens=0, echo=True)
    assert nothing.choices[0].text == "the light" and nothing.usage.completion_tokens == 0


def test_tools_of_a_model_that_knows_none_are_refused(one: Running) -> None:
    with pytest.raises(openai.BadRequestError, match="tools"):
        one.client().chat.completions.create(model="", messages=QUESTION, tools=[TOOL])
    free = one.client().chat.completions.create(model="", messages=QUESTION, tools=[TOOL], tool_choice="none",
                                                max_tokens=2)
    assert free.usage.completion_tokens == 2


def test_vectors(several: Running) -> None:
    client = several.client()
    texts = ["turn off the light", "play some music"]
    packed_bytes = client.embeddings.create(model="vectors", input=texts)
    plain = client.embeddings.create(model="vectors", input=texts, encoding_format="float")
    for one, other in zip(packed_bytes.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding) and len(one.embedding) == 64
        assert math.hypot(*one.embedding) == pytest.approx(1, abs=1e-4)
    assert plain.usage.prompt_tokens > 4
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="vectors", input=texts, dimensions=8)


def test_labels(several: Running, packed_bert: Path) -> None:
    text = "turn off the light"
    with load(packed_bert, threads=1) as model:
        wanted = model.classify(text)
    status, found, _ = several.ask("POST", "/classify", {"model": "labels", "text": [text], "top_k": 2})
    assert status == 200 and found["results"][0]["label"] == wanted.label
    assert found["results"][0]["probability"] == pytest.approx(wanted.probability)
    assert len(found["results"][0]["probabilities"]) == 2
    client, question = several.client(), [{"role": "system", "content": "Label it."}, {"role": "user", "content": text}]
    assert client.chat.completions.create(model="labels", messages=question).choices[0].message.content == wanted.label
    schema = {"type": "object", "properties": {"intent": {"type": "string", "enum": ["light", "music", "weather"]}}}
    bound = client.chat.completions.create(model="labels", messages=question, response_format={
        "type": "json_schema", "json_schema": {"name": "intent", "schema": schema}})
    assert json.loads(bound.choices[0].message.content) == {"intent": wanted.label}
    streamed = client.chat.completions.create(model="labels", messages=question, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == wanted.label
    for wrong in ({}, {"a": {}, "b": {}}):
        with pytest.raises(openai.BadRequestError, match="one property"):
            client.chat.completions.create(model="labels", messages=question, response_format={
                "type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": wrong}}})


def test_models_are_named(several: Running) -> None:
    client = several.client()
    assert [model.id for model in client.models.list()] == ["text", "labels", "vectors"]
    assert client.models.retrieve("labels").task == "classify"
    with pytest.raises(openai.NotFoundError, match="'gpt-4' is not served, there are text, labels, vectors"):
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="made to generate"):
        client.embeddings.create(model="text", input="a")


def test_a_name_may_have_blanks(packed_bert: Path) -> None:
    with running([Station("two words", load_streams(packed_bert, 1, 1), 8)]) as found:
        assert found.client().models.retrieve("two words").id == "two words"
        assert found.ask("HEAD", "/v1/models/two%20words")[:2] == (200, b"")
        assert found.ask("GET", "/v1/models/two%20words/more")[0] == 404


def test_health_counts_and_the_page(several: Running) -> None:
    before = several.metric('edgestill_completion_tokens_total{model="text"}')
    several.client().chat.completions.create(model="text", messages=QUESTION, max_tokens=3)
    assert several.metric('edgestill_completion_tokens_total{model="text"}') == before + 3
    assert several.metric('edgestill_waiting{model="text"}') == 0
    assert several.ask("GET", "/health")[:2] == (200, {"status": "ok"})
    status, page, headers = several.ask("GET", "/")
    nonce = headers["content-security-policy"].partition("'nonce-")[2].partition("'")[0]
    assert status == 200 and page.count(f'nonce="{nonce}"'.encode()) == 2 and b"{nonce}" not in page


def test_times_are_told_as_histograms(packed_llama: dict[str, Path], packed_bert: Path) -> None:
    stations = [Station("text", load_streams(packed_llama["gguf"], 1, 1), 8),
                Station("labels", load_streams(packed_bert, 1, 1), 8)]
    with running(stations) as found:
        asked = {"model": "text", "messages": QUESTION, "max_tokens": 3, "n": 2, "stream": False}
        timings = found.ask("POST", "/v1/chat/completions", asked)[1]["timings"]
        assert found.ask("POST", "/classify", {"model": "labels", "text": "a"})[0] == 200

        def told(name: str, part: str, model: str = "text") -> float:
            return found.metric(f'edgestill_{name}_seconds_{part}{{model="{model}"}}')

        for name, count in (("time_to_first_token", 1), ("time_per_output_token", 2), ("queue", 1), ("answer", 1)):
            assert told(name, "count") == count, name
        first = (timings["queue_ms"] + timings["ttft_ms"]) / 1000
        assert told("time_to_first_token", "sum") == pytest.approx(first, abs=2e-6)
        assert told("queue", "sum") == pytest.approx(timings["queue_ms"] / 1000, abs=1e-6)
        assert told("answer", "sum") == pytest.approx(timings["total_ms"] / 1000, abs=1e-6)
        assert 0 < told("time_per_output_token", "sum") < told("answer", "sum")
        assert [told(name, "count", "labels") for name in ("answer", "queue", "time_to_first_token")] == [1, 1, 0]
        assert found.metric('edgestill_answer_seconds_bucket{le="+Inf",model="text"}') == 1
        headers = found.ask("GET", "/metrics", Accept="application/openmetrics-text; version=1.0.0")[2]
        assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")


def test_answers_do_not_depend_on_load(packed_llama: dict[str, Path]) -> None:
    prompts = ["turn off the kitchen light", "play some music " * 12, "a", "what is the weather in the hall " * 6]
    for name in kinds.names("runtime.engines"):
        with load(packed_llama[name], threads=1) as model:
            wanted = {prompt: model.generate(prompt, max_new_tokens=24).ids for prompt in prompts}
        with running([Station(name, load_streams(packed_llama[name], 4, 1), 64)]) as served:
            station = served.service.stations[name]
            assert station.streams == 4
            client = served.client()

            def ask(prompt: str, client: openai.OpenAI = client) -> tuple[str, str]:
                answer = client.chat.completions.create(model="", messages=[{"role": "user", "content": prompt}],
                                                        max_tokens=24, logprobs=True)
                return prompt, "".join(token.token for token in answer.choices[0].logprobs.content)

            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(ask, prompts * 6))
            codec = station.model.codec
        for prompt, text in found:
            assert text == "".join(codec.decode([token], False) for token in wanted[prompt]), (name, prompt)
