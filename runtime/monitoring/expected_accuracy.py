"""How often a model is right on texts without labels, from how sure it is of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..evaluation.intervals import Interval, percentile

Numbers = NDArray[np.float64]
DRAWS = 1000
_BINS = 10
_IN_A_BIN = 25
"""Texts of the reference that a bin has at least."""


@dataclass(frozen=True)
class Expected:
    """Accuracies of a reference and of texts without labels."""

    reference: float
    now: Interval
    fall: Interval
    """From the one to the other."""

    @property
    def fell(self) -> bool:
        """Whether the whole interval says so."""
        return self.fall.low > 0


def expected(confidences: Numbers, right: NDArray[np.bool_], now: Numbers, seed: int = 0) -> Expected:
    """The accuracy of texts of which only the confidences `now` [texts] are known; of the reference's texts both.

    The reference's share of right answers among texts that the model was about as sure of, averaged over the texts; and
    inside of such a bin, by how much more or less sure it is of them. So it is exact where a model is as right as
    before when it is as sure as before, calibrated or not; where it is sure of what it never learned, it is too high.
    Intervals resample both sides.
    """
    generator = np.random.default_rng(seed)
    count = max(1, min(_BINS, len(confidences) // _IN_A_BIN))
    edges = np.unique(np.quantile(confidences, np.linspace(0, 1, count + 1)[1:-1]))
    held, here = (np.eye(len(edges) + 1)[np.searchsorted(edges, values, side="right")] for values in (confidences, now))
    of_held, of_here = (_times(generator, len(values)) for values in (confidences, now))
    texts, rights = of_held @ held, of_held @ (held * right[:, None])
    share = of_here @ here / len(now)
    # Of a bin that a draw left empty, its confidence is all that is known.
    more = rights - of_held @ (held * confidences[:, None])
    surplus = np.divide(more, texts, out=np.zeros_like(texts), where=texts > 0)
    estimates = np.clip((share * surplus).sum(axis=1) + of_here @ now / len(now), 0, 1)
    accuracies = of_held @ right / len(right)
    falls = accuracies - estimates
    return Expected(float(accuracies[0]), percentile(float(estimates[0]), estimates[1:], len(now)),
                    percentile(float(falls[0]), falls[1:], len(now)))


def _times(generator: np.random.Generator, size: int) -> Numbers:
    """How often each item counts [DRAWS + 1, size]: once, and as it was drawn."""
    drawn = generator.multinomial(size, np.full(size, 1 / size), DRAWS)
    return np.concatenate([np.ones((1, size)), drawn])
