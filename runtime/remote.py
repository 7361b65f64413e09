"""Ask a model behind an OpenAI-compatible address, with the standard library alone."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from ..models.errors import EdgestillError, UsageError

TRIES = 5
LONGEST_WAIT = 60.0
"""Seconds between two tries, whatever the server asks for."""
_LIMIT = 2**23
"""Bytes of an answer."""
_BLANKS = set(map(chr, range(33)))
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Remote:
    """A function of a conversation: the answer of POST URL/chat/completions at temperature 0."""

    def __init__(self, url: str, model: str, key: str = "", system: str = "", timeout: float = 60.0) -> None:
        """`url` is the base, such as https://host/v1; `system` stands before every conversation that has none.

        Raises UsageError for another kind of address, and for a key that would travel unencrypted to another machine.
        """
        try:
            parts = urlsplit(url)
            sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not set(url) & _BLANKS
        except ValueError:  # a port beyond 65535, a bracket that is not closed
            sound = False
        if not sound:
            raise UsageError(f"{url}: not an http or https address", "for example https://host/v1")
        if key and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise UsageError(f"{url}: the key would be sent unencrypted", "use https, or leave the key out")
        self.url, self.model, self.system, self.timeout = url.rstrip("/"), model, system, timeout
        self._headers = {"Content-Type": "application/json", "User-Agent": "edgestill"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __call__(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The answer's text. Waits and asks again when the server is busy or fails.

        Raises EdgestillError when it refuses, cannot be reached or answers in another form.
        """
        asked = list(messages)
        if self.system and asked[0]["role"] != "system":
            asked.insert(0, {"role": "system", "content": self.system})
        body = json.dumps({"model": self.model, "messages": asked, "temperature": 0}).encode()
        request = urllib.request.Request(f"{self.url}/chat/completions", body, self._headers)
        answer = self._send(request)
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            content = None
        if not isinstance(content, str):
            raise EdgestillError(f"{self.url}: no chat completion: {_shown(answer)}", "check the address and the model")
        return content

    def _send(self, request: urllib.request.Request) -> bytes:
        for count in range(1, TRIES + 1):
            try:
                with self._opener.open(request, timeout=self.timeout) as response:
                    content: bytes = response.read(_LIMIT)
                    return content
            except urllib.error.HTTPError as error:
                reason, wait = f"answered {error.code}: {_shown(error.read(_LIMIT))}", error.headers.get("Retry-After")
                again = error.code == 429 or error.code >= 500
            except (OSError, HTTPException) as error:  # urllib's own are of the former
                reason, wait, again = f"cannot be reached: {getattr(error, 'reason', error)}", None, True
            if not again or count == TRIES:
                break
            asked_for = float(wait) if wait and wait.isdecimal() else 2.0 ** (count - 1)
            time.sleep(min(asked_for, LONGEST_WAIT))
        raise EdgestillError(f"{self.url}: {reason}", "check the address, the model and the key")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another place."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _shown(content: bytes) -> str:
    return " ".join(content[:300].decode("utf-8", "replace").split())
