"""What the float model says of the user's rows: asked once, whatever number of files is held against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...models.errors import DataError
from ...models.runfile import Export
from ...models.task import Task
from ...runtime.data import learned_tokens
from ...runtime.data.answers import said
from ...runtime.data.reader import Row, rows_digest
from ...runtime.encoders.embedder import nearest_answers
from ...runtime.encoders.encoder import Text
from ...runtime.evaluation.evaluate import evaluate_answers
from ...runtime.evaluation.row_fit import fit
from ...runtime.text.codec import Codec
from ..grid.calibration import Calibration, measure
from ..grid.encode import Encoder
from ..source import corpus
from ..source.float_model import FloatModel
from ..source.model_folder import Source
from . import reference
from .packed_file import answer_tokens
from .reference import Reference

METRIC = "exact_match"
PAIRS = 4
"""Pairs of texts that a classifier which tells two texts apart is asked about, where no row holds any."""
TEST_ROWS = 160


class Witness:
    """A source, the rows it is asked about, and its answers; the float model is loaded when it is first asked."""

    def __init__(self, path: Path | str, rows: Sequence[Row] = (), test_rows: Sequence[Row] = (),
                 task: Task | None = None, test_limit: int = TEST_ROWS) -> None:
        """`rows` calibrate; the first `test_limit` of `test_rows`, less those that also stand in `rows`, are scored.

        Raises what `Source.open` raises, and DataError when all test rows also stand in `rows`.
        """
        self.origin = Source.open(Path(path), task)
        self.codec = Codec.from_folder(self.origin.folder, self.origin.task)
        self.rows = tuple(rows)
        self.head = self.origin.head
        self._held_out = held_out(rows, fit(test_rows, self.head) if self.head else test_rows, test_limit)
        self.calibration: Callable[[int], Calibration | None] = cache(self._calibrate)
        self._calibrations: list[Calibration] = []
        self._encoders: dict[str, Encoder] = {}

    def encoder(self, target: Export) -> Encoder:
        """What makes the codes of a target: one for all targets of its method and rows, which share what it finds."""
        key = json.dumps([target.method, target.calibration_rows], sort_keys=True)
        if key not in self._encoders:
            self._encoders[key] = Encoder(target.method, self.calibration(target.calibration_rows))
        return self._encoders[key]

    def release(self) -> None:
        """Give back the float model's memory until it is asked again."""
        for calibration in self._calibrations:
            calibration.release()
        if "model" in vars(self):
            self.model.unload()

    @property
    def kind(self) -> str:
        """What the model is for: a kind of task."""
        return self.origin.task.kind

    @cached_property
    def model(self) -> FloatModel:
        """The float model in torch."""
        return FloatModel.from_folder(self.origin.folder)

    @cached_property
    def test_rows(self) -> list[Row]:
        """The held-out rows that have an answer and fit into the model's context."""
        return [row for row in self._held_out if self._fits(row)]

    @cached_property
    def reference(self) -> Reference:
        """The float model's ids, probabilities, renderings, stop ids and scores."""
        added = [token.content for token in self.codec.tokenizer.get_added_tokens_decoder().values()]
        scores = self._scores()
        metric = METRIC if scores else ""
        output = {"classify": self.model.logits, "embed": lambda ids, types: self._vector(ids)}.get(self.kind)
        return reference.make(self.model, corpus.texts(added), self._sequences(), output, scores, metric)

    def _fits(self, row: Row) -> bool:
        if self.kind == "classify":
            return row.classified
        if self.kind == "embed":
            return row.kind == "label" or bool(row.answer)
        room = self.model.context_length - answer_tokens(self.codec, self._held_out, self.origin.task)
        return row.kind == "chat" and bool(row.answer) and len(learned_tokens.prompt_ids(self.codec, row)) <= room

    def _sequences(self) -> Iterator[tuple[list[int], Sequence[int]]]:
        """Held-out rows first: calibration was fitted to the others. Without any rows, the built-in corpus."""
        rows = (*self.test_rows, *self.rows)
        if self.kind != "generate":
            texts: list[Text] = [row.texts if row.text else row.question for row in rows] or list(corpus.TEXTS)
            if self.kind == "classify" and self.model.segments > 1 and not any(row.pair for row in rows):
                # Without a pair nothing would show that the graph tells both texts apart.
                texts[:0] = [(str(one), str(other)) for one, other in pairwise(texts[:PAIRS + 1])]
            yield from (self._text_ids(text) for text in texts)
        elif rows:
            yield from ((_ids(self.codec, row), ()) for row in rows)
        else:
            yield from ((self.codec.plain_ids(text), ()) for text in corpus.TEXTS)

    def _scores(self) -> dict[str, float]:
        """The float model's score on every test row, by the row's digest."""
        rows = self.test_rows
        if not rows or (self.kind == "embed" and len(rows) == 1):  # a neighbour is looked for among them
            return {}
        if self.kind == "classify":
            head = self.head
            assert head is not None
            if head.scores:
                return {}
            answers = [head.classification(self.model.logits(*self._text_ids(row.texts))).answer for row in rows]
        elif self.kind == "embed":
            answers = nearest_answers(lambda texts: np.stack([self._vector(self._text_ids(text)[0]) for text in texts]),
                                      rows)
        else:
            prompts = [learned_tokens.prompt_ids(self.codec, row) for row in rows]
            ids = self.model.answers(prompts, sorted(self.codec.stop_ids),
                                     answer_tokens(self.codec, rows, self.origin.task))
            answers = [said(self.codec, answer, self.codec.decode(answer), row)
                       for answer, row in zip(ids, rows, strict=True)]
        scores = evaluate_answers(answers, rows, [METRIC]).scores[METRIC]
        return {rows_digest([row]): float(score) for row, score in zip(rows, scores, strict=True)}

    def _calibrate(self, count: int) -> Calibration | None:
        """Importance from the first `count` rows; none for encoders, whose int8 needs none."""
        sequences = self.calibration_ids(count)
        if not sequences:
            return None
        self._calibrations.append(measure(self.model, sequences))
        return self._calibrations[-1]

    def calibration_ids(self, count: int) -> list[list[int]]:
        """Token ids of the first `count` rows; none for encoders."""
        return [_ids(self.codec, row) for row in self.rows[:count]] if self.kind == "generate" else []

    def _text_ids(self, text: Text) -> tuple[list[int], list[int]]:
        return self.model.text_ids(text, self.origin.dimensions()["context"])

    def _vector(self, ids: Sequence[int]) -> NDArray[np.float32]:
        return self.model.vector(ids, self.origin.task)


def held_out(rows: Sequence[Row], test_rows: Sequence[Row], count: int) -> list[Row]:
    """The first `count` test rows that do not stand in `rows`; DataError when all of them do."""
    seen = {rows_digest([row]) for row in rows}
    kept = {digest: row for row in test_rows if (digest := rows_digest([row])) not in seen}
    if test_rows and not kept:
        raise DataError(f"all {len(test_rows)} test rows also stand in the rows for calibration",
                        "give test rows that the model was not trained on, or none")
    return list(kept.values())[:count]


def _ids(codec: Codec, row: Row) -> list[int]:
    ends = not row.messages or bool(row.turns)
    return learned_tokens.training_ids(codec, row)[0] if ends else learned_tokens.prompt_ids(codec, row)
