"""Whether all that a row says reaches the ids: templates leave out roles, keys and calls without a word."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...models.errors import DataError
from ..text.chat_template import REASONING
from ..text.tool_calls import NAME, QUESTION, TOOL
from .messages import apart, reasoning

if TYPE_CHECKING:
    from ..text.codec import Codec
    from .row import Row

_KNOWN = {"role", "content", "tool_calls", "tool_call_id", "id", "name", *REASONING}
"""Keys of messages that are written, or that only tie messages together."""


def missing(codec: Codec, row: Row, sequences: Sequence[Sequence[int]], learned: Collection[int]) -> list[str]:
    """The parts of a conversation that stand in none of its ids, each by its place, key and role.

    Reasoning must stand where it is `learned`; templates may leave the thoughts of other turns out.
    """
    if not sequences:
        return []
    texts = [_squashed(codec.decode(ids, False)) for ids in sequences]
    whole = "\0".join(texts)
    lost = []
    for place, message in enumerate(row.messages[:row.place + 1]):
        name = f"messages[{place}]"
        who = f"the chat template does not write it (role {message['role']!r})"
        words = apart(str(message["content"]))[1] if message["role"] == "assistant" else str(message["content"])
        if not _stands(words, whole, codec) or (words.strip() and not _written(codec, row, place)):
            lost.append(f"{name}.content: {who}")
        if place in learned and not _stands(reasoning(message), whole, codec):
            lost.append(f"{name}: the chat template does not write its reasoning")
        for index, call in enumerate(message.get("tool_calls") or ()):
            parts = [call["function"]["name"], *_leaves(call["function"]["arguments"])]
            if not all(_stands(str(part), whole, codec) for part in parts) or not _written(codec, row, place, True):
                lost.append(f"{name}.tool_calls[{index}]: {who}")
        lost += [f"{name}.{key}: the chat template does not read it" for key, value in message.items()
                 if key not in _KNOWN and value not in ("", [], {}) and not codec.reads(key)]
        if message["role"] != "tool" and not _stands(str(message.get("name", "")), whole, codec):
            lost.append(f"{name}.name: {who}")
    if row.tools and not _tools_written(codec, row):
        lost.append("tools: the chat template does not write them")
    return lost


def _stands(part: str, whole: str, codec: Codec) -> bool:
    """Whether a text stands in the ids' text: as it is, or word by word where the template arranges it anew. Words that
    the template itself knows, such as /no_think, are orders to it."""
    if _squashed(part) in whole:
        return True
    source = codec.template or ""
    for word in part.split():
        inner = (piece for piece in re.split(r"</?\w+>|<\|[^>]*\|?>", word) if piece)
        if word not in source and not all(any(_squashed(form) in whole for form in (
                piece, json.dumps(piece)[1:-1], json.dumps(piece, ensure_ascii=False)[1:-1])) for piece in inner):
            return False
    return True


def _squashed(text: str) -> str:
    """A text without blanks, in one case and form: tokenizers may change all three."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def _written(codec: Codec, row: Row, place: int, calls: bool = False) -> bool:
    """Whether the template writes a message of this role here, whatever it says: by a mark in its place."""
    if codec.template is None:
        return True  # contents are joined
    shape = (place, calls, bool(row.tools), tuple((message["role"], bool(message.get("tool_calls")))
                                                  for message in row.messages[:row.place + 1]))
    if shape not in codec.written:
        mark = "edgestill mark"
        # Some templates write the system's message in a prompt alone.
        messages = [dict(message) for message in row.messages[:row.place + (place == row.place)]]
        if calls:
            messages[place]["tool_calls"] = [
                {**call, "function": {**call["function"], "name": mark}} for call in messages[place]["tool_calls"]]
        else:
            messages[place]["content"] = mark
        codec.written[shape] = mark in _rendered(codec, messages, row.tools, place < row.place)
    return codec.written[shape]


def _tools_written(codec: Codec, row: Row) -> bool:
    shape = ("tools", tuple(message["role"] for message in row.messages[:row.place + 1]))
    if shape not in codec.written:
        codec.written[shape] = NAME in _rendered(codec, row.prompt_messages or [QUESTION], [TOOL], True)
    return codec.written[shape]


def _rendered(codec: Codec, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]],
              prompt: bool) -> str:
    try:
        return codec.render(messages, tools, prompt)
    except DataError:
        return ""


def _leaves(value: Any) -> list[str]:
    """The texts inside a call's arguments."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _leaves(item)]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value] if isinstance(value, str) else []
