"""Metrics: one file each, named in evaluations by the file's name.

A file gives `KINDS` (the kinds of rows it measures: chat, label, text), `SHARE` (whether it is a share from 0 to 1),
`HIGHER_IS_BETTER` (its direction, which gates, ratios and the choice of a best file go by), `Config`, and
`score(answers, rows, context)`, which returns one value a row (float64 [rows], or [rows, k]). The metric is the
mean over rows unless the file has its own `aggregate` (scores [repeats, rows, k] → metric [repeats]). A file
that needs more than answers has `check(rows, context)`, which refuses before a model answers the first row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import UsageError

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class NoConfig:
    """The settings of a metric that has none."""


@dataclass(frozen=True)
class Context:
    """What a metric may look at besides answers and rows."""

    config: Any = field(default_factory=NoConfig)
    schema: dict[str, Any] | None = None
    """The JSON schema that answers must satisfy, where the task has one."""
    reference: list[str] | None = None
    """The teacher's answers to the same rows."""
    likelihoods: Callable[[], Scores] | None = None
    """Nats, tokens and characters of every row's scored text [rows, 3]; None without a model that gives logits."""

    def require_likelihoods(self) -> Callable[[], Scores]:
        """`likelihoods`, or UsageError where there is no model to ask."""
        if self.likelihoods is None:
            raise UsageError("a likelihood such as perplexity needs a model that generates text",
                             "leave it out for this one")
        return self.likelihoods
