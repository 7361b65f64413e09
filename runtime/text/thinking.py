"""The marks around reasoning, found by rendering an answer that has some."""

from __future__ import annotations

import re
from collections.abc import Callable

from ...models.errors import DataError
from .chat_template import continued
from .tool_calls import CALL, QUESTION, TOOL

_THOUGHTS, _WORDS = "edgestill-thoughts", "edgestill-words"
_TAG = re.compile(r"<[^<>]+>|\[[^\[\]]+\]")
_USUAL = ("<think>", "</think>")


def thinking_marks(render: Callable[..., str]) -> tuple[str, str]:
    """What the chat template writes before and behind an answer's reasoning, found with a codec's `render`; the first
    is empty where its prompts end inside of it. A template that writes no reasoning leaves it to the model, whose marks
    are the usual ones then."""
    for calls in ((), (CALL,)):  # some write it before calls alone
        answer = {"role": "assistant", "content": "" if calls else _WORDS, "reasoning_content": _THOUGHTS,
                  **({"tool_calls": list(calls)} if calls else {})}
        tools = [TOOL] if calls else []
        try:
            before = render([QUESTION], tools)
            whole = continued(before, render([QUESTION, answer], tools, False), _THOUGHTS) or ""
        except DataError:
            continue
        start, found, rest = whole[len(before):].partition(_THOUGHTS)
        end = _TAG.search(rest.partition(_WORDS)[0])
        if found and end:
            return start.strip(), end[0]
    return _USUAL
