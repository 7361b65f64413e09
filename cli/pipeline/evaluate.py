"""Evaluations that a pipeline keeps: of trivial baselines, float models and shipped files, on the same rows.

Each is one JSON file: {name, role, parameters, model_bytes, evaluation, constrained}.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.task import Task
from ...runtime.data import learned_tokens

if TYPE_CHECKING:
    from ...runtime.data.reader import Row
    from ...runtime.evaluation.evaluate import Evaluation
    from ...runtime.generation.constraints import Constraint, Grammars

Progress = Callable[[int, int], None]
SMALL_PARAMETERS = 16_000_000


BASELINES = {"nearest_tfidf": "nearest training row (TF-IDF)", "linear_svm": "linear SVM (TF-IDF)"}


def metrics_for(rows: Sequence[Row], schema: dict[str, Any] | None, reference: Sequence[str] | None,
                wanted: Sequence[str], model: bool = True) -> list[str]:
    """The metrics that suit the rows, and those of `wanted` that can be measured: without a `model` only those of
    answers, without a `reference` no agreement."""
    from ...runtime.evaluation.evaluate import by_answers, default_metrics

    more = [name for name in wanted if (model or by_answers(name)) and (reference is not None or name != "agreement")]
    return list(dict.fromkeys([*default_metrics(rows, schema, reference), *more]))


def baseline(train: Sequence[Row], test: Sequence[Row], schema: dict[str, Any] | None,
             wanted: Sequence[str] = ()) -> Kept | None:
    """The strongest baseline that needs no language model; None for plain text, which has no answers.

    `wanted` are metrics that are measured besides those that suit the rows, here and below.
    """
    from ...distill.data.baselines import trivial_answers
    from ...runtime.evaluation.evaluate import evaluate_answers

    started = time.perf_counter()
    found = trivial_answers(train, test)
    if not found:
        return None
    name, answers = list(found.items())[-1]
    seconds = time.perf_counter() - started
    scored = evaluate_answers(answers, test, metrics_for(test, schema, None, wanted, model=False), schema,
                              seconds=seconds)
    return Kept(BASELINES.get(name, name), "baseline", scored)


def shipped(artifact: Path, rows: Sequence[Row], reference: Sequence[str] | None, threads: int, constrain: bool,
            wanted: Sequence[str] = (), progress: Progress | None = None) -> tuple[Evaluation, Evaluation | None]:
    """An exported file through the runtime, and once more held to the task's schema when `constrain`."""
    from ...runtime import evaluate, load
    from ...runtime.encoders.classifier import Classifier
    from ...runtime.evaluation.evaluate import by_answers, schema_of
    from ...runtime.evaluation.row_fit import fit

    model = load(artifact, threads=threads)
    fitted = fit(rows, model.head) if isinstance(model, Classifier) else rows
    names = metrics_for(fitted, schema_of(model), reference, wanted)
    free = evaluate(model, rows, names, reference=reference, progress=progress)
    if not constrain:
        return free, None
    bound = [name for name in names if by_answers(name)]  # a schema changes answers, not likelihoods
    return free, evaluate(model, rows, bound, constrain=True, reference=reference, progress=progress)


def packed(path: Path, task: Task, rows: Sequence[Row], wanted: Sequence[str], progress: Progress) -> Kept:
    """A teacher that is a packed file, as the runtime answers with the task's system prompt and template; once more
    held to its schema where there is one, and a tokenizer.json beside the file."""
    from ...runtime import evaluate, load
    from ...runtime.evaluation.evaluate import by_answers, schema_of
    from ...runtime.generation.generator import Generator
    from ...runtime.loading.foreign import codec_of, is_foreign

    loaded = load(path)
    assert isinstance(loaded, Generator)
    assert loaded.artifact is not None
    file, manifest = loaded.artifact, loaded.artifact.manifest
    # What is still to be read of it is the schema, which lies with the run file.
    told = replace(file, folder=Path(task.schema).parent, manifest=replace(manifest, task=task))
    with Generator(loaded.engine, codec_of(file, task), told, task.max_new_tokens) as model:
        names = metrics_for(rows, schema_of(model), None, wanted)
        free = evaluate(model, rows, names, progress=progress)
        held = evaluate(model, rows, [name for name in names if by_answers(name)], constrain=True,
                        progress=progress) if task.schema and not is_foreign(file) else None
    return Kept("teacher", "teacher", free, held, manifest.dimensions.get("parameters"), file.model_bytes())


class FloatSubject:
    """A trained model in torch, with as much of a Generator's face as `evaluate` needs for plain text."""

    def __init__(self, folder: Path, task: Task) -> None:
        """`folder`: a Hugging Face folder; `task`: with the path of its schema made whole."""
        from ...quantize.source.float_model import FloatModel
        from ...runtime.text.codec import Codec

        self.model = FloatModel.from_folder(folder)
        self.codec = Codec.from_folder(folder, task)
        self.engine = self  # `row_likelihoods` asks the engine for logits
        self.context_length = self.model.context_length
        self._task = task

    @property
    def parameters(self) -> int:
        """Distinct weights."""
        return self.model.parameters

    def logits(self, ids: Sequence[int]) -> Any:
        """float32 [len(ids), vocabulary]."""
        return self.model.logits(ids)

    @cached_property
    def schema(self) -> dict[str, Any] | None:
        """The task's JSON schema."""
        return read_schema(self._task)

    def evaluate(self, rows: Sequence[Row], reference: Sequence[str] | None = None, constrain: bool = False,
                 wanted: Sequence[str] = ()) -> Evaluation:
        """Greedy answers in batches (or the labels, or the likelihood of plain text), scored as shipped files are.

        `constrain` holds answers to the task's schema.
        """
        from ...distill.training import machine

        # The threads of a small model wait for each other longer than they compute, most of all on a busy machine.
        with machine.use_threads(1 if self.parameters < SMALL_PARAMETERS else machine.threads()):
            return self._evaluate(rows, reference, constrain, wanted)

    def _evaluate(self, rows: Sequence[Row], reference: Sequence[str] | None, constrain: bool,
                  wanted: Sequence[str]) -> Evaluation:
        from ...runtime.data.reader import rows_digest
        from ...runtime.evaluation.evaluate import evaluate, evaluate_answers
        from ...runtime.evaluation.likelihood import row_likelihoods

        if rows[0].kind == "text":
            return evaluate(self, rows, metrics_for(rows, self.schema, reference, wanted))
        started, digest = time.perf_counter(), rows_digest(rows)
        if self._task.kind == "classify":
            answers, rows = self._labels(rows)
        else:
            answers = self._answers(rows, constrain)
        seconds = time.perf_counter() - started
        found = evaluate_answers(answers, rows, metrics_for(rows, self.schema, reference, wanted), self.schema,
                                 reference, seconds, lambda: row_likelihoods(self, rows))
        return replace(found, constrained=constrain, rows_sha256=digest)

    def _answers(self, rows: Sequence[Row], constrain: bool) -> list[str]:
        from ...runtime.data.answers import said

        prompts = [learned_tokens.prompt_ids(self.codec, row) for row in rows]
        processor = None
        if constrain and self.schema is not None:
            from ...runtime.generation.constraints import Grammars

            processor = partial(SchemaProcessor, Grammars(self.codec, self.model.vocabulary_size), self.schema,
                                self.codec.stop_ids)
        found = self.model.answers(prompts, sorted(self.codec.stop_ids), self._task.max_new_tokens, processor)
        return [said(self.codec, ids, self.codec.decode(ids), row) for ids, row in zip(found, rows, strict=True)]

    def _labels(self, rows: Sequence[Row]) -> tuple[list[str], Sequence[Row]]:
        """What the classifier says of each row, and the rows as its head answers them."""
        from ...models.artifact import is_artifact, open_artifact
        from ...runtime.encoders.head import Head
        from ...runtime.evaluation.row_fit import fit
        from ...runtime.files.model_files import classifier_config

        # A trained model's own task has what its training found: labels, head and thresholds.
        folder = self.model.folder
        task = open_artifact(folder).manifest.task if is_artifact(folder) else self._task
        head = Head.of(task, classifier_config(folder))
        fitted = fit(rows, head)
        given = [self.model.text_ids(row.texts, self.context_length) for row in fitted]
        return [head.classification(self.model.logits(*one)).answer for one in given], fitted


class SchemaProcessor:
    """Holds every row of one batch to a schema, for transformers' generate."""

    def __init__(self, grammars: Grammars, schema: Mapping[str, Any], stop_ids: frozenset[int]) -> None:
        """`stop_ids` end an answer."""
        self._grammars, self._schema, self._stop_ids = grammars, schema, stop_ids
        self._open: list[Constraint | None] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """scores [rows, vocabulary] float32 with all tokens that break the schema at -inf."""
        if self._open:
            for index, token in enumerate(input_ids[:, -1].tolist()):
                constraint = self._open[index]
                if token in self._stop_ids:
                    self._open[index] = None
                elif constraint is not None:
                    constraint.accept(token)
        else:
            self._open = [self._grammars.compile(self._schema) for _ in range(len(scores))]
        for row, constraint in zip(scores, self._open, strict=True):
            if constraint is not None and constraint.done:
                row[list(self._stop_ids)] = float("inf")
            elif constraint is not None:
                constraint.mask(row.numpy())
        return scores


def read_schema(task: Task) -> dict[str, Any] | None:
    """The JSON schema file of a resolved task."""
    if not task.schema:
        return None
    schema = json.loads(Path(task.schema).read_text(encoding="utf-8"))
    assert isinstance(schema, dict)
    return schema


@dataclass(frozen=True)
class Kept:
    """One evaluation file."""

    name: str
    role: str
    evaluation: Evaluation
    constrained: Evaluation | None = None
    parameters: int | None = None
    model_bytes: int | None = None
    """Of the model file; for a float model its parameters in float32."""

    def of(self, rows: Sequence[Row]) -> Kept:
        """The same about `rows`, which the model may have been asked with more than stands in them."""
        from ...runtime.data.reader import rows_digest

        digest = rows_digest(rows)
        held = self.constrained and replace(self.constrained, rows_sha256=digest)
        return replace(self, evaluation=replace(self.evaluation, rows_sha256=digest), constrained=held)

    def write(self, path: Path) -> None:
        """Write the file in one step."""
        from ...models import files

        files.write_json(path, {
            "name": self.name, "role": self.role, "parameters": self.parameters, "model_bytes": self.model_bytes,
            "evaluation": self.evaluation.to_json(),
            "constrained": self.constrained.to_json() if self.constrained else None})

    @classmethod
    def read(cls, path: Path) -> Kept:
        """Read what `write` wrote."""
        from ...runtime.evaluation.evaluate import Evaluation

        table = json.loads(path.read_text(encoding="utf-8"))
        table["evaluation"] = Evaluation.from_json(table["evaluation"])
        table["constrained"] = Evaluation.from_json(table["constrained"]) if table["constrained"] else None
        return cls(**table)
