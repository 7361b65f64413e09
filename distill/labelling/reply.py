"""What the teacher replied: read, held to the task, compared by meaning, counted as votes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...models.errors import UsageError
from ...runtime.data.calls import conversation
from ...runtime.data.calls.exchange import Exchange, Place, Unusable
from ...runtime.data.faults import RowFault, check_strings
from ...runtime.data.json_answers import is_json, json_value, same_value
from ...runtime.data.messages import Message, apart, compact_json, meaning
from ...runtime.data.reader import normalise
from ...runtime.metrics import Context, json_validity

NOT_A_LABEL = "none of the labels"
NO_TOOL = "calls a tool that it was not given"
NOT_JSON = "no JSON"
BREAKS = "breaks the schema"
BROKEN = "characters that no file of rows can hold"
REPEATS = "repeats what the teacher alone may see"
SHORTEST_SECRET = 16
"""Characters of a text that no answer says by chance."""
_FENCE = re.compile(r"\s*```\w*\n(.*)\n```\s*", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """An answer that can be used."""

    message: Message
    """The assistant's, without its thoughts."""
    logprob: float | None = None
    """Natural logarithm of its probability, where the endpoint says so."""

    @property
    def text(self) -> str:
        """What it means, as rows have it."""
        return meaning(self.message["content"], self.message.get("tool_calls", ()))


class Reader:
    """Reads replies, and refuses those that a row must not have."""

    def __init__(self, labels: Sequence[str], schema: Mapping[str, Any] | None, secrets: Sequence[str]) -> None:
        """`secrets`: texts that no answer may repeat. UsageError for a schema that is none, and for labels that no
        answer tells apart."""
        self._labels = {normalise(label): label for label in labels}
        for label in labels:
            if (other := self._labels[normalise(label)]) != label:
                raise UsageError(f"the labels {label!r} and {other!r} are the same but for case and blanks",
                                 "leave one of them out")
        self._validator = json_validity.check((), Context(schema=dict(schema))) if schema is not None else None
        self._secrets = _long(secrets)

    def read(self, response: Mapping[str, Any], private: Sequence[str] = (),
             tools: Sequence[Mapping[str, Any]] = (), asked: str = "") -> Reply:
        """The answer in the body of a chat completion; `private`: more secrets, of this row; `tools`: that it may call;
        `asked`: the row's own question, normalised, which is no secret.

        Raises Unusable with a reason that holds none of its words.
        """
        said = conversation.answer(response)
        words, calls = apart(said["content"])[1].strip(), said.get("tool_calls", ())
        if not {call["function"]["name"] for call in calls} <= {tool["function"]["name"] for tool in tools}:
            raise Unusable(NO_TOOL)
        if self._labels:
            words = self._label(words)
        elif self._validator is not None and not calls:
            words = self._json(words, self._validator)
        elif not words and not calls:
            raise Unusable(conversation.EMPTY)  # it thought, and said nothing
        found = Reply({"role": "assistant", "content": words, **({"tool_calls": calls} if calls else {})},
                      logprob_of(response))
        try:
            check_strings(found.message)
        except RowFault:
            raise Unusable(BROKEN) from None
        told = normalise("\n".join([found.text, *_texts(json_value(found.text))]))
        secrets = (*self._secrets, *_long(private))
        if not self._labels and any(secret in told and secret not in asked for secret in secrets):
            raise Unusable(REPEATS)
        return found

    def _label(self, words: str) -> str:
        plain = _unfenced(words)
        found = self._labels.get(normalise(plain)) or self._labels.get(normalise(plain.strip(" \t\n\"'`*.")))
        if found is None:
            raise Unusable(NOT_A_LABEL)
        return found

    def _json(self, words: str, validator: Any) -> str:
        value = json_value(_unfenced(words))
        if not is_json(value):
            raise Unusable(NOT_JSON)
        if not validator.is_valid(value):
            raise Unusable(BREAKS)
        return compact_json(value)


def _long(secrets: Sequence[str]) -> tuple[str, ...]:
    """Those that no answer says by chance, but for case and blanks."""
    return tuple(secret for secret in map(normalise, secrets) if len(secret) >= SHORTEST_SECRET)


def _texts(value: Any) -> Iterator[str]:
    """The texts inside a JSON value, whose characters JSON may write in another way."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in (*value, *value.values()) if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _unfenced(words: str) -> str:
    found = _FENCE.fullmatch(words)
    return found[1] if found else words


def tokens_of(response: Mapping[str, Any]) -> tuple[int, int] | None:
    """Tokens read and written, as the response says; None where it says none, or what cannot be."""
    found = Exchange(Place("", 0), response=response).tokens
    return found if found is not None and min(found) >= 0 else None


def logprob_of(response: Mapping[str, Any]) -> float | None:
    """Natural logarithm of an answer's probability; None where the response does not say."""
    try:
        tokens = response["choices"][0]["logprobs"]["content"]
        found = [float(token["logprob"]) for token in tokens]
    except (LookupError, TypeError, ValueError):
        return None
    return sum(found) if found and all(map(math.isfinite, found)) else None


def same(left: str, right: str) -> bool:
    """Whether two answers say the same: as JSON values where both are JSON, or but for case and blanks."""
    a, b = json_value(left), json_value(right)
    return same_value(a, b) if is_json(a) and is_json(b) else normalise(left) == normalise(right)


def elected(votes: Sequence[Reply]) -> tuple[Reply, int]:
    """The answer that most of `votes` give, and how many do; of as many, the more probable one, or else the first."""
    groups: list[list[Reply]] = []
    for vote in votes:
        group = next((group for group in groups if same(group[0].text, vote.text)), None)
        if group is None:
            groups.append([vote])
        else:
            group.append(vote)
    told = all(vote.logprob is not None for vote in votes)  # where one is not, it is neither certain nor impossible
    best = max(groups, key=lambda group: (len(group), told * sum(math.exp(vote.logprob or 0) for vote in group)))
    return best[0], len(best)


def agreement(votes: Sequence[str | None]) -> float:
    """The share of pairs of votes that say the same; a vote without a usable answer agrees with none."""
    pairs = [(votes[a], votes[b]) for a in range(len(votes)) for b in range(a)]
    return sum(a is not None and b is not None and same(a, b) for a, b in pairs) / len(pairs)
