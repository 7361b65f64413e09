"""Requests to a loaded model as its users make them, and the nanoseconds that each part of them took.

The model answers by its own `stream`, `classify` or `embed`, template, constraint, stop strings and all; its parts are
timed where they are called. Every request starts from an empty cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .watch import Watch

if TYPE_CHECKING:
    from ..encoders.classifier import Classifier
    from ..encoders.embedder import Embedder
    from ..generation.generator import Generator

Request = Mapping[str, Any]
"""{"ids"} or {"messages", "tools"} or {"prompt"} for generators, {"text"} (of a pair both) for others."""
Ask = Callable[[Request], dict[str, Any]]
Span = tuple[int, int]
clock = time.perf_counter_ns


class Late:
    """Says that an answer is no longer wanted once its time is over."""

    def __init__(self, seconds: float) -> None:
        self._end = clock() + int(seconds * 1e9)

    def is_set(self) -> bool:
        """Whether it is."""
        return clock() > self._end


def tap(owner: Any, name: str) -> list[Span]:
    """Have calls of a method note when they began and ended; empty the list to begin anew."""
    spans: list[Span] = []
    inner: Callable[..., Any] = getattr(owner, name)

    def timed(*given: Any, **named: Any) -> Any:
        begun = clock()
        result = inner(*given, **named)
        spans.append((begun, clock()))
        return result

    setattr(owner, name, timed)
    return spans


def asker(model: Generator | Classifier | Embedder, new_tokens: int | None = None, token_seconds: float = 0.0,
          options: Mapping[str, Any] | None = None) -> Ask:
    """What makes one request to a model and gives its times; once for each model.

    An answer has up to `new_tokens` tokens, and ends after `token_seconds`; `options` are those of `Generator.stream`.
    Times are nanoseconds: `token_ns` (when each token was there as text) since the request, all others durations.
    """
    from ..generation.generator import Generator

    return _generate(model, new_tokens, token_seconds, options or {}) if isinstance(model, Generator) else _read(model)


def together(asks: Sequence[Ask]) -> Ask:
    """What makes the requests {"together": [...]} at once, each with an asker and a thread of its own: `streams` are
    what each of them gives, `end_ns` when the last was there."""
    pool = ThreadPoolExecutor(len(asks))

    def ask(group: Request) -> dict[str, Any]:
        begun = clock()
        streams = list(pool.map(lambda one, request: one(request), asks, group["together"]))
        return {"end_ns": clock() - begun, "streams": streams}

    return ask


def serve(ask: Ask, requests: Sequence[Request], watch: Watch, warmup: int = 0,
          seconds: float = 0.0) -> list[dict[str, Any]]:
    """Make the requests one after the other, the first `warmup` of them before, too, when nothing counts; where
    `seconds` is given, again and again for so long. `start_ns` is of time.perf_counter_ns, `window` of `watch`."""
    for request in requests[:warmup]:
        ask(request)
    watch.look(last=True)
    begun, found = clock(), []
    for request in _rounds(requests, begun, seconds):
        start = clock()
        found.append({"start_ns": start, "window": watch.window, **ask(request)})
        watch.look()
    watch.look(last=True)
    return found


def _rounds(requests: Sequence[Request], begun: int, seconds: float) -> Iterator[Request]:
    """The requests once, or again and again until `seconds` after `begun` are over."""
    yield from requests
    while clock() < begun + seconds * 1e9:
        for request in requests:
            if clock() >= begun + seconds * 1e9:
                return
            yield request


def _generate(model: Generator, new_tokens: int | None, token_seconds: float,
              options: Mapping[str, Any]) -> Ask:
    codec = model.codec
    codec.stop_ids, codec.turn_end  # noqa: B018 - found out once, and not in the first request
    taps = {"template_ns": tap(codec, "prompt"), "tokenize_ns": tap(codec, "encode")}
    passes = [tap(model.engine, name) for name in ("prefill", "decode")]
    pushes: list[Span] = []
    stream = codec.stream

    def tapped() -> Any:
        nonlocal pushes
        made = stream()
        pushes = tap(made, "push")
        return made

    setattr(codec, "stream", tapped)  # noqa: B010 - of this one codec alone

    def ask(request: Request) -> dict[str, Any]:
        for spans in (*taps.values(), *passes):
            spans.clear()
        how: dict[str, Any] = {**options, "reuse": "none"}
        if new_tokens is not None:
            how["max_new_tokens"] = new_tokens
        if token_seconds:
            how["cancel"] = Late(token_seconds)
        begun = clock()
        if "ids" in request:
            codec.encode(request["text"])
            pieces = model.stream_ids(request["ids"], **how)
        elif "prompt" in request:
            pieces = model.stream(request["prompt"], **how)
        else:
            pieces = model.stream(messages=request["messages"], tools=request["tools"], **how)
        done = None
        for piece in pieces:
            done = piece.done
        end = clock()
        assert done is not None  # every stream ends with it
        tokens = [span[1] - begun for span in pushes]
        first = tokens[0] if tokens else end - begun
        before = [span for spans in passes for span in spans if span[0] - begun < first]
        steps = sorted(span for spans in passes for span in spans if span[0] - begun >= first)
        return {"end_ns": end - begun, "token_ns": tokens, "prefill_ns": _sum(before),
                "decode_ns": [stop - start for start, stop in steps], "detokenize_ns": _sum(pushes),
                "prompt_tokens": done.prompt_tokens, "new_tokens": len(done.ids), "finish": done.finish_reason,
                **{name: _sum(spans) for name, spans in taps.items()}}

    return ask


def run_to_the_end(model: Generator) -> None:
    """Have answers end at their length alone, as those to prompts that say nothing must."""
    model.codec.stop_ids = frozenset()
    model.codec.turn_end = ""


def _read(model: Classifier | Embedder) -> Ask:
    from ..encoders.classifier import Classifier

    taps = {"tokenize_ns": tap(model.codec, "encoding")}
    answer: Callable[[Any], Any] = model.classify if isinstance(model, Classifier) else model.embed
    taps["model_ns"] = tap(model, "logits" if isinstance(model, Classifier) else "vectors")

    def ask(request: Request) -> dict[str, Any]:
        for spans in taps.values():
            spans.clear()
        text = request["text"] if isinstance(request["text"], str) else tuple(request["text"])
        begun = clock()
        answer(text)
        found = {"end_ns": clock() - begun, **{name: _sum(spans) for name, spans in taps.items()}}
        alone, pair = (text, None) if isinstance(text, str) else text
        return found | {"prompt_tokens": len(model.codec.encoding(alone, pair=pair).ids)}

    return ask


def _sum(spans: Sequence[Span]) -> int:
    return sum(end - begun for begun, end in spans)
