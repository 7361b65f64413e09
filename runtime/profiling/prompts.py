"""Requests for the process that is measured: a user's own prompts as they are, or ids of an exact length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.errors import UsageError
from ..data import learned_tokens
from ..engines._base import DEFAULT_CONTEXT

if TYPE_CHECKING:
    from ...models.artifact import Artifact
    from ...models.task import Task
    from ..data.reader import Row
    from ..text.codec import Codec

DEFAULT_NEW_TOKENS = 64
"""Of an answer to a prompt of an exact length."""


class Source:
    """Where the requests of one measurement come from."""

    def __init__(self, task: Task, codec: Codec, prompts: Sequence[Row] | None, rows: Sequence[Row] | None,
                 prompt_tokens: int, new_tokens: int | None) -> None:
        """The arguments of `measure.profile`."""
        self._task, self._codec, self._prompts, self._rows = task, codec, prompts, rows
        self._length = prompt_tokens
        self._most = new_tokens if prompts is not None else new_tokens or DEFAULT_NEW_TOKENS
        self.name = "prompts" if prompts is not None else "rows" if rows else "vocabulary"

    def requests(self, count: int) -> list[dict[str, Any]]:
        """`count` requests; prompts of the user's in the order of `order`."""
        if self._prompts is not None:
            made = [_request(row, self._task.kind) for row in self._prompts]
            return [made[place] for place in order(len(made), count)]
        if self._rows and self._task.kind != "generate":
            return [{"text": self._rows[index % len(self._rows)].question} for index in range(count)]
        ids = [of_length(self._codec, self._rows, self._length, index) for index in range(count)]
        if self._task.kind == "generate":
            return [{"ids": one, "text": self._codec.decode(one, skip_special_tokens=False)} for one in ids]
        return [{"text": self._codec.decode(one)} for one in ids]

    def ask(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """How they are made: keywords of `timed_requests.asker`."""
        return {"options": dict(options), "new_tokens": self._most} if self._task.kind == "generate" else {}

    def context(self, artifact: Artifact) -> int:
        """The context that a generator is loaded with for them: 0, its default, where they fit into that."""
        if self._task.kind != "generate":
            return 0
        longest = self._length
        if self._prompts is not None:
            longest = max(len(self._ids(row)) for row in self._prompts)
        needed = longest + (self._most or self._task.max_new_tokens)
        default = min(artifact.manifest.dimensions.get("context", 0), DEFAULT_CONTEXT)
        return 0 if needed <= default else needed

    def _ids(self, row: Row) -> list[int]:
        if row.messages:
            return learned_tokens.prompt_ids(self._codec, row)
        return self._codec.prompt_ids([{"role": "user", "content": row.question}])

    def prompt_tokens(self, made: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of a prompt, on average of the requests as they were `made`."""
        return round(float(np.mean([request["prompt_tokens"] for request in made])))

    def new_tokens(self, made: Sequence[Mapping[str, Any]]) -> int | None:
        """Tokens of an answer, the same way; None where answers are none."""
        if self._task.kind != "generate":
            return None
        return round(float(np.mean([request["new_tokens"] for request in made])))


def order(size: int, count: int) -> list[int]:
    """`count` places of `size`, as often each as the others, in an order that says nothing: a file is often sorted."""
    drawn = np.random.default_rng(0)
    found: list[int] = []
    while len(found) < count:
        found += drawn.permutation(size).tolist()
    return found[:count]


def _request(row: Row, task: str) -> dict[str, Any]:
    if task == "classify":
        return {"text": row.texts if row.text else row.question}
    if task == "embed":
        return {"text": row.question}
    if row.messages:
        return {"messages": row.prompt_messages, "tools": row.tools}
    return {"prompt": row.question}


def of_length(codec: Codec, rows: Sequence[Row] | None, length: int, index: int) -> list[int]:
    """Exactly `length` ids: the rows from `index` on, one after the other, or a seeded draw from the vocabulary."""
    if rows:
        ids: list[int] = []
        while len(ids) < length:
            more = learned_tokens.prompt_ids(codec, rows[index % len(rows)])
            if not more and index >= len(rows):
                raise UsageError("the rows hold no tokens", "give rows with text, or none")
            ids += more
            index += 1
        return ids[:length]
    special = codec.tokenizer.get_added_tokens_decoder()
    plain = np.array([token for token in range(codec.vocabulary_size) if token not in special])
    drawn: list[int] = np.random.default_rng(index).choice(plain, length).tolist()
    return drawn
