"""What may be asked of an answer: one table for Python, the command line and the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...models.errors import UsageError
from ...models.strict import build, limited
from .sampling import Sampling

STRUCTURES = ("schema", "regex", "choices", "grammar")
TOOL_CHOICES = ("auto", "none", "required")


@dataclass(frozen=True)
class Options(Sampling):
    """How an answer is made; every field has a default."""

    max_new_tokens: int | None = limited(None, minimum=1)
    """Longest answer in tokens; None: the task's own limit."""
    stop: list[str] = limited([])
    """Texts before which the answer ends."""
    stop_ids: list[int] = limited([])
    """Token ids that end the answer, beside the model's own."""
    logprobs: int | None = limited(None, minimum=0, maximum=20)
    """Log-probability of every token, and of this many of the likeliest in its place."""
    overflow: str = limited("refuse", choices=("refuse", "shift"))
    """When the context is full: refuse a prompt and end an answer, or forget the oldest half behind the system
    message and go on."""
    reuse: str = limited("exact", choices=("exact", "all", "none"))
    """What earlier prompts left in the cache is kept where it begins this one. exact: only what changes no bit of the
    answer; all: also earlier answers, whose last bits may differ from those of a fresh computation."""
    lookup: bool = False
    """Guess that tokens follow as they did before in the prompt and the answer, and check several in one pass; the
    answer stays the same. Off for models below 50M parameters, where it gains nothing."""
    schema: Any = None
    """A JSON schema or a pydantic class that the answer satisfies; None: the task's own, False: none."""
    regex: str | None = None
    """A regular expression that the whole answer matches."""
    choices: list[str] | None = None
    """The answer is one of these texts."""
    grammar: str | None = None
    """A Lark or GBNF grammar of the answer."""
    template_options: dict[str, Any] = limited({})
    """Variables of the chat template over those of the task, such as {"enable_thinking": False}."""
    tool_choice: Any = "auto"
    """auto: the model calls tools if it wants to; none: it is told of none; required: the answer is calls and nothing
    else; {"type": "function", "function": {"name": …}}: it is one call of that function."""
    parallel_tool_calls: bool = True
    """Whether an answer that tool_choice requires may be several calls."""

    @property
    def called(self) -> str | None:
        """The function that must be called; empty: any of them, None: none must."""
        if self.tool_choice in ("auto", "none"):
            return None
        return "" if self.tool_choice == "required" else str(self.tool_choice["function"]["name"])

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Options:
        """Check and fill in; UsageError names the first key that is unknown, of a wrong type or out of range."""
        if isinstance(table.get("stop"), str):
            table = {**table, "stop": [table["stop"]]}
        options = build(cls, table, "generate")
        for token, value in options.logit_bias.items():
            known = token.isascii() and token.isdecimal() and (token == "0" or token[0] != "0")  # one word for an id
            if not known or not -100 <= value <= 100:
                raise UsageError(f"generate.logit_bias: {token!r}: {value}, token ids and -100 to 100 are the limits",
                                 "write {token id: number}")
        choice = options.tool_choice
        named = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
        if choice not in TOOL_CHOICES and not (isinstance(named, Mapping) and isinstance(named.get("name"), str)
                                               and named["name"]):
            raise UsageError(f"generate.tool_choice: {str(choice)[:80]!r} is not one of the choices",
                             f"choices: {', '.join(TOOL_CHOICES)}, "
                             '{"type": "function", "function": {"name": …}}')
        given = [name for name in STRUCTURES if getattr(options, name) not in (None, False)]
        given += ["tool_choice"] if options.called is not None else []
        if len(given) > 1:
            raise UsageError(f"generate: {' and '.join(given)} cannot both bind one answer", "give one of them")
        return options
