"""What a request asks of a model: OpenAI's fields as options of our own, and the work that answers them."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...models.errors import DataError
from ..data import answers
from ..encoders.classifier import Classifier
from ..generation.generator import Generator
from ..generation.logprobs import TokenLogprob, offsets
from ..generation.result import Generation, Piece
from ..text.tool_calls import ToolCall
from . import known, labels, messages, thinking, validation
from .handing import handed_on
from .structures import fields, structure
from .validation import Refusal

_RANGES = {"temperature": (0, 100), "top_p": (0, 1), "min_p": (0, 1), "presence_penalty": (-2, 2),
           "frequency_penalty": (-2, 2), "repetition_penalty": (0.01, 100), "repeat_penalty": (0.01, 100)}


_LIMITS = ("max_tokens", "max_completion_tokens", "n_predict")


@dataclass(frozen=True)
class Part:
    """What has become of one of a request's answers."""

    index: int
    piece: Piece
    calls: list[ToolCall]
    thoughts: str = ""
    """What it adds to the reasoning before the answer."""


@dataclass(frozen=True)
class Asked:
    """A request for answers."""

    draws: int
    """Answers to each prompt."""
    work: Callable[[Any, threading.Event], Iterator[Part]]
    logprobs: bool = False
    handed: dict[str, Any] | None = None
    """The request as another server takes it, where it can be asked."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What the request calls the runtime's options, where it has other words: errors say its own."""


def chat(body: Mapping[str, Any], scored: bool = False) -> Asked:
    """A request to /v1/chat/completions; Refusal names the field that is wrong. `scored` answers come with the
    log-probabilities of their tokens, asked for or not."""
    known.check(body, known.CHAT)
    conversation, tools = messages.messages(body), messages.tools(body)
    choice, tools = messages.choice(body, tools)
    options, draws, seed = _options(body)
    parallel = body.get("parallel_tool_calls") is None or validation.flag(body, "parallel_tool_calls")
    logprobs, top = validation.flag(body, "logprobs"), validation.number(body, "top_logprobs", 0, 20, True)
    if top and not logprobs:
        raise Refusal("top_logprobs: takes logprobs: true beside it", "top_logprobs")
    thinking.check(body)
    split, shown = body.get("reasoning_format") != "none", body.get("include_reasoning") is not False
    bound = structure(body)
    if tools and bound not in ({}, {"schema": False}) and not ("schema" in bound and choice == "auto"):
        raise Refusal(f"tools: calls and {', '.join(bound)} cannot both bind one answer; leave one of them out, or "
                      "give tool_choice none", "tools", code="unsupported_value")
    options |= {"tool_choice": choice, "parallel_tool_calls": parallel, **bound}
    if logprobs or scored:
        options["logprobs"] = top or 0

    def work(model: Any, cancel: threading.Event) -> Iterator[Part]:
        if isinstance(model, Classifier):
            labels.check(body)
            yield Part(0, labels.answer(model, conversation, options.get("schema")), [])
            return
        if tools:
            _ = model.tool_format  # a template that knows none is refused before anything is computed
        told = thinking.options(body, model.codec)
        # What binds an answer leaves no room for thoughts before it.
        binds = any(value is not False for value in bound.values()) or choice not in ("auto", "none") or (
            not bound and not tools and bool(model.artifact.manifest.task.schema))
        on = {**model.codec.options, **told}.get(thinking.THINKING, not binds)
        for index in range(draws):
            pieces = model.stream(messages=conversation, tools=tools, cancel=cancel, seed=seed + index,
                                  template_options=told, **options)
            if not tools:
                apart = thinking.apart(model.codec, pieces, on) if split else ((piece, "") for piece in pieces)
                for piece, thoughts in apart:
                    yield Part(index, piece, [], thoughts if shown else "")
                continue
            for piece in pieces:
                if piece.done is not None:
                    thoughts, words, calls = _calls(model, piece.done, on)
                    if calls and choice != "auto":
                        words = ""  # an answer that had to be calls has no words: these are the template's own
                    yield Part(index, Piece(words, piece.done, piece.done.logprobs), calls[:None if parallel else 1],
                               thoughts if shown else "")

    return Asked(draws, work, logprobs, handed_on(body), _names(body))


def streaming(body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether the answer is to come in pieces, and its usage behind them; Refusal names the field that is wrong."""
    options = validation.object_(body, "stream_options")
    known.check(options, known.STREAM_OPTIONS, "stream_options")
    streamed = validation.flag(body, "stream")
    if options and not streamed:
        raise Refusal("stream_options: takes stream: true beside it", "stream_options")
    return streamed, validation.flag(options, "include_usage")


def completion(body: Mapping[str, Any]) -> Asked:
    """A request to /v1/completions; Refusal names the field that is wrong."""
    known.check(body, known.COMPLETION)
    prompts = validation.inputs(body, "prompt")
    options, draws, seed = _options(body)
    echo = validation.flag(body, "echo")
    top = None if body.get("logprobs") is False else validation.number(body, "logprobs", 0, 20, True)
    if options.get("max_new_tokens") == 0 and not echo:
        name = _names(body)["max_new_tokens"]
        raise Refusal(f"{name}: 0, the limit without echo is 1", name)
    options |= structure(body) | {"logprobs": top}

    def work(model: Any, cancel: threading.Event) -> Iterator[Part]:
        for place, prompt in enumerate(prompts):
            if isinstance(prompt, str):
                model.codec.check_length(len(prompt), model.engine.context_length)
            ids = model.codec.plain_ids(prompt) if isinstance(prompt, str) else prompt
            where = f"prompt[{place}]" if len(prompts) > 1 else "prompt"
            validation.token_ids(ids, where, model.engine.context_length, model.engine.vocabulary_size)
            text = prompt if isinstance(prompt, str) else model.codec.decode(prompt)
            for draw in range(draws):
                yield from _continued(model, place * draws + draw, ids, text if echo else None, cancel,
                                      {**options, "seed": seed + draw})

    return Asked(draws, work, top is not None, names=_names(body))


def _continued(model: Generator, index: int, ids: list[int], echo: str | None, cancel: threading.Event,
               options: dict[str, Any]) -> Iterator[Part]:
    """How a text goes on, the text itself first where it is to be echoed."""
    top, limit = options["logprobs"], options.pop("max_new_tokens", None)
    following: list[TokenLogprob] = []
    if echo is not None:
        scores: list[TokenLogprob] = []
        if top is not None:
            scores = [TokenLogprob(ids[0], math.nan, []), *model.score(ids, top, cancel, ahead=True)]
            if cancel.is_set():
                return
            following = [scores.pop()]
            places = offsets(echo, [model.codec.bytes_of(token) for token in ids])
            scores = [replace(one, offset=place) for one, place in zip(scores, places, strict=True)]
        yield Part(index, Piece(echo, None, scores), [])
    if limit == 0:
        yield Part(index, Piece("", Generation("", [], len(ids), "length", 0.0, 0.0)), [])
        return
    for piece in model.stream_ids(ids, cancel=cancel, max_new_tokens=limit, **options):
        if piece.done is not None and not piece.done.ids and following:
            # The first token ended the text. Programs that score texts take the last token off and count on it.
            piece = replace(piece, logprobs=following)
        if echo and piece.logprobs:
            piece = replace(piece, logprobs=[replace(one, offset=one.offset + len(echo)) for one in piece.logprobs])
        yield Part(index, piece, [])


def _options(body: Mapping[str, Any]) -> tuple[dict[str, Any], int, int]:
    """The options of an answer, how many answers, and the seed of the first."""
    options: dict[str, Any] = {}
    for name, (least, most) in _RANGES.items():
        if (value := validation.number(body, name, least, most)) is not None:
            options["repetition_penalty" if name == "repeat_penalty" else name] = float(value)
    options |= _limit(body)
    top_k = validation.number(body, "top_k", -1, 2**31, True)
    options["top_k"] = max(0, top_k or 0)  # vLLM writes -1 for all tokens, too
    options["stop"] = validation.texts(body, "stop", validation.STOPS, validation.STOP_LENGTH)
    if "" in options["stop"]:
        raise Refusal("stop: an empty text, at which every answer would end", "stop")
    options["stop_ids"] = _ids(body, "stop_token_ids")
    options["logit_bias"] = _bias(body.get("logit_bias"))
    if body.get("cache_prompt") is not None and not validation.flag(body, "cache_prompt"):
        options["reuse"] = "none"
    # Our penalty looks at prompt and answer, which llama-server writes as -1.
    last = validation.number(body, "repeat_last_n", -1, 2**31, True)
    if last not in (None, -1) and options.get("repetition_penalty", 1.0) != 1.0:
        raise Refusal(f"repeat_last_n: {last} is not supported, only -1: the penalty is for all tokens",
                      "repeat_last_n", code="unsupported_value")
    seed = validation.number(body, "seed", -2**63, 2**63, True)
    draws = _one_of(body, ("n", "n_cmpl"), {name: validation.number(body, name, 1, validation.ANSWERS, True)
                                            for name in ("n", "n_cmpl")}) or 1
    return options, draws, secrets.randbelow(2**31) if seed is None else seed % 2**63


def _limit(body: Mapping[str, Any]) -> dict[str, int]:
    least = 0 if "prompt" in body else 1
    given = {name: validation.number(body, name, least, validation.TOKENS, True)
             for name in _LIMITS[:2]}
    predict = validation.number(body, "n_predict", -1, validation.TOKENS, True)
    given["n_predict"] = validation.TOKENS if predict == -1 else predict  # which ends where the context does
    found = _one_of(body, tuple(given), given)
    return {} if found is None else {"max_new_tokens": found}


def _names(body: Mapping[str, Any]) -> dict[str, str]:
    limit = next((name for name in _LIMITS if body.get(name) is not None), "max_tokens")
    return {"stop_ids": "stop_token_ids", "max_new_tokens": limit, **fields(body)}


def _one_of(body: Mapping[str, Any], names: Sequence[str], values: Mapping[str, Any]) -> Any:
    """The value that one field has, or several together; Refusal where they differ."""
    given = [name for name in names if values[name] is not None]
    for name in given[1:]:
        if values[name] != values[given[0]]:
            raise Refusal(f"{name}: {body[name]}, and {given[0]} is {body[given[0]]}: they mean the same", name)
    return values[given[0]] if given else None


def _ids(body: Mapping[str, Any], name: str) -> list[int]:
    found = validation.items(body, name, validation.STOPS)
    for place, one in enumerate(found):
        if validation.number({f"{name}[{place}]": one}, f"{name}[{place}]", 0, 2**31, True) is None:
            raise Refusal(f"{name}[{place}]: null, a token id was expected", f"{name}[{place}]")
    return found


def _bias(value: Any) -> dict[str, float]:
    """logit_bias as OpenAI writes it, an object, or as llama-server does, a list of pairs; false there rules out."""
    if isinstance(value, list):
        pairs = [one if isinstance(one, list) and len(one) == 2 and type(one[0]) is int else None for one in value]
        if None in pairs:
            raise Refusal("logit_bias: lists hold pairs of a token id and a number", "logit_bias")
        value = {str(token): -100 if bias is False else bias for token, bias in pairs}  # type: ignore[misc]
    bias = validation.object_({"logit_bias": value}, "logit_bias")
    if len(bias) > validation.INPUTS:
        raise Refusal(f"logit_bias: {len(bias)} tokens, the limit is {validation.INPUTS}", "logit_bias")
    named = {f"logit_bias.{token}": value for token, value in bias.items()}
    return {token: float(validation.number(named, f"logit_bias.{token}", -100, 100) or 0) for token in bias}


def _calls(model: Generator, done: Generation, on: bool) -> tuple[str, str, list[ToolCall]]:
    """Thoughts, words and calls of a whole answer."""
    thoughts, words, raw = "", done.text, model.codec.decode(done.ids, False)
    if on or model.codec.thinking_marks[0]:
        thoughts, words, raw = answers.apart(model.codec, done.ids, done.text)
    try:
        before, calls = model.tool_format.parse(raw)
    except DataError:  # a broken call is what the model said: the client sees it as text
        calls = []
    return (thoughts, before, calls) if calls else (thoughts, words, [])
