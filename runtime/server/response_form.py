"""A chat's answer as OpenAI's Responses API writes it: items of thoughts, words and calls, whole or as they grow."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from .responses import Form, counted, encoded

_TOLD: dict[str, Any] = {
    "instructions": None, "metadata": {}, "max_output_tokens": None, "parallel_tool_calls": True, "temperature": 0.0,
    "top_p": 1.0, "tools": [], "tool_choice": "auto", "reasoning": None, "text": {"format": {"type": "text"}}}
"""What a response repeats of its request, and says where that did not."""
_PARTS: dict[str, dict[str, Any]] = {"message": {"type": "output_text", "annotations": [], "logprobs": []},
                                    "reasoning": {"type": "reasoning_text"}}
_ITEMS: dict[str, dict[str, Any]] = {"message": {"role": "assistant"}, "reasoning": {"summary": []}}
_IDS = {"message": "msg", "reasoning": "rs", "function_call": "fc"}
_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponseForm(Form):
    """Writes a chat's answer as a response, whole or as the events of a stream."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        """`body` is the request."""
        told = {name: value if body.get(name) is None else body[name] for name, value in _TOLD.items()}
        self._table: dict[str, Any] = {
            "id": f"resp_{secrets.token_hex(16)}", "object": "response", "status": "in_progress",
            "created_at": int(time.time()), "error": None, "incomplete_details": None, "usage": None, **told,
            "output": [], "previous_response_id": None, "store": False, "truncation": "disabled"}
        self._item: dict[str, Any] | None = None
        self._index: int | None = None  # of the call that grows
        self._events, self._sequence = bytearray(), 0

    def whole(self, table: dict[str, Any]) -> dict[str, Any]:
        """A chat.completion as a response."""
        for choice in table["choices"]:
            message = choice["message"]
            calls = [{"index": place, **call} for place, call in enumerate(message.get("tool_calls") or ())]
            choice["delta"] = {**message, "tool_calls": calls}
        self.piece(table)
        self.end()
        return self._table

    def piece(self, table: dict[str, Any]) -> bytes:
        """A chat.completion.chunk as events."""
        if self._sequence == 0:
            self._table["model"] = table.get("model", "")
            self._say("response.created", response=self._table)
            self._say("response.in_progress", response=self._table)
        for choice in table["choices"]:
            delta = choice["delta"]
            self._grow("reasoning", delta.get("reasoning_content"))
            self._grow("message", delta.get("content"))
            for call in delta.get("tool_calls") or ():
                self._grow("function_call", call["function"].get("arguments"), call)
            reason = _REASONS.get(choice.get("finish_reason"))
            self._table["incomplete_details"] = {"reason": reason} if reason else None
        if table.get("usage"):
            self._table |= {"usage": _usage(table["usage"]), "timings": table.get("timings")}
        return self._taken()

    def failed(self, table: dict[str, Any]) -> bytes:
        """An error that ends the stream."""
        self._say("error", **{name: table["error"][name] for name in ("code", "message", "param")})
        return self._taken()

    def end(self) -> bytes:
        """The events behind the last chunk's."""
        if not self._table["output"]:
            self._open_item("message", {})
        self._close_item()
        status = "incomplete" if self._table["incomplete_details"] else "completed"
        self._table["status"] = status
        self._say(f"response.{status}", response=self._table)
        return self._taken()

    def _grow(self, kind: str, text: str | None, call: Mapping[str, Any] | None = None) -> None:
        """Add to the last item, or begin another where it is of another kind or call."""
        index = None if call is None else call["index"]
        if not text and call is None:
            return
        if self._item is None or (self._item["type"], self._index) != (kind, index):
            self._close_item()
            self._open_item(kind, call or {})
            self._index = index
        assert self._item is not None
        place = {"item_id": self._item["id"], "output_index": len(self._table["output"]) - 1}
        if call is not None:
            self._item["arguments"] += text or ""
            self._say("response.function_call_arguments.delta", delta=text or "", **place)
            return
        part = self._item["content"][0]
        part["text"] += text
        more: dict[str, Any] = {"logprobs": []} if kind == "message" else {}
        self._say(f"response.{part['type']}.delta", delta=text, content_index=0, **more, **place)

    def _open_item(self, kind: str, call: Mapping[str, Any]) -> None:
        item: dict[str, Any] = {"id": f"{_IDS[kind]}_{secrets.token_hex(16)}", "type": kind, "status": "in_progress"}
        if kind == "function_call":
            item |= {"call_id": call["id"], "name": call["function"]["name"], "arguments": ""}
        else:
            item |= {"content": [], **_ITEMS[kind]}
        self._table["output"].append(item)
        self._item, place = item, len(self._table["output"]) - 1
        self._say("response.output_item.added", item=item, output_index=place)
        if kind != "function_call":
            item["content"].append({**_PARTS[kind], "text": ""})
            self._say("response.content_part.added", part=item["content"][0], content_index=0, item_id=item["id"],
                      output_index=place)

    def _close_item(self) -> None:
        item, self._item = self._item, None
        if item is None:
            return
        item["status"] = "incomplete" if self._table["incomplete_details"] else "completed"
        place = {"item_id": item["id"], "output_index": len(self._table["output"]) - 1}
        if item["type"] == "function_call":
            self._say("response.function_call_arguments.done", name=item["name"], arguments=item["arguments"], **place)
        else:
            part, place = item["content"][0], {**place, "content_index": 0}
            more: dict[str, Any] = {"logprobs": []} if item["type"] == "message" else {}
            self._say(f"response.{part['type']}.done", text=part["text"], **more, **place)
            self._say("response.content_part.done", part=part, **place)
        self._say("response.output_item.done", item=item, output_index=place["output_index"])

    def _say(self, kind: str, **event: Any) -> None:
        table = {"type": kind, "sequence_number": self._sequence, **event}
        self._events += b"event: " + kind.encode() + b"\ndata: " + encoded(table) + b"\n\n"
        self._sequence += 1

    def _taken(self) -> bytes:
        events, self._events = bytes(self._events), bytearray()
        return events


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    details = usage.get("prompt_tokens_details")
    return {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "input_tokens_details": {"cached_tokens": counted(details, "cached_tokens"), "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": counted(usage.get("completion_tokens_details"),
                                                                  "reasoning_tokens")}}
