"""The teacher's address: one call, and what its failures mean."""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from ...models.errors import EdgestillError, MissingExtra
from ...runtime.data.calls.exchange import failed, table
from ...runtime.evaluation import handover
from .prompt import Prompt
from .settings import Settings

_LOGGERS = ("openai", "httpx2", "httpcore2")
"""They would log address and prompts."""
LONGEST_WAIT = 300.0
"""Seconds that a server may ask us to wait; beyond that the run ends, to be continued."""
_OUT_OF_MONEY = ("insufficient_quota", "billing_", "credit_balance", "spend_limit")
"""Parts of codes."""
_OF_THE_ROW = ("context", "too long", "too large", "max_length", "content_policy", "content_filter")
"""What stands in refusals that say nothing of other rows."""
_ROW_FORBIDDEN = ("flagged", "moderation", "context length")
"""The same in a 403, which says otherwise that the key is not allowed: OpenRouter's moderation, Together's limit."""
_CODE = re.compile(r"[\w.-]{1,60}")


class TeacherError(EdgestillError):
    """A teacher that cannot be asked any more; the message holds no word of its own, which may quote the key."""


class Failure(Exception):
    """A call without a reply."""

    def __init__(self, reason: str, again: bool = False, wait: float | None = None, billed: bool = False,
                 ends: str = "", refuses: str | None = None) -> None:
        """`again`: the next call may do better, after `wait` seconds where the server says so; `billed`: it may have
        been; `ends`: what to do about it, where no other call can do better; `refuses`: what the server says of a
        request that it does not take."""
        super().__init__(reason)
        self.reason, self.again, self.wait = reason, again, wait
        self.billed, self.ends, self.refuses = billed, ends, refuses


@dataclass(frozen=True)
class Takes:
    """What an endpoint takes besides messages; each is given up where it does not."""

    logprobs: bool = True
    max_completion_tokens: bool = True
    """Or else max_tokens."""
    response_format: bool = True

    def fewer(self, refusal: str) -> Takes | None:
        """Without the one that a refusal names, or else the next; None where there is none left."""
        held = [name for name in ("logprobs", "max_completion_tokens", "response_format") if getattr(self, name)]
        named = [name for name in held if name in refusal]
        return replace(self, **dict.fromkeys((named or held)[:1], False)) if held else None


class Endpoint:
    """Makes calls. Nothing is sent but the key and what is asked: no name or account of the environment."""

    def __init__(self, settings: Settings) -> None:
        """Raises UsageError for an address that rows must not be sent to, MissingExtra without openai."""
        try:
            import openai
        except ModuleNotFoundError:
            raise MissingExtra("openai", "label") from None
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        secure = settings.address().scheme == "https"
        self._openai, self._settings = openai, settings
        # A redirect would carry the rows to another place, and a proxy those that stay on this machine.
        client = openai.DefaultAsyncHttpxClient(follow_redirects=False, trust_env=secure, verify=secure)
        self._client = openai.AsyncOpenAI(
            api_key=settings.key or "none", base_url=settings.url, max_retries=0, timeout=settings.timeout,
            http_client=client)
        self._client.organization = self._client.project = None  # which it takes from the environment

    async def __aenter__(self) -> Endpoint:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self._client.close()

    async def call(self, prompt: Prompt, takes: Takes) -> Mapping[str, Any]:
        """The body of the response, a JSON object. Raises Failure."""
        settings, openai = self._settings, self._openai
        cap = "max_completion_tokens" if takes.max_completion_tokens else "max_tokens"
        asked: dict[str, Any] = {"model": settings.model, "messages": prompt.messages, cap: settings.answer_tokens}
        if prompt.tools:
            asked["tools"] = prompt.tools
        if takes.logprobs:
            asked["logprobs"] = True
        if settings.schema is not None and takes.response_format:
            asked["response_format"] = handover.response_format(settings.schema)
        if settings.temperature is not None:
            asked["temperature"] = settings.temperature
        if not settings.key:
            asked["extra_headers"] = {"Authorization": openai.Omit()}
        try:
            async with asyncio.timeout(settings.timeout):  # the client's own is for each piece of an answer
                response = await self._client.chat.completions.with_raw_response.create(**asked)
        except (openai.APITimeoutError, TimeoutError):
            raise Failure(f"no answer within {settings.timeout:g} s", again=True, billed=True) from None
        except openai.APIStatusError as error:
            raise _status(error) from None
        except openai.APIConnectionError:
            raise Failure("the connection failed or broke off", again=True, billed=True) from None
        try:
            body = json.loads(response.http_response.content)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise Failure("a reply that is no JSON object", again=True, billed=True)
        if not body.get("choices") and (body.get("error") or body.get("object") == "error"):  # too late for a status
            raise Failure(failed(table(body.get("error")).get("code")), again=True, billed=True)
        return body


def _status(error: Any) -> Failure:
    """What a status means, of an openai.APIStatusError. Its words are looked at and never told."""
    status, words = error.status_code, f"{error.param} {error.message} {error.body}".lower()
    told = [str(part) for part in (error.code or error.type, error.param) if part and _CODE.fullmatch(str(part))]
    reason = f"answered {' '.join([str(status), *told])}"
    wait = _seconds(error.response.headers)
    if status == 402 or status == 429 and any(part in words for part in _OUT_OF_MONEY):
        return Failure(reason, ends="the account has no credit left: top it up, then run the same command again")
    if status == 403 and any(part in words for part in _ROW_FORBIDDEN):
        return Failure(reason)
    if status in (401, 403):
        return Failure(reason, ends="check the key, and what it may be used for",
                       refuses=words if status == 403 and "logprobs" in words else None)
    if status == 404 or 300 <= status < 400:
        return Failure(reason, ends="check the address and the name of the model")
    of_the_row = any(part in words for part in _OF_THE_ROW)
    if (status in (408, 409, 425, 429) or status >= 500) and not (status == 429 and "too large" in words):
        if wait is not None and wait > LONGEST_WAIT:
            return Failure(reason, ends=f"it asks to wait {wait:,.0f} s: run the same command again then")
        return Failure(reason, again=True, wait=wait, billed=status in (408, 504, 524))
    return Failure(reason, refuses=None if of_the_row else words)


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds, given as such or as a date; None without one, and for one that is no time at all: it
    says nothing, or one of the clocks is wrong."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1), ("x-ratelimit-reset", 1)):
        text = headers.get(name, "")
        try:
            found = float(text) / unit
        except ValueError:
            date = email.utils.parsedate_tz(text)
            found = email.utils.mktime_tz(date) - time.time() if date else math.nan
        if math.isfinite(found) and found > 0 and not (
                name == "x-ratelimit-reset" and found > LONGEST_WAIT):  # a point in time
            return found
    return None
