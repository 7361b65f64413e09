"""A classifier's answer to a conversation."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...models.outputs import SIGMOID, SOFTMAX
from ..encoders.classifier import Classifier
from ..generation.result import Generation, Piece
from . import known
from .validation import Refusal

_MEANINGLESS = ("tools", "tool_choice", "logprobs", "top_logprobs", "logit_bias", "stop", "stop_token_ids",
                "chat_template_kwargs", "reasoning_effort", "enable_thinking",
                *sorted(known.STRUCTURE - {"response_format", "json_schema", "guided_json", "structured_outputs"}))
"""Fields that ask for what a label cannot give. Sampling changes no label, and a limit of tokens does not cut it."""


@dataclass(frozen=True)
class Labelled(Generation):
    """A classifier's answer."""

    confidence: float = 0.0
    """The label's probability, of a classifier that chooses one."""


def check(body: Mapping[str, Any]) -> None:
    """Refusal for fields that a classifier could only ignore."""
    for name in _MEANINGLESS:
        if body.get(name) not in (None, False, 0, "", "auto", "none", [], {}):
            raise Refusal(f"{name}: a classifier answers with its label alone, and calls no tools", name,
                          code="unsupported_value")
    if (body.get("n") or body.get("n_cmpl") or 1) != 1:
        raise Refusal("n: a classifier has one answer, its label", "n", code="unsupported_value")


def answer(model: Classifier, messages: list[dict[str, Any]], schema: Any) -> Piece:
    """What a classifier says of the last user's message: as it is, or as the one value that a JSON schema has room
    for."""
    text = next((message["content"] for message in reversed(messages) if message["role"] == "user"), None)
    if text is None:
        raise Refusal("messages: a classifier labels the last message of the user, and there is none", "messages")
    key = ""
    if schema:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or len(properties) != 1:
            raise Refusal("response_format: a classifier answers with one label, so the schema needs one property",
                          "response_format")
        key, wanted = next(iter(properties.items()))
        kind = {SOFTMAX: "string", SIGMOID: "array"}.get(model.head.kind, "number" if len(model.labels) == 1
                                                         else "object")
        told = wanted.get("type", kind) if isinstance(wanted, dict) else kind
        if kind not in (told if isinstance(told, list) else [told]):
            raise Refusal(f"response_format: {key[:40]!r} is of type {str(told)[:40]!r}, and this classifier answers "
                          f"with {kind}s", "response_format")
    started = time.perf_counter()
    tokens = len(model.whole(text).ids)
    found = model.classify(text)
    said = json.dumps({key: found.value}, ensure_ascii=False) if key else found.answer
    return Piece(said, Labelled(said, [], tokens, "stop", (time.perf_counter() - started) * 1000, 0.0,
                                confidence=found.probability if found.head == SOFTMAX else 0.0))
