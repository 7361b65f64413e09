"""How faults treat an answer on its way: resets, cuts, pauses, packing and odd framing."""

from __future__ import annotations

import enum
import gzip
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from .answers import dumped
from .refusals import Asked, Group, anthropic, flat, openai, page


class End(enum.Enum):
    """What happens to the connection."""

    RESET = enum.auto()      # the peer sees ECONNRESET
    CLOSE = enum.auto()      # the peer sees the end of the stream
    DROP_NEXT = enum.auto()  # the next request on this connection is met by a reset


Step = bytes | float | End  # write, wait so many seconds, end

REASONS = {200: "OK", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required",
           403: "Forbidden", 404: "Not Found", 408: "Request Timeout", 413: "Content Too Large",
           422: "Unprocessable Content", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
           503: "Service Unavailable", 504: "Gateway Timeout"}


def head(status: int, headers: dict[str, Any]) -> bytes:
    """Status line and headers."""
    fields = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", *fields, "", ""]).encode()


def chunked(data: bytes) -> bytes:
    """A chunk of a body whose length is not announced."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def framed(asked: Asked, parts: Sequence[bytes], chunks: bool | None = None, **headers: Any) -> list[bytes]:
    """A 200 with a body of `parts`: with its length, or chunked where it is a stream or `chunks` says so."""
    kind = "text/event-stream; charset=utf-8" if asked.stream else "application/json"
    known = {"content-type": kind, "x-request-id": f"req_{asked.content[:32]}", "openai-processing-ms": 12,
             "x-ratelimit-remaining-requests": 499,
             **{name.replace("_", "-"): value for name, value in headers.items()}}
    if chunks or (chunks is None and asked.stream):
        return [head(200, {**known, "transfer-encoding": "chunked"}), *map(chunked, parts), b"0\r\n\r\n"]
    return [head(200, {**known, "content-length": sum(map(len, parts))}), *parts]


# A whole answer over a poor wire: each gets the request and the body's parts.
Wire = Callable[[Asked, list[bytes]], Sequence[Step]]


def half(steps: Sequence[bytes]) -> Sequence[bytes]:
    """The first half of what would be written."""
    return steps[:max(len(steps) // 2, 1) + 1]


def cut(asked: Asked, parts: list[bytes]) -> Sequence[Step]:
    """Half a body with the right length, as a proxy sends it; a stream without its last events and [DONE]."""
    return framed(asked, parts[:max(len(parts) // 2, 1)])


def error_inside(error: dict[str, Any]) -> Wire:
    """An error where an answer was promised."""
    def steps(asked: Asked, parts: list[bytes]) -> Sequence[Step]:
        said = dumped(error)
        return framed(asked, [*parts[:len(parts) // 2], b"data: " + said + b"\n\n"] if asked.stream else [said])
    return steps


def dripped(asked: Asked, parts: list[bytes]) -> Sequence[Step]:
    """An answer in 20 pieces: never silent for long, yet long."""
    data = b"".join(framed(asked, parts))
    size = math.ceil(len(data) / 20)
    return [step for start in range(0, len(data), size) for step in (data[start:start + size], asked.stall / 20)]


def pinged(asked: Asked, parts: list[bytes]) -> Sequence[Step]:
    """DeepSeek's signs of life: empty lines before the JSON, comments between the events."""
    first_bytes, *rest = framed(asked, parts, chunks=True)
    ping = chunked(b": keep-alive\n\n" if asked.stream else b"\n")
    return [first_bytes, ping, ping, 0.01, ping, *rest]


def zipped(asked: Asked, parts: list[bytes]) -> Sequence[Step]:
    """Compressed, if the client takes that; a stream is flushed at every event."""
    if "gzip" not in asked.headers.get("accept-encoding", ""):
        return framed(asked, parts)
    if not asked.stream:
        return framed(asked, [gzip.compress(b"".join(parts))], content_encoding="gzip")
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return framed(asked, [*packed, packer.flush()], content_encoding="gzip")


def split(asked: Asked, parts: list[bytes]) -> Sequence[Step]:
    """Chunks that end inside of characters, and are written one by one."""
    data = b"".join(parts)
    inside = [at for at in range(1, len(data)) if data[at] & 0xC0 == 0x80][:64] or [len(data) // 2]
    pieces = [data[start:end] for start, end in zip([0, *inside], [*inside, len(data)], strict=True)]
    return [step for piece in framed(asked, pieces, chunks=True) for step in (piece, 0.001)]


def odd(asked: Asked, parts: list[bytes]) -> Sequence[Step]:
    """Other line ends, no space after the colon, comments, Azure's first chunk without choices; JSON after blanks."""
    if not asked.stream:
        return framed(asked, [b"\r\n  ", *parts, b"\n"])
    start = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [
        {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}]}
    said = [b": OPENROUTER PROCESSING\r\n\r\n", b"data:" + dumped(start) + b"\r\n\r\n"]
    return framed(asked, [*said, *(b"data:" + part.removeprefix(b"data: ").strip() + b"\r\n\r\n" for part in parts)])


def until_close(asked: Asked, parts: list[bytes]) -> Sequence[Step]:
    """A body that ends where the connection does."""
    kind = "text/event-stream" if asked.stream else "application/json"
    return [head(200, {"content-type": kind, "connection": "close"}), *parts, End.CLOSE]


SIGN_IN = page("Sign in", "proxy").encode()
ENGINE = flat("EngineCore encountered an issue.", "InternalServerError", 500)
IN_200 = openai("litellm.APIConnectionError: the upstream closed the stream", "server_error", code="500")
WIRES: dict[str, tuple[Group, Wire]] = {
    "reset_before_work": (Group.REFUSED, lambda asked, parts: [End.RESET]),
    "closed_before_work": (Group.REFUSED, lambda asked, parts: [End.CLOSE]),
    "html_200": (Group.REFUSED, lambda asked, parts: [
        head(200, {"content-type": "text/html", "content-length": len(SIGN_IN)}), SIGN_IN]),
    "reset_after_work": (Group.LOST, lambda asked, parts: [End.RESET]),
    "reset_midway": (Group.LOST, lambda asked, parts: [*half(framed(asked, parts)), 0.01, End.RESET]),
    "closed_midway": (Group.LOST, lambda asked, parts: [*half(framed(asked, parts)), End.CLOSE]),
    "cut_clean": (Group.LOST, cut),
    "empty_200": (Group.LOST, lambda asked, parts: framed(asked, [])),
    "error_in_200": (Group.LOST, error_inside(IN_200)),
    "error_in_200_vllm": (Group.LOST, error_inside(ENGINE)),
    "error_in_200_anthropic": (Group.LOST, error_inside(anthropic("overloaded_error", "Overloaded"))),
    "slow_first_byte": (Group.LOST, lambda asked, parts: [asked.stall, *framed(asked, parts)]),
    "slow_drip": (Group.LOST, dripped),
    "pings": (Group.ODD, pinged),
    "gzip": (Group.ODD, zipped),
    "split_characters": (Group.ODD, split),
    "odd_lines": (Group.ODD, odd),
    "until_close": (Group.ODD, until_close),
    "keep_alive_dropped": (Group.ODD, lambda asked, parts: [*framed(asked, parts), End.DROP_NEXT]),
    "keep_alive_closed": (Group.ODD, lambda asked, parts: [*framed(asked, parts), End.CLOSE]),
}
