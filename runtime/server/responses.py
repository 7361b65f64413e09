"""Answers in OpenAI's words: whole, or as the events of a stream."""

from __future__ import annotations

import json
import math
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from string import ascii_letters, digits
from typing import Any

from ..generation.logprobs import TokenLogprob
from ..generation.result import Generation
from ..text.codec import Codec
from ..text.tool_calls import ToolCall
from .requests import Part

_LETTERS = ascii_letters + digits
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Reply(ABC):
    """The answer to one request, which grows by parts."""

    object, chunk_object, prefix = "", "", ""

    def __init__(self, model: str, codec: Codec, draws: int, logprobs: bool) -> None:
        """`draws` answers belong to each prompt; `logprobs` says whether they were asked for."""
        self._codec, self._draws, self._wanted = codec, draws, logprobs
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model,
                      "system_fingerprint": None}
        self._texts: dict[int, list[str]] = {}
        self._thoughts: dict[int, str] = {}
        self._scores: dict[int, list[TokenLogprob]] = {}
        self.done: dict[int, tuple[Generation, list[ToolCall]]] = {}
        self.says_usage = False
        """Whether a stream is to end with its usage: then all other events say that they have none."""

    def add(self, part: Part) -> list[dict[str, Any]]:
        """Take a part; the events that say it in a stream."""
        new = part.index not in self._texts
        texts, scores = self._texts.setdefault(part.index, []), self._scores.setdefault(part.index, [])
        texts.append(part.piece.text)
        self._thoughts[part.index] = self._thoughts.get(part.index, "") + part.thoughts
        scores += part.piece.logprobs
        choices = self._deltas(part, new, self._logprobs(part.piece.logprobs))
        if part.piece.done is not None:
            self.done[part.index] = part.piece.done, part.calls
            choices.append(self._last(part))
        usage = {"usage": None} if self.says_usage else {}
        return [{**self._head, "object": self.chunk_object, "choices": [{"index": part.index, **choice}], **usage}
                for choice in choices]

    def text(self, index: int = 0) -> str:
        """An answer so far."""
        return "".join(self._texts.get(index, ()))

    def whole(self) -> dict[str, Any]:
        """The answer once all parts are there."""
        choices = [{"index": index, **self._choice(index, calls), "logprobs": self._logprobs(self._scores[index]),
                    "finish_reason": _reason(done, calls)} for index, (done, calls) in sorted(self.done.items())]
        return {**self._head, "object": self.object, "choices": choices}

    def usage(self) -> dict[str, Any]:
        """Tokens that were read and made."""
        first = [done for index, (done, _) in self.done.items() if index % self._draws == 0]
        read, made = sum(done.prompt_tokens for done in first), sum(len(done.ids) for done, _ in self.done.values())
        return {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made,
                "prompt_tokens_details": {"cached_tokens": sum(done.cached_tokens for done in first)}}

    def timings(self, queue_ms: float, total_ms: float) -> dict[str, float]:
        """How long the first answer took."""
        done = self.done[0][0]
        return {"queue_ms": round(queue_ms, 3), "ttft_ms": round(done.ttft_ms, 3), "total_ms": round(total_ms, 3),
                "decode_tokens_per_s": round(done.decode_tokens_per_s, 3)}

    def after(self, usage: bool, timings: dict[str, float]) -> list[dict[str, Any]]:
        """The events behind the last answer's."""
        end = {**self._head, "object": self.chunk_object, "choices": [], "usage": self.usage(), "timings": timings}
        return [end] if usage else []

    @abstractmethod
    def _deltas(self, part: Part, new: bool, logprobs: Any) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _last(self, part: Part) -> dict[str, Any]: ...

    @abstractmethod
    def _choice(self, index: int, calls: list[ToolCall]) -> dict[str, Any]: ...

    @abstractmethod
    def _logprobs(self, scores: Sequence[TokenLogprob]) -> dict[str, Any] | None: ...


class ChatReply(Reply):
    """An answer of /v1/chat/completions."""

    object, chunk_object, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def _deltas(self, part: Part, new: bool, logprobs: Any) -> list[dict[str, Any]]:
        opening = [{"delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None,
                    "finish_reason": None}] if new else []
        delta: dict[str, Any] = {"reasoning_content": part.thoughts} if part.thoughts else {}
        if part.piece.text or (part.piece.logprobs and not delta):
            delta["content"] = part.piece.text
        return opening + ([{"delta": delta, "logprobs": logprobs, "finish_reason": None}] if delta else [])

    def _last(self, part: Part) -> dict[str, Any]:
        calls = [{"index": place, **call} for place, call in enumerate(_written(part.calls))]
        return {"delta": {"tool_calls": calls} if calls else {}, "logprobs": None,
                "finish_reason": _reason(part.piece.done, part.calls)}

    def _choice(self, index: int, calls: list[ToolCall]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": self.text(index), "refusal": None}
        if thoughts := self._thoughts.get(index, "").strip("\n"):
            message["reasoning_content"] = thoughts
        if calls:
            message |= {"content": message["content"] or None, "tool_calls": _written(calls)}
        return {"message": message}

    def _logprobs(self, scores: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        return {"content": [{**self._scored(one.id, one.logprob),
                             "top_logprobs": [self._scored(*other) for other in one.top]} for one in scores],
                "refusal": None} if self._wanted else None

    def _scored(self, token: int, logprob: float) -> dict[str, Any]:
        own = self._codec.bytes_of(token)
        return {"token": own.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(own)}


class TextReply(Reply):
    """An answer of /v1/completions."""

    object, chunk_object, prefix = "text_completion", "text_completion", "cmpl"

    def _deltas(self, part: Part, new: bool, logprobs: Any) -> list[dict[str, Any]]:
        said = bool(part.piece.text or part.piece.logprobs)
        return [{"text": part.piece.text, "logprobs": logprobs, "finish_reason": None}] if said else []

    def _last(self, part: Part) -> dict[str, Any]:
        return {"text": "", "logprobs": None, "finish_reason": _reason(part.piece.done, [])}

    def _choice(self, index: int, calls: list[ToolCall]) -> dict[str, Any]:
        return {"text": self.text(index)}

    def _logprobs(self, scores: Sequence[TokenLogprob]) -> dict[str, Any] | None:
        if not self._wanted:
            return None
        return {"tokens": [self._token(one.id) for one in scores],
                "bytes": [list(self._codec.bytes_of(one.id)) for one in scores],
                "token_logprobs": [_finite(one.logprob) for one in scores],
                "top_logprobs": [{self._token(token): _finite(value) for token, value in reversed(one.top)} or None
                                 for one in scores], "text_offset": [one.offset for one in scores]}

    def _token(self, token: int) -> str:
        """A token's text; of a part of a character its bytes, as OpenAI writes them."""
        own = self._codec.bytes_of(token)
        try:
            return own.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)


class Form:
    """How an answer's tables are written: here as they are, as chats and texts want them."""

    def whole(self, table: dict[str, Any]) -> dict[str, Any]:
        """A whole answer."""
        return table

    def piece(self, table: dict[str, Any]) -> bytes:
        """A part of a stream."""
        return event(table)

    def failed(self, table: dict[str, Any]) -> bytes:
        """An error that ends the stream."""
        return event(table)

    def end(self) -> bytes:
        """The stream's end."""
        return b"data: [DONE]\n\n"


def together(own: dict[str, Any], other: Any) -> dict[str, Any]:
    """The usage of an answer that two models worked on: the sum of both, and each by itself; `other` is what the second
    server says, None where it says nothing."""
    kinds = ("prompt_tokens", "completion_tokens", "total_tokens")
    return {**{kind: own[kind] + counted(other, kind) for kind in kinds}, "model": own,
            "fallback": other if isinstance(other, dict) and other else None}


def counted(usage: Any, kind: str) -> int:
    """A number of tokens that another server says; 0 where it says none."""
    value = usage.get(kind) if isinstance(usage, dict) else None
    return value if type(value) is int and value > 0 else 0


def event(table: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + encoded(table) + b"\n\n"


def encoded(table: dict[str, Any]) -> bytes:
    """JSON in ASCII: a lone surrogate that a client sent can be told back to it."""
    return _ENCODER.encode(table).encode()


def _finite(value: float) -> float | None:
    """JSON has no word for what is not finite: None where there is no probability, a very low one for none at all."""
    return None if math.isnan(value) else max(value, -9999.0)


def _reason(done: Generation | None, calls: list[ToolCall]) -> str:
    return "tool_calls" if calls else "stop" if done is None else done.finish_reason


def _written(calls: list[ToolCall]) -> list[dict[str, Any]]:
    # Some templates take nothing but nine letters and digits as the id when the call comes back in a conversation.
    return [{"id": "".join(secrets.choice(_LETTERS) for _ in range(9)), "type": "function", "function": {
        "name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}} for call in calls]
