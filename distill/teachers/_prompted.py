"""A teacher that is told more than its student: it reads prompts of its own, and what it says of an answer's tokens is
handed over at the places where the student learns them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import DataError, UsageError
from ...models.task import Task
from ...runtime.data import learned_tokens
from ...runtime.data.learned_tokens import Learned
from ...runtime.data.row import Row
from ...runtime.text.codec import Codec
from .. import alignment
from ..data.batches import Batch, Schedule, next_tokens
from ..data.token_sets import TokenSet, token_set
from ..signals import ATTENTION, AnySignal
from ._base import Reader, Wants, check_decodes
from ._prompt import Told


class PromptedTeacher:
    """See Teacher."""

    def __init__(self, teacher: Reader, told: Told, learn: str) -> None:
        """`learn` is that of [data]: which turns of a conversation the student learns."""
        self.teacher, self.told, self.learn = teacher, told, learn
        self._read: dict[TokenSet, tuple[Schedule, list[NDArray[np.int64]]]] = {}

    @property
    def provides(self) -> frozenset[str]:
        """See Teacher."""
        return told_provides(self.teacher.provides)

    @property
    def parents(self) -> Sequence[Mapping[str, Any]]:
        """See Teacher; the teacher itself with the hash of what it is told."""
        *before, itself = self.teacher.parents
        return [*before, {**itself, "prompt_sha256": self.told.digest}]

    @property
    def licence(self) -> str:
        """See Teacher."""
        return self.teacher.licence

    @property
    def config(self) -> Mapping[str, Any]:
        """The model's config.json, of a teacher that has one."""
        config: Mapping[str, Any] = self.teacher.config  # type: ignore[attr-defined]
        return config

    @property
    def follows_precision(self) -> bool:
        """See Teacher."""
        return bool(getattr(self.teacher, "follows_precision", False))

    def prepare(self, examples: Schedule, codec: Codec, wants: Wants, cache: Path) -> None:
        """See Teacher. Raises UsageError for the first row that the teacher cannot read, that is longer than its
        context, or whose answer it writes in other tokens than the student."""
        check_decodes(wants.task, "a prompt of its own")
        theirs = _codec(self.teacher, wants.task)
        ids = np.array(alignment.of_tokens(codec, theirs))
        sequences: list[Learned] = []
        places: list[NDArray[np.int64]] = []
        for row, taught, learned in self._rows(examples, codec):
            found = _sequences(theirs, taught)
            self._check(row, found, ids[learned].tolist())
            places.append(np.arange(len(sequences), len(sequences) + len(found)))
            sequences += found
        tokens = token_set(sequences, [0] * len(sequences), range(len(sequences)))
        own = Schedule(tokens, 1, examples.micro_batch_tokens, 0, next_tokens, examples.device, theirs.pad_id or 0)
        self._read[examples.tokens] = own, places
        self.teacher.prepare(own, codec, replace(wants, own_ids=True), cache)

    def signal(self, batch: Batch, wants: Wants) -> AnySignal:
        """See Teacher. Rows stand in the batch's order, and of each row the turns in theirs: as the labels do."""
        own, places = self._read[batch.of]
        rows = np.concatenate([places[row] for row in batch.rows])
        return self.teacher.signal(own.batch(rows), replace(wants, own_ids=True))

    def _rows(self, examples: Schedule, codec: Codec) -> Iterator[tuple[Row, Row, NDArray[np.int32]]]:
        """Of each row of ids its row of the data, the same as the teacher is asked it, with the same turns to learn,
        and the ids that are learned."""
        tokens = examples.tokens
        for source, group in groupby(range(len(tokens)), tokens.sources.tolist().__getitem__):
            if source < 0:
                raise UsageError("a plain text is no question that a teacher could be prompted with",
                                 "leave system, examples and context out of [teacher]")
            row = examples.rows[source]
            asked = self.told.row(row)
            shift = len(asked.messages) - len(row.messages)
            found = list(group)
            for index, turns in zip(found, _turns(codec, row, self.learn, [tokens.row(at) for at in found]),
                                    strict=True):
                other = {place + shift for place in row.turns} - {place + shift for place in turns}
                part = slice(tokens.offsets[index], tokens.offsets[index + 1])
                yield (row, replace(asked, unlearned=tuple(sorted({*asked.unlearned, *other}))),
                       tokens.ids[part][tokens.learned[part]])

    def _check(self, row: Row, found: Sequence[Learned], learned: Sequence[int]) -> None:
        longest, limit = max(len(one.ids) for one in found), self.teacher.context
        if limit and longest > limit:
            raise UsageError(f"{row.where}: with the teacher's system message, examples and context it has {longest} "
                             f"tokens, and the teacher reads {limit}",
                             "shorten them, leave the row out, or take a teacher with a longer context")
        if [token for one in found for start, end in one.spans for token in one.ids[start:end]] != learned:
            raise UsageError(f"{row.where}: teacher and student do not write its answer in the same tokens, so what the"
                             " one says is no word about what the other learns",
                             "their chat templates open or end an answer differently: give the student the teacher's "
                             "([student] template), or take another teacher")


def told_provides(provided: frozenset[str]) -> frozenset[str]:
    """What a teacher still provides: its attention goes to a prompt that the student does not have."""
    return provided - {ATTENTION}


def _codec(teacher: Reader, task: Task) -> Codec:
    """The teacher's tokenizer and template, with those of the task's options that its template reads."""
    plain = teacher.codec(replace(task, template_options={}))
    return plain.changed({name: value for name, value in task.template_options.items() if plain.reads(name)})


def _sequences(codec: Codec, row: Row) -> list[Learned]:
    try:
        return learned_tokens.sequences(codec, row)
    except DataError as error:
        raise UsageError(f"as the teacher is asked it, {error.message}",
                         "this teacher's chat template has no place for it: take another teacher, or leave system, "
                         "examples or context out of [teacher]") from error


def _turns(codec: Codec, row: Row, learn: str, kept: Sequence[NDArray[np.int32]]) -> list[list[int]]:
    """The turns that are learned in each of a row's sequences that were kept, in their order."""
    turns = row.turns if learn == "all" else row.turns[-1:]
    if len(turns) == 1:
        return [[*turns]]
    left, found, wanted = iter(turns), list[list[int]](), iter(kept)
    ids = next(wanted, None)
    for one in learned_tokens.sequences(codec, row, learn):
        of_it = [next(left) for _ in one.spans]
        if ids is not None and one.ids == ids.tolist():  # the others are longer than max_tokens
            found.append(of_it)
            ids = next(wanted, None)
    return found
