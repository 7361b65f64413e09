"""Ask a model behind an OpenAI-compatible address, with the standard library alone."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ...models.errors import EdgestillError, UsageError

TRIES = 5
LONGEST_WAIT = 60.0
"""Seconds between two tries, whatever the server asks for."""
PATIENCE = 5.0
"""Longest such wait where somebody waits for the answer."""
_LIMIT = 2**23
"""Bytes of an answer."""
_BLANKS = set(map(chr, range(33)))
LOCAL = ("localhost", "127.0.0.1", "::1")
"""This machine, as addresses name it."""


class RemoteError(EdgestillError):
    """A server that did not answer; `reason` says how in a few words that name neither its address nor its own words,
    which may hold a part of the key; `busy` that it has too much to do, and `wait` for how many seconds it says so."""

    def __init__(self, url: str, reason: str, more: str = "", hint: str = "check the address, the model and the key",
                 busy: bool = False, wait: int | None = None) -> None:
        super().__init__(f"{url}: {reason}{more and f': {more}'}", hint)
        self.reason, self.busy, self.wait = reason, busy, wait


def address(url: str) -> SplitResult:
    """The parts of a base address, such as https://host/v1; UsageError for another kind of address."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not set(url) & _BLANKS
    except ValueError:  # a port beyond 65535, a bracket that is not closed
        sound = False
    if not sound:
        raise UsageError(f"{url}: not an http or https address", "for example https://host/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError("the address holds a user, a query or a fragment", "give the key apart from it")
    return parts


class Remote:
    """A model behind an address. Nothing is sent there but what it is given to ask: no header, cookie or name of
    whoever wants the answer."""

    def __init__(self, url: str, model: str, key: str = "", system: str = "", timeout: float = 60.0,
                 tries: int | None = None) -> None:
        """`url` is the base, such as https://host/v1; `system` stands before every conversation that has none.

        Raises UsageError for another kind of address, and for a key that would travel unencrypted to another machine.
        """
        parts = address(url)
        if key and parts.scheme == "http" and parts.hostname not in LOCAL:
            raise UsageError(f"{url}: the key would be sent unencrypted", "use https, or leave the key out")
        self.url, self.model, self.system, self.timeout = url.rstrip("/"), model, system, timeout
        self.tries = tries or TRIES
        self._headers = {"Content-Type": "application/json", "User-Agent": "edgestill"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text of the answer at temperature 0; errors as in `answers`."""
        whole = next(self.answers({"messages": messages, "temperature": 0}))
        content = whole["choices"][0]["message"].get("content")
        if not isinstance(content, str):
            raise self._no_answer(json.dumps(whole).encode())
        return content

    def answers(self, asked: Mapping[str, Any], cancel: threading.Event | None = None) -> Iterator[dict[str, Any]]:
        """The answer to a request in OpenAI's words: one whole completion, or, where it asks for a stream, its chunks,
        usage with the last. Waits and asks again, until `cancel`, when the server is busy or fails.

        Raises RemoteError when it refuses, cannot be reached or answers in another form.
        """
        messages = list(asked["messages"])
        if self.system and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.system})
        body = {**asked, "model": self.model, "messages": messages}
        if body.get("stream"):
            body["stream_options"] = {"include_usage": True}
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body).encode(), self._headers)
        with self._opened(request, cancel) as response:
            try:
                if body.get("stream"):
                    yield from self._chunks(response)
                else:
                    yield self._whole(response.read(_LIMIT))
            except (OSError, HTTPException) as error:
                raise RemoteError(self.url, "broke off its answer", str(error)) from error

    def close(self) -> None:
        """Nothing is held."""

    def _whole(self, content: bytes) -> dict[str, Any]:
        try:
            table = json.loads(content)
            sound = isinstance(table, dict) and all(isinstance(one["message"], dict) for one in table["choices"])
        except (ValueError, LookupError, TypeError):
            sound = False
        if not sound or not table["choices"]:
            raise self._no_answer(content)
        return dict(table)

    def _chunks(self, response: HTTPResponse) -> Iterator[dict[str, Any]]:
        size = 0
        for line in response:
            size += len(line)
            if size > _LIMIT:
                raise self._no_answer(b"longer than can be taken")
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            try:
                chunk = json.loads(data)
                sound = isinstance(chunk, dict) and isinstance(chunk["choices"], list)
            except (ValueError, LookupError):
                sound = False
            if not sound:
                raise self._no_answer(data)
            yield chunk
        raise RemoteError(self.url, "broke off its answer")

    def _opened(self, request: urllib.request.Request, cancel: threading.Event | None) -> HTTPResponse:
        for count in range(1, self.tries + 1):
            busy = False
            try:
                response: HTTPResponse = self._opener.open(request, timeout=self.timeout)
                return response
            except urllib.error.HTTPError as error:
                reason, more = f"answered {error.code}", _shown(error.read(_LIMIT))
                wait, busy = error.headers.get("Retry-After"), error.code == 429
                again = busy or error.code >= 500
            except (OSError, HTTPException) as error:  # urllib's own are of the former
                reason, more, wait, again = "cannot be reached", str(getattr(error, "reason", error)), None, True
            if not again or count == self.tries:
                break
            asked_for = 2.0 ** (count - 1) if (told := _seconds(wait)) is None else float(told)
            if cancel is not None and asked_for > PATIENCE:
                break  # somebody waits for the answer, who can ask again
            if cancel is None:
                time.sleep(min(asked_for, LONGEST_WAIT))
            elif cancel.wait(min(asked_for, LONGEST_WAIT)):
                break
        raise RemoteError(self.url, reason, more, busy=busy, wait=_seconds(wait))

    def _no_answer(self, content: bytes) -> RemoteError:
        return RemoteError(self.url, "gave no chat completion", _shown(content), "check the address and the model")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _seconds(text: str | None) -> int | None:
    """A Retry-After in seconds; None without one, or for a date."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else None


def _shown(content: bytes) -> str:
    return " ".join(content[:300].decode("utf-8", "replace").split())
