"""Reasoning in requests and answers: the template's options in everyone's words, thoughts apart from what is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..data import answers
from ..generation.result import Piece
from ..text.chat_template import THINKING as THINKING
from ..text.codec import Codec
from . import validation
from .validation import Refusal

EFFORT = "reasoning_effort"
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def check(body: Mapping[str, Any]) -> None:
    """Refusal for fields about reasoning that are wrong whatever the model is."""
    validation.object_(body, "chat_template_kwargs")
    validation.flag(body, THINKING)
    validation.flag(body, "include_reasoning")
    if body.get("reasoning_format") not in (None, "none", "auto", "deepseek"):
        raise Refusal(f"reasoning_format: {str(body['reasoning_format'])[:40]!r}, known are none, auto and deepseek",
                      "reasoning_format", code="unsupported_value")
    effort = validation.text(body, EFFORT)
    if effort and effort not in _EFFORTS:
        raise Refusal(f"{EFFORT}: {effort[:40]!r}, known are {', '.join(_EFFORTS)}", EFFORT)
    for name in ("thinking_token_budget", "thinking_budget_tokens"):
        if validation.number(body, name, -1, validation.TOKENS, True) not in (None, -1, 0):
            raise Refusal(f"{name}: {body[name]} is not supported, only 0 (none) and -1 (no limit)", name,
                          code="unsupported_value")


def switches(body: Mapping[str, Any]) -> dict[str, Any]:
    """A checked request's chat_template_kwargs, with what its switch or a budget of none mean."""
    found = dict(validation.object_(body, "chat_template_kwargs"))
    if body.get(THINKING) is not None:
        found.setdefault(THINKING, body[THINKING])
    if 0 in (body.get("thinking_token_budget"), body.get("thinking_budget_tokens")):
        found.setdefault(THINKING, False)
    return found


def options(body: Mapping[str, Any], codec: Codec) -> dict[str, Any]:
    """The template's options that a checked request asks for: its switches, and what its effort means to this template.
    Refusal for an effort that it knows no word for."""
    found = switches(body)
    effort = body.get(EFFORT)
    if effort == "none":
        found.setdefault(THINKING, False)
    elif effort:
        known = [name for name in (EFFORT, THINKING) if codec.reads(name)]
        if not known:
            raise Refusal(f"{EFFORT}: {effort!r} is not supported: this model's chat template reads neither {EFFORT} "
                          f"nor {THINKING}", EFFORT, code="unsupported_value")
        found = {**{name: effort if name == EFFORT else True for name in known}, **found}
    return found


def apart(codec: Codec, pieces: Iterable[Piece], on: bool) -> Iterator[tuple[Piece, str]]:
    """The pieces of an answer with its words alone, each with the thoughts that it adds. Where thinking is not `on`, an
    answer of a template whose prompts end inside of thoughts has none."""
    start, end = codec.thinking_marks
    if not start and not on:
        yield from ((piece, "") for piece in pieces)
        return
    if end not in codec.decode(codec.encode(end)):  # special tokens are not in the text: ids tell, once all are there
        for piece in pieces:
            if piece.done is not None:
                thoughts, words, _ = answers.apart(codec, piece.done.ids, piece.done.text)
                yield replace(piece, text=words, logprobs=piece.done.logprobs), thoughts
        return
    split = Thoughts((start, end))
    for piece in pieces:
        thoughts, words = split.push(piece.text)
        if piece.done is not None:
            rest = split.flush()
            thoughts, words = thoughts + rest[0], words + rest[1]
        if thoughts or words or piece.done is not None or piece.logprobs:
            yield replace(piece, text=words), thoughts


class Thoughts:
    """Takes an answer's text as it comes, and gives its thoughts and its words."""

    def __init__(self, marks: tuple[str, str]) -> None:
        """`marks` stand before and behind thoughts; the first is empty where an answer begins inside of them."""
        self._start, self._end = marks
        self._held, self._state = "", "before" if self._start else "inside"

    def push(self, text: str) -> tuple[str, str]:
        """What the next piece of text adds to the thoughts, and to the words."""
        thoughts, self._held = "", self._held + text
        if self._state == "before":
            begun = self._held.lstrip()
            if begun.startswith(self._start):
                self._held, self._state = begun[len(self._start):], "inside"
            elif not self._start.startswith(begun):
                self._state = "behind"
        if self._state == "inside":
            thoughts, end, rest = self._held.partition(self._end)
            keep = 0 if end else next((size for size in range(min(len(self._end) - 1, len(thoughts)), 0, -1)
                                       if self._end.startswith(thoughts[-size:])), 0)
            self._held, thoughts = (rest, thoughts) if end else (thoughts[len(thoughts) - keep:],
                                                                 thoughts[:len(thoughts) - keep])
            self._state = "gap" if end else "inside"
        if self._state == "gap":
            self._held = self._held.lstrip("\n")
            self._state = "behind" if self._held else "gap"
        if self._state != "behind":
            return thoughts, ""
        words, self._held = self._held, ""
        return thoughts, words

    def flush(self) -> tuple[str, str]:
        """What was held back for what never came."""
        rest, self._held = self._held, ""
        return (rest, "") if self._state == "inside" else ("", "" if self._state == "gap" else rest)
