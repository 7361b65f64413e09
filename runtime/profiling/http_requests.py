"""One streamed request to an OpenAI-compatible server, timed where its pieces arrive."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult

from ...models.errors import UsageError
from ..generation.remote import LOCAL, RemoteError, address

CHAT, EMBEDDINGS = "chat/completions", "embeddings"
_LIMIT = 2**23
"""Bytes of an answer."""
clock = time.perf_counter_ns


@dataclass(frozen=True)
class TimedAnswer:
    """An answer and its times in nanoseconds: `start_ns` of time.perf_counter_ns, all others since then."""

    start_ns: int
    """When the request was sent, over a connection that stood."""
    connect_ns: int
    """How long connecting took before, encryption included."""
    end_ns: int
    token_ns: tuple[int, ...] = ()
    """When each piece of text, thought or call came; a piece is a token at most servers."""
    text: str = ""
    """The answer without thoughts and calls."""
    finish: str = ""
    prompt_tokens: int | None = None
    """As the server says it; None where it does not."""
    cached_tokens: int = 0
    """Of them, those that it says it had read before."""
    new_tokens: int = 0
    counted: str = "pieces"
    """What `new_tokens` comes from: the server's usage, or the pieces."""
    timings: Mapping[str, Any] = field(default_factory=dict)
    """What llama-server says of its own times; empty elsewhere."""


def base_of(url: str) -> SplitResult:
    """The parts of a server's address, /v1 added where it has no path; UsageError for no address, and for plain http
    to another machine: prompts would travel there unencrypted."""
    parts = address(url.rstrip("/"))
    if parts.scheme == "http" and parts.hostname not in LOCAL:
        raise UsageError(f"{parts.hostname}: prompts would travel there unencrypted", "give an https address, or "
                         f"forward its port: ssh -N -L 8080:localhost:{parts.port or 80} {parts.hostname}, then ask "
                         "http://localhost:8080")
    return parts if parts.path else parts._replace(path="/v1")


def ask(url: str, request: Mapping[str, Any], key: str = "", path: str = CHAT, timeout: float = 600.0) -> TimedAnswer:
    """Send the body `request` (of a chat: without `stream`) over a new connection and read the answer to its end.

    `timeout` is for the whole answer, in seconds. Safe to call from many threads. Raises UsageError as `base_of` does,
    RemoteError where the server cannot be reached, refuses, breaks off or answers in another form; nothing is tried
    again.
    """
    asked = dict(request) | ({"stream": True, "stream_options": {"include_usage": True}} if path == CHAT else {})
    with _answered(url, "POST", path, key, timeout, json.dumps(asked).encode()) as (response, begun, start):
        return _read(url, response, begun, start, timeout)


def model_names(url: str, key: str = "", timeout: float = 30.0) -> list[str]:
    """What a server calls its models; errors as in `ask`."""
    with _answered(url, "GET", "models", key, timeout) as (response, _, _):
        table = _table(url, response.read(_LIMIT))
    listed = table.get("data")
    return [str(one["id"]) for one in listed if isinstance(one, dict) and "id" in one] if isinstance(
        listed, list) else []


@contextmanager
def _answered(url: str, method: str, path: str, key: str, timeout: float,
              body: bytes | None = None) -> Iterator[tuple[HTTPResponse, int, int]]:
    """The response to a request, when connecting began, and when it was sent."""
    parts = base_of(url)
    headers = {"Content-Type": "application/json", "User-Agent": "edgestill"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    assert parts.hostname is not None  # `address` saw to it
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout)
    begun = clock()
    try:
        connection.connect()
        start = clock()
        connection.request(method, f"{parts.path}/{path}", body, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise RemoteError(url, f"answered {response.status}", _shown(response.read(_LIMIT)),
                              busy=response.status == 429)
        yield response, begun, start
    except (OSError, HTTPException) as error:
        raise RemoteError(url, "cannot be reached, or broke off", str(error) or type(error).__name__,
                          "check that the server runs, and its address") from error
    finally:
        connection.close()


def _read(url: str, response: HTTPResponse, begun: int, start: int, timeout: float) -> TimedAnswer:
    streams = response.headers.get_content_type() == "text/event-stream"
    chunks = _events(url, response) if streams else iter([_table(url, response.read(_LIMIT))])
    times: list[int] = []
    text, finish = "", ""
    usage: Mapping[str, Any] = {}
    timings: Mapping[str, Any] = {}
    for chunk in chunks:
        now = clock() - start
        if now > timeout * 1e9:
            raise RemoteError(url, f"had not ended its answer after {timeout:g} s")
        usage, timings = chunk.get("usage") or usage, chunk.get("timings") or timings
        for choice in chunk.get("choices", ()):
            piece = choice.get("delta") or choice.get("message") or {}
            said = piece.get("content") or ""
            if said or piece.get("reasoning_content") or piece.get("reasoning") or piece.get("tool_calls"):
                times.append(now)
            text, finish = text + said, choice.get("finish_reason") or finish
    end = clock() - start
    counted = usage.get("completion_tokens")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or timings.get("cache_n") or 0
    return TimedAnswer(start, start - begun, end, tuple(times), text, finish, usage.get("prompt_tokens"), cached,
                       len(times) if counted is None else counted, "pieces" if counted is None else "usage", timings)


def _events(url: str, response: HTTPResponse) -> Iterator[dict[str, Any]]:
    size = 0
    for line in response:
        size += len(line)
        if size > _LIMIT:
            raise RemoteError(url, f"answered with more than {_LIMIT:,} bytes")
        if line.startswith(b"data:"):
            if (data := line[5:].strip()) == b"[DONE]":
                return
            yield _table(url, data)
    raise RemoteError(url, "broke off its answer")


def _table(url: str, content: bytes) -> dict[str, Any]:
    """A chunk or a whole answer: an object whose lists and objects are what the API says they are."""
    try:
        found = json.loads(content)
        choices, usage = found.get("choices") or [], found.get("usage") or {}
        sound = all(isinstance(one.get("delta") or one.get("message") or {}, dict) for one in choices)
        sound = sound and isinstance(usage, dict) and ("choices" in found or "data" in found)
    except (ValueError, AttributeError, TypeError):
        sound = False
    if not sound:
        raise RemoteError(url, "gave no answer in OpenAI's form", _shown(content), "check the address and the model")
    return {**found, "choices": choices, "usage": usage}


def _shown(content: bytes) -> str:
    return " ".join(content[:300].decode("utf-8", "replace").split())
