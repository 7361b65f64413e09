"""Choosing the next token: the likeliest, or a draw from what temperature, top-k, top-p and min-p leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..models.errors import EdgestillError
from ..models.strict import limited

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. The steps apply in this order, as in transformers."""

    temperature: float = limited(0.0, minimum=0.0, maximum=100.0)
    """0 takes the likeliest token and ignores the rest."""
    top_k: int = limited(0, minimum=0)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = limited(1.0, minimum=0.0, maximum=1.0)
    """Keep the fewest likeliest tokens that together reach this probability (Holtzman et al. 2019)."""
    min_p: float = limited(0.0, minimum=0.0, maximum=1.0)
    """Keep tokens at least this fraction as likely as the likeliest (Nguyen et al. 2024)."""
    seed: int = limited(0, minimum=0)


def greedy(logits: NDArray[np.float32]) -> int:
    """The likeliest token of logits [vocabulary]; EdgestillError when they hold NaN."""
    token = int(logits.argmax())
    if logits[token] != logits[token] or logits[token] == -np.inf:
        raise _not_finite()
    return token


class Sampler:
    """Draws tokens; the same settings and logits give the same tokens."""

    def __init__(self, sampling: Sampling) -> None:
        """Start the sequence of draws of `sampling.seed`."""
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """Draw one token from logits [vocabulary]; EdgestillError when they hold NaN."""
        ids, probabilities = kept(logits, self._sampling)
        total = np.cumsum(probabilities)
        place = int(np.searchsorted(total, self._random.random() * total[-1], side="right"))
        return int(ids[min(place, len(ids) - 1)])


def kept(logits: NDArray[np.float32], sampling: Sampling) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ids that may be drawn, likeliest first, and their probabilities before they are scaled to sum 1."""
    top = float(logits.max())
    if not np.isfinite(top):
        raise _not_finite()
    scores = (logits.astype(np.float64) - top) / sampling.temperature
    if 0 < sampling.top_k < len(scores):
        ids = np.argpartition(-scores, sampling.top_k - 1)[:sampling.top_k]
    else:
        ids = np.flatnonzero(scores > -np.inf)
    ids = ids[np.lexsort((ids, -scores[ids]))]
    probabilities = np.exp(scores[ids])
    probabilities /= probabilities.sum()
    if sampling.top_p < 1.0:
        # A token stays while those before it have not reached top_p yet, so the first always stays.
        before = np.cumsum(probabilities) - probabilities
        count = max(1, int(np.count_nonzero(before < sampling.top_p)))
        ids, probabilities = ids[:count], probabilities[:count]
    if sampling.min_p > 0.0:
        likely = probabilities >= sampling.min_p * probabilities[0]
        ids, probabilities = ids[likely], probabilities[likely]
    return ids, probabilities


def _not_finite() -> EdgestillError:
    return EdgestillError("the model's logits are not finite, so no token can be chosen",
                          "the file is damaged or its numbers overflow: run edgestill verify on it")
