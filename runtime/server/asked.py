"""What a request asks of a model: OpenAI's fields as options of our own, and the work that answers them."""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...models.errors import DataError
from ...models.outputs import SIGMOID, SOFTMAX
from ..answer import Generation, Piece
from ..classify import Classifier
from ..engine import check_ids
from ..generate import Generator
from ..logprobs import TokenLogprob, offsets
from ..tools import ToolCall
from . import fields
from .fields import Refusal

_RANGES = {"temperature": (0, 100), "top_p": (0, 1), "min_p": (0, 1), "presence_penalty": (-2, 2),
           "frequency_penalty": (-2, 2), "repetition_penalty": (0.01, 100)}
_ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Part:
    """What has become of one of a request's answers."""

    index: int
    piece: Piece
    calls: list[ToolCall]


@dataclass(frozen=True)
class Labelled(Generation):
    """A classifier's answer."""

    confidence: float = 0.0
    """The label's probability, of a classifier that chooses one."""


@dataclass(frozen=True)
class Asked:
    """A request for answers."""

    draws: int
    """Answers to each prompt."""
    work: Callable[[Any, threading.Event], Iterator[Part]]
    logprobs: bool = False
    messages: Sequence[Mapping[str, Any]] = ()
    """The conversation, where another model could answer it."""


def chat(body: Mapping[str, Any], scored: bool = False) -> Asked:
    """A request to /v1/chat/completions; Refusal names the field that is wrong. `scored` answers come with the
    log-probabilities of their tokens, asked for or not."""
    messages = [_message(one, f"messages[{place}]")
                for place, one in enumerate(fields.tables(body, "messages", fields.MESSAGES))]
    if not messages:
        raise Refusal("messages: at least one message is needed", "messages")
    options, draws, seed = _options(body)
    tools = fields.tables(body, "tools", fields.TOOLS)
    choice = body.get("tool_choice") or "auto"
    if choice == "none":
        tools = []
    parallel = body.get("parallel_tool_calls") is None or fields.flag(body, "parallel_tool_calls")
    options |= {"tool_choice": choice, "parallel_tool_calls": parallel}
    logprobs = fields.flag(body, "logprobs")
    if logprobs or scored:
        options["logprobs"] = fields.number(body, "top_logprobs", 0, 20, True) or 0
    options |= _structure(body)

    def work(model: Any, cancel: threading.Event) -> Iterator[Part]:
        if isinstance(model, Classifier):
            if choice not in ("auto", "none"):
                raise Refusal("tool_choice: a classifier answers with its label, and calls no tools", "tool_choice")
            yield _labelled(model, messages, options.get("schema"))
            return
        if tools:
            _ = model.tool_format  # a template that knows none is refused before anything is computed
        for index in range(draws):
            for piece in model.stream(messages=messages, tools=tools, cancel=cancel, seed=seed + index, **options):
                if not tools:
                    yield Part(index, piece, [])
                elif piece.done is not None:
                    words, calls = _calls(model, piece.done)
                    if calls and choice != "auto":
                        words = ""  # an answer that had to be calls has no words: these are the template's own
                    yield Part(index, Piece(words, piece.done, piece.done.logprobs), calls[:None if parallel else 1])

    return Asked(draws, work, logprobs, [] if tools or draws > 1 else messages)


def completion(body: Mapping[str, Any]) -> Asked:
    """A request to /v1/completions; Refusal names the field that is wrong."""
    prompts = fields.inputs(body, "prompt")
    options, draws, seed = _options(body)
    echo = fields.flag(body, "echo")
    top = fields.number(body, "logprobs", 0, 20, True)
    if body.get("max_tokens") == 0 and not echo:
        raise Refusal("max_tokens: 0, the limit without echo is 1", "max_tokens")
    options |= _structure(body) | {"logprobs": top}

    def work(model: Any, cancel: threading.Event) -> Iterator[Part]:
        for place, prompt in enumerate(prompts):
            if isinstance(prompt, str):
                model.codec.check_length(len(prompt), model.engine.context_length)
            ids = model.codec.plain_ids(prompt) if isinstance(prompt, str) else prompt
            check_ids(ids, 0, model.engine.context_length, model.engine.vocabulary_size)
            text = prompt if isinstance(prompt, str) else model.codec.decode(prompt)
            for draw in range(draws):
                yield from _continued(model, place * draws + draw, ids, text if echo else None, cancel,
                                      {**options, "seed": seed + draw})

    return Asked(draws, work, top is not None)


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
        if (value := fields.number(body, name, least, most)) is not None:
            options[name] = float(value)
    for name in ("max_completion_tokens", "max_tokens"):
        if (value := fields.number(body, name, 0 if "prompt" in body else 1, fields.TOKENS, True)) is not None:
            options["max_new_tokens"] = value
    if (top_k := fields.number(body, "top_k", 0, 2**31, True)) is not None:
        options["top_k"] = top_k
    options["stop"] = fields.texts(body, "stop", fields.STOPS, fields.STOP_LENGTH)
    bias = fields.object_(body, "logit_bias")
    if len(bias) > fields.INPUTS:
        raise Refusal(f"logit_bias: {len(bias)} tokens, the limit is {fields.INPUTS}", "logit_bias")
    named = {f"logit_bias.{token}": value for token, value in bias.items()}
    options["logit_bias"] = {token: float(fields.number(named, f"logit_bias.{token}", -100, 100) or 0)
                             for token in bias}
    seed = fields.number(body, "seed", 0, 2**63, True)
    draws = fields.number(body, "n", 1, fields.ANSWERS, True) or 1
    return options, draws, secrets.randbelow(2**31) if seed is None else seed


def _structure(body: Mapping[str, Any]) -> dict[str, Any]:
    """What binds the answer: `response_format` as OpenAI has it, or `regex`, `grammar` or `choices`."""
    found: dict[str, Any] = {name: value for name in ("regex", "grammar") if (value := fields.text(body, name))}
    if choices := fields.texts(body, "choices", fields.INPUTS):
        found["choices"] = choices
    wanted = fields.object_(body, "response_format")
    kind = wanted.get("type")
    if kind == "json_object":
        found["schema"] = {"type": "object"}
    elif kind == "json_schema":
        where = "response_format.json_schema"
        found["schema"] = fields.object_(fields.object_(wanted, "json_schema", where), "schema", f"{where}.schema")
        if not found["schema"]:
            raise Refusal(f"{where}.schema: a JSON schema is needed", f"{where}.schema")
    elif kind == "text":
        found["schema"] = False
    elif wanted:
        raise Refusal(f"response_format.type: {str(kind)[:40]!r}, known are text, json_object and json_schema",
                      "response_format.type")
    return found


def _message(message: dict[str, Any], where: str) -> dict[str, Any]:
    """A message as chat templates take it."""
    role = message.get("role")
    if role not in _ROLES:
        raise Refusal(f"{where}.role: {str(role)[:40]!r}, known are {', '.join(_ROLES)}", f"{where}.role")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_text_part(part, f"{where}.content[{place}]") for place, part in
                          enumerate(fields.tables({f"{where}.content": content}, f"{where}.content", fields.INPUTS)))
    found = {"role": "system" if role == "developer" else role,
             "content": fields.text({"content": content}, "content", where=f"{where}.content")}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if name in message:
            found[name] = fields.text(message, name, where=f"{where}.{name}")
    if calls := fields.tables(message, "tool_calls", fields.TOOLS):
        found["tool_calls"] = [_call(call, f"{where}.tool_calls[{place}]") for place, call in enumerate(calls)]
    return found


def _text_part(part: dict[str, Any], where: str) -> str:
    if part.get("type") != "text":
        raise Refusal(f"{where}.type: {str(part.get('type'))[:40]!r}, these models read text only", f"{where}.type")
    return fields.text(part, "text", where=f"{where}.text")


def _call(call: dict[str, Any], where: str) -> dict[str, Any]:
    """An earlier call with its arguments as an object, which templates are written for."""
    function = fields.object_(call, "function", f"{where}.function")
    name = fields.text(function, "name", where=f"{where}.function.name")
    written = fields.text(function, "arguments", where=f"{where}.function.arguments")
    try:
        arguments = json.loads(written or "{}")
    except (ValueError, RecursionError):
        raise Refusal(f"{where}.function.arguments: no JSON", f"{where}.function.arguments") from None
    return {"type": "function", "id": fields.text(call, "id", where=f"{where}.id"),
            "function": {"name": name, "arguments": arguments}}


def _calls(model: Generator, done: Generation) -> tuple[str, list[ToolCall]]:
    try:
        words, calls = model.tool_calls(done)
    except DataError:  # a broken call is what the model said: the client sees it as text
        calls = []
    return (words, calls) if calls else (done.text, [])


def _labelled(model: Classifier, messages: list[dict[str, Any]], schema: Any) -> Part:
    """What a classifier says of the last user's message: as it is, or as the one value that a JSON schema has room
    for."""
    text = next((message["content"] for message in reversed(messages) if message["role"] == "user"), None)
    if text is None:
        raise Refusal("messages: a classifier labels the last message of the user, and there is none", "messages")
    key = ""
    if schema:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or len(properties) != 1:
            raise Refusal("response_format: a classifier answers with one label, so the schema needs one property",
                          "response_format")
        key, wanted = next(iter(properties.items()))
        kind = {SOFTMAX: "string", SIGMOID: "array"}.get(model.head.kind, "number" if len(model.labels) == 1
                                                         else "object")
        told = wanted.get("type", kind) if isinstance(wanted, dict) else kind
        if kind not in (told if isinstance(told, list) else [told]):
            raise Refusal(f"response_format: {key[:40]!r} is of type {str(told)[:40]!r}, and this classifier answers "
                          f"with {kind}s", "response_format")
    started = time.perf_counter()
    found = model.classify(text)
    answer = json.dumps({key: found.value}, ensure_ascii=False) if key else found.answer
    tokens = len(model.codec.encoding(text).ids)
    done = Labelled(answer, [], tokens, "stop", (time.perf_counter() - started) * 1000, 0.0,
                    confidence=found.probability if found.head == SOFTMAX else 0.0)
    return Part(0, Piece(answer, done), [])
