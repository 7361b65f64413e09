"""Measure a model on rows: its answers, the metrics with their intervals, and paired comparisons."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ...models import kinds
from ...models.errors import DataError, UsageError
from ...models.json_values import with_nan, with_nulls
from ...models.strict import build
from ..data import answers as answered
from ..data import learned_tokens
from ..data.json_answers import json_value
from ..data.reader import rows_digest
from ..data.shapes import Row
from ..encoders.classifier import Classifier
from ..encoders.embedder import Embedder, nearest_answers
from ..encoders.encoder import TextEncoder
from ..generation.structure import task_schema
from ..metrics import Context
from .intervals import Interval, McNemar, mcnemar, mean, of_difference, of_metric
from .likelihood import row_likelihoods
from .row_fit import fit

PACKAGE = "runtime.metrics"
BATCH = 64
"""Texts classified between two reports of progress."""
DEFAULTS = {"label": ["accuracy", "macro_f1"], "labels": ["micro_f1", "exact_match"],
            "score": ["mean_absolute_error", "pearson", "spearman"]}
Progress = Callable[[int, int], None]
"""Called with the rows answered so far and all rows."""


@dataclass(frozen=True)
class Evaluation:
    """What a model answered and how good that was; `to_json` and `from_json` are exact inverses."""

    metrics: dict[str, Interval]
    scores: dict[str, list[Any]]
    """Per metric one value (or list of values) a row."""
    answers: list[str]
    """Empty where no metric needed answers."""
    where: list[str]
    """The place each row was read from."""
    rows_sha256: str
    seconds: float
    """Wall clock of answering; scoring not included."""
    constrained: bool = False

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types; a number that is none (a diverged model's perplexity) is null."""
        table = asdict(self)
        return table | {"metrics": with_nulls(table["metrics"]), "scores": with_nulls(table["scores"])}

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Evaluation:
        """Read what `to_json` gave."""
        known = {item.name: table[item.name] for item in fields(cls)}
        metrics = {name: Interval(**with_nan(value)) for name, value in table["metrics"].items()}
        return cls(**known | {"metrics": metrics, "scores": with_nan(table["scores"])})


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same rows, as first minus second."""

    differences: dict[str, Interval]
    tests: dict[str, McNemar] = field(default_factory=dict)
    """McNemar's exact test, for metrics that are right or wrong on each row."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types."""
        return {"differences": {name: asdict(value) for name, value in self.differences.items()},
                "tests": {name: test._asdict() for name, test in self.tests.items()}}


def evaluate(model: Any, rows: Sequence[Row], metrics: Sequence[str] = (), limit: int = 0, constrain: bool = False,
             reference: Sequence[str] | None = None, progress: Progress | None = None) -> Evaluation:
    """Let `model` (a Generator, Classifier or Embedder) answer the rows greedily, and score the answers.

    An embedder answers with the label of the nearest other row, or with the nearest of all rows' answers.

    `metrics` are names of runtime/metrics, with the value of the first setting after a colon where there is one
    ("field_match:intent"); without any, those that suit the rows. `limit` above 0 takes that many rows, evenly
    spaced, since files are often sorted by label. `constrain` decodes under the task's JSON schema.
    `reference` holds the teacher's answers to the same rows, for agreement.
    Raises DataError without rows or for rows of mixed kinds; UsageError for a metric that does not suit them.
    """
    rows = _with_answers(rows)
    chosen = spaced(range(len(rows)), limit)
    picked = [rows[index] for index in chosen]
    if reference is not None and len(reference) == len(rows):
        reference = [reference[index] for index in chosen]
    digest = rows_digest(picked)
    if isinstance(model, Classifier):
        picked = fit(picked, model.head)
    schema = schema_of(model)
    if constrain and schema is None:
        raise UsageError("constrain: the model's task has no JSON schema", "name one in task.schema, or leave it out")
    likelihoods = None if isinstance(model, TextEncoder) else functools.cache(lambda: row_likelihoods(model, picked))
    context = Context(None, schema, None if reference is None else list(reference), likelihoods)
    scorers = _scorers(metrics, picked, context)
    started = time.perf_counter()
    answers: list[str] = []
    if any(by_answers(scorer.name) for scorer in scorers):
        # What the model says by itself is measured, unless its answers are to be bound.
        options = {} if schema is None else {"schema": schema if constrain else False}
        answers = _answers(model, picked, options, progress)
    return replace(_scored(answers, picked, scorers, time.perf_counter() - started, constrain), rows_sha256=digest)


def evaluate_answers(answers: Sequence[str], rows: Sequence[Row], metrics: Sequence[str] = (),
                     schema: dict[str, Any] | None = None, reference: Sequence[str] | None = None,
                     seconds: float = 0.0, likelihoods: Callable[[], Any] | None = None) -> Evaluation:
    """Score answers that stand already, such as a baseline's or a teacher's; `metrics` as in `evaluate`.

    `likelihoods` gives those of `row_likelihoods` for metrics such as perplexity.
    """
    if len(answers) != len(rows):
        raise DataError(f"{len(answers)} answers for {len(rows)} rows", "give one answer a row")
    context = Context(None, schema, None if reference is None else list(reference),
                      likelihoods and functools.cache(likelihoods))
    return _scored(list(answers), rows, _scorers(metrics, rows, context), seconds, False)


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """The paired differences a - b of all metrics that both measured. UsageError when the rows are not the same."""
    check_same_rows(a, b)
    differences, tests = {}, {}
    for name in [name for name in a.scores if name in b.scores]:
        module = metric(name)[0]
        differences[name] = of_difference(a.scores[name], b.scores[name], aggregate_of(module), module.SHARE)
        both = np.array([a.scores[name], b.scores[name]])
        if both.ndim == 2 and np.isin(both, (0.0, 1.0)).all():
            tests[name] = mcnemar(a.scores[name], b.scores[name])
    return Comparison(differences, tests)


def check_metrics(metrics: Sequence[str], rows: Sequence[Row], schema: dict[str, Any] | None = None,
                  teacher: bool = False) -> None:
    """Raise what `evaluate` would raise for metrics that these rows do not allow, before there is a model.

    `teacher`: there will be a teacher's answers.
    """
    context = Context(None, schema, [""] * len(rows) if teacher else None, lambda: np.zeros((len(rows), 3)))
    _scorers(metrics, rows, context)


def higher_is_better(name: str) -> bool:
    """The direction of a metric as it is named. UsageError if unknown."""
    return bool(metric(name)[0].HIGHER_IS_BETTER)


def by_answers(name: str) -> bool:
    """Whether a metric looks at answers; the others read likelihoods. UsageError if unknown."""
    return "text" not in metric(name)[0].KINDS


def metric(name: str) -> tuple[ModuleType, Any]:
    """The file and settings of a metric as it is named: "accuracy", "field_match:intent". UsageError if unknown."""
    kind, separator, value = name.partition(":")
    module = kinds.load(PACKAGE, kind)
    settings = [item.name for item in fields(module.Config)]
    if separator and not settings:
        raise UsageError(f"metric {name!r}: {kind} has no settings", f"write {kind}")
    return module, build(module.Config, {settings[0]: value} if separator else {}, kind)


def default_metrics(rows: Sequence[Row], schema: dict[str, Any] | None, reference: Sequence[str] | None) -> list[str]:
    """The metrics that suit the rows: JSON validity only where the answers are to be JSON."""
    kind = _check_kind(rows)
    if kind == "text":
        return ["perplexity", "bits_per_character"]
    names = list(DEFAULTS.get(kind, ["exact_match"]))
    values = [json_value(row.answer) for row in rows] if kind == "chat" else []
    if kind == "chat" and (schema is not None or all(isinstance(value, (dict, list)) for value in values)):
        names.append("json_validity")
    return names + (["agreement"] if reference is not None and kind != "score" else [])


def spaced(indices: Sequence[int], limit: int) -> list[int]:
    """At most `limit` of the indices, evenly spaced; all of them when `limit` is 0."""
    if limit <= 0 or limit >= len(indices):
        return list(indices)
    return [indices[position * len(indices) // limit] for position in range(limit)]


def schema_of(model: Any) -> dict[str, Any] | None:
    """The JSON schema of a loaded model's task, or None. UsageError when its file is no JSON object."""
    return task_schema(getattr(model, "artifact", None))


def check_same_rows(a: Evaluation, b: Evaluation) -> None:
    """UsageError when two evaluations are not of the same rows."""
    if a.rows_sha256 != b.rows_sha256:
        raise UsageError(f"the two evaluations are of different rows ({a.rows_sha256[:12]}…, {b.rows_sha256[:12]}…)",
                         "evaluate both on the same file with the same limit")


def _with_answers(rows: Sequence[Row]) -> list[Row]:
    """The rows that say what is right: a conversation of which nothing is to be learned (weight 0) does not."""
    found = [row for row in rows if row.kind != "chat" or row.turns]
    if len(found) < len(rows):
        sys.stderr.write(f"{len(rows) - len(found)} of {len(rows)} rows have no answer to measure by (weight 0): "
                         "left out\n")
    return found


def _check_kind(rows: Sequence[Row]) -> str:
    found = sorted({row.kind for row in rows})
    if not found:
        raise DataError("there are no rows to evaluate on", "give at least one row")
    if len(found) > 1:
        raise DataError(f"rows of mixed kinds: {' and '.join(found)}", "evaluate each kind by itself")
    return found[0]


def _answers(model: Any, rows: Sequence[Row], options: dict[str, Any], progress: Progress | None) -> list[str]:
    if isinstance(model, Embedder):
        return nearest_answers(model.embed_all, rows)
    answers: list[str] = []
    size = BATCH if hasattr(model, "classify_all") else 1
    for start in range(0, len(rows), size):
        batch = rows[start:start + size]
        if hasattr(model, "classify_all"):
            answers += [result.answer for result in model.classify_all([row.texts if row.text else row.question
                                                                         for row in batch])]
        else:
            answers += [_generated(model, row, options) for row in batch]
        if progress:
            progress(len(answers), len(rows))
    return answers


def _generated(model: Any, row: Row, options: dict[str, Any]) -> str:
    messages = row.prompt_messages or ({"role": "user", "content": row.text},)
    codec = getattr(model, "codec", None)
    if codec is None or not row.messages:
        return str(model.generate(messages=list(messages), tools=row.tools, **options).text)
    asked = learned_tokens.options_of(codec, row)
    done = model.generate(messages=list(messages), tools=row.tools, template_options=asked, **options)
    return answered.said(codec, done.ids, done.text, row)


class _Scorer(NamedTuple):
    name: str
    module: ModuleType
    context: Context


def _scorers(names: Sequence[str], rows: Sequence[Row], context: Context) -> list[_Scorer]:
    """The metrics, each with what it may look at, once they are known to suit the rows."""
    kind = _check_kind(rows)
    scorers = []
    for name in names or default_metrics(rows, context.schema, context.reference):
        module, config = metric(name)
        if kind not in module.KINDS:
            raise UsageError(f"metric {name!r}: does not measure {kind} rows, only {' and '.join(module.KINDS)}",
                             f"for these rows: {', '.join(suitable(rows))}")
        scorers.append(_Scorer(name, module, replace(context, config=config)))
        if hasattr(module, "check"):
            module.check(rows, scorers[-1].context)
    return scorers


def _scored(answers: list[str], rows: Sequence[Row], scorers: Sequence[_Scorer], seconds: float,
            constrained: bool) -> Evaluation:
    values = {scorer.name: scorer.module.score(answers, rows, scorer.context) for scorer in scorers}
    intervals = {name: of_metric(values[name], aggregate_of(module), module.SHARE) for name, module, _ in scorers}
    return Evaluation(intervals, {name: scores.tolist() for name, scores in values.items()}, answers,
                      [row.where for row in rows], rows_digest(rows), seconds, constrained)


def suitable(rows: Sequence[Row]) -> list[str]:
    """The metrics that measure rows of this kind. DataError without rows or for rows of mixed kinds."""
    kind = _check_kind(rows)
    return [name for name in kinds.names(PACKAGE) if kind in kinds.load(PACKAGE, name).KINDS]


def aggregate_of(module: ModuleType) -> Callable[[Any], Any]:
    """What makes a metric out of scores [repeats, rows, …]: the mean, where its file says nothing else."""
    return getattr(module, "aggregate", mean)
