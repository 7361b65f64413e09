"""A request as it is handed on to another server: all that was asked, in OpenAI's words, and nothing of who asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..evaluation.handover import response_format
from .structures import structure
from .thinking import switches

_KEPT = ("messages", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
         "repetition_penalty", "max_tokens", "max_completion_tokens", "n", "stop", "seed", "logprobs", "top_logprobs",
         "prediction", "service_tier", "reasoning_effort", "stream")
_RENAMED = {"n_predict": "max_tokens", "repeat_penalty": "repetition_penalty", "n_cmpl": "n"}
_WITH_TOOLS = ("tools", "tool_choice", "parallel_tool_calls")
_OWN_TOKENS = ("logit_bias", "stop_token_ids")
_NEUTRAL = {"top_k": (0, -1), "min_p": (0,), "repetition_penalty": (1,), "max_tokens": (-1,)}
"""Values that ask for nothing, of fields that OpenAI itself does not know or take."""


def handed_on(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """A checked request to /v1/chat/completions for another server; None for one that names tokens of this model's
    vocabulary, which mean others there. Whatever is not listed here stays: the asker's names, marks and keys."""
    if any(body.get(name) for name in _OWN_TOKENS):
        return None
    names = {name: name for name in (*_KEPT, *(_WITH_TOOLS if body.get("tools") else ()))} | _RENAMED
    found = {ours: body[name] for name, ours in names.items()
             if body.get(name) is not None and body[name] not in _NEUTRAL.get(ours, ()) and body[name] != []}
    if options := switches(body):
        found["chat_template_kwargs"] = options
    bound, form = structure(body), body.get("response_format") or {}
    if form and "schema" not in form:
        found["response_format"] = form
    elif "schema" in bound:
        found["response_format"] = response_format(bound["schema"])
    elif bound:
        (name, value), = bound.items()
        found["structured_outputs"] = {{"choices": "choice"}.get(name, name): value}
    return found
