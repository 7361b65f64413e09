"""What the teacher is asked of a row, the key of that question, and what it weighs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ...runtime.data.calls.common import SYSTEMS
from ...runtime.data.calls.conversation import spoken
from ...runtime.data.messages import Message, compact_json
from ...runtime.data.private import behind
from ...runtime.evaluation import handover
from .items import Item
from .settings import Settings

MESSAGE_TOKENS = 16
"""At most, of what a template writes around a message."""
BYTES_PER_TOKEN = 4
"""About, in English."""


@dataclass(frozen=True)
class Prompt:
    """A row's question as the teacher is asked it, without what an endpoint may refuse to be told."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]

    @property
    def texts(self) -> list[str]:
        """All that is sent of it in words."""
        return [*spoken(self.messages), *([compact_json(self.tools)] if self.tools else [])]

    @property
    def size(self) -> int:
        """Bytes of its texts."""
        return sum(len(text.encode("utf-8")) for text in self.texts)

    @property
    def most_tokens(self) -> int:
        """No tokenizer makes more of it: a token is at least a byte."""
        return self.size + MESSAGE_TOKENS * (len(self.messages) + 1)


def prompt_of(item: Item, settings: Settings, private: bool = True) -> Prompt:
    """The examples, then the row, behind one system message; `private`: with the columns that the teacher alone reads.
    """
    asked = list(item.row.prompt_messages) or [{"role": "user", "content": item.row.question}]
    own = [str(asked.pop(0)["content"])] if asked[0]["role"] in SYSTEMS else []
    system = "\n\n".join(filter(None, [settings.system, *own, form(settings)]))
    if private and item.private:
        place = max(place for place, message in enumerate(asked) if message["role"] == "user")
        asked[place] = {**asked[place], "content": behind(asked[place]["content"], item.private)}
    head = [{"role": "system", "content": system}] if system else []
    return Prompt(handover.sent([*head, *examples_of(settings), *asked]), list(item.row.tools))


def examples_of(settings: Settings) -> list[Message]:
    """The examples as messages, each with its answer."""
    return [message for row in settings.examples for message in row.messages[:row.place + 1] or (
        {"role": "user", "content": row.question}, {"role": "assistant", "content": row.answer})]


def form_bytes(settings: Settings, bound: bool) -> int:
    """Bytes of the schema as an endpoint is told it beside the messages, which providers bill, too; `bound`: whether it
    is."""
    return len(json.dumps(handover.response_format(settings.schema))) if bound and settings.schema is not None else 0


def key_of(prompt: Prompt, settings: Settings, bound: bool, vote: int) -> str:
    """SHA-256 of all that decides the answer; `bound`: whether the endpoint is told the schema. The longest answer is
    not among it, since an answer that came to its own end would be the same; nor is the key that pays for it."""
    return digest([settings.url.rstrip("/"), settings.model, settings.temperature, prompt.messages, prompt.tools,
                   settings.schema if bound else None, vote])


def endpoint_key(settings: Settings) -> str:
    """What findings about an endpoint are kept under: nothing that says where it is."""
    return digest([settings.url.rstrip("/"), settings.model, settings.schema is not None])


def digest(value: Any) -> str:
    """SHA-256 of a value of JSON types, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def form(settings: Settings) -> str:
    """What the teacher is told of the form of answers; empty where any text will do."""
    if settings.labels:
        return f"Answer with the one of these labels that fits, and nothing else: {', '.join(settings.labels)}"
    if settings.schema is not None:
        return ("Answer with one JSON value that satisfies this JSON schema, and nothing else: "
                f"{compact_json(settings.schema)}")
    return ""
