"""Choosing the next token: the likeliest, or a draw from what penalties, temperature, top-k, top-p and min-p leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...models.errors import EdgestillError, UsageError
from ...models.strict import limited

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .constraints import Constraint

_COLDEST = 1e-6
"""Lower temperatures count as this one, at which the likeliest alone is left: float32 has no room for less."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. The steps apply in this order, as in transformers: penalties and bias, then (where
    tokens are drawn) temperature, top-k, top-p, min-p."""

    temperature: float = limited(0.0, minimum=0.0, maximum=100.0)
    """0 takes the likeliest token, and nothing is drawn."""
    top_k: int = limited(0, minimum=0)
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = limited(1.0, minimum=0.0, maximum=1.0)
    """Keep the fewest likeliest tokens that together reach this probability (Holtzman et al. 2019)."""
    min_p: float = limited(0.0, minimum=0.0, maximum=1.0)
    """Keep tokens at least this fraction as likely as the likeliest (Nguyen et al. 2024)."""
    seed: int = limited(0, minimum=0)
    repetition_penalty: float = limited(1.0, minimum=0.01, maximum=100.0)
    """Divide positive logits of tokens in prompt and answer by this, multiply negative ones (Keskar et al. 2019)."""
    presence_penalty: float = limited(0.0, minimum=-2.0, maximum=2.0)
    """Subtracted from the logit of every token that the answer holds."""
    frequency_penalty: float = limited(0.0, minimum=-2.0, maximum=2.0)
    """Subtracted from a token's logit for each time that the answer holds it."""
    logit_bias: dict[str, float] = limited({})
    """Added to the logits of token ids, -100 to 100."""


def greedy(logits: NDArray[np.float32]) -> int:
    """The likeliest token of logits [vocabulary]; EdgestillError when they hold NaN."""
    token = int(logits.argmax())
    if logits[token] != logits[token] or logits[token] == -np.inf:
        raise _not_finite()
    return token


def lead(logits: NDArray[np.float32], token: int) -> float:
    """By how much, in nats, `token` is likelier than the likeliest other one of logits [vocabulary]."""
    own = logits[token]
    logits[token] = -np.inf
    other = logits.max()
    logits[token] = own
    return float(own - other)


class Sampler:
    """Draws tokens; the same settings and logits give the same tokens."""

    def __init__(self, sampling: Sampling) -> None:
        """Start the sequence of draws of `sampling.seed`."""
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """Draw one token from logits [vocabulary]; EdgestillError when they hold NaN."""
        ids, probabilities = kept(logits, self._sampling)
        total = np.cumsum(probabilities, dtype=np.float64)
        place = int(np.searchsorted(total, self._random.random() * total[-1], side="right"))
        return int(ids[min(place, len(ids) - 1)])


def kept(logits: NDArray[np.float32], sampling: Sampling) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ids that may be drawn, in order, and what each weighs beside the likeliest, which weighs 1.

    The vocabulary is never sorted whole: where it is large, that would cost a third of the model's time.
    """
    top = float(logits.max())
    if not np.isfinite(top):
        raise _not_finite()
    scores = (logits - np.float32(top)) / np.float32(max(sampling.temperature, _COLDEST))
    if 0 < sampling.top_k < len(scores):
        least = np.partition(scores, -sampling.top_k)[-sampling.top_k]
    elif sampling.min_p > 0.0 and sampling.top_p == 1.0:
        least = np.log(sampling.min_p)
    else:
        least = np.finfo(np.float32).min
    ids = np.flatnonzero(scores >= least)
    weights = np.exp(scores[ids])
    least = sampling.min_p
    if sampling.top_p < 1.0:
        least = max(least, _nucleus(scores[ids], weights, sampling.top_p))
    heavy = weights >= least
    return ids[heavy], weights[heavy]


def _nucleus(scores: NDArray[np.float32], weights: NDArray[np.float32], share: float) -> float:
    """The least weight among the fewest heaviest that together reach `share` of all; scores are weights' logarithms.

    Counting into bins of like scores finds the one bin in which the border lies, and only that is sorted.
    """
    bins = np.minimum(scores * -64.0, 4095.0).astype(np.int64)
    mass = np.bincount(bins, weights)
    reached = np.cumsum(mass)
    wanted = share * reached[-1]
    border = min(int(np.searchsorted(reached, wanted)), len(mass) - 1)
    ranked = -np.sort(-weights[bins == border])
    before = reached[border] - mass[border] + np.cumsum(ranked, dtype=np.float64) - ranked
    return float(ranked[max(1, int(np.count_nonzero(before < wanted))) - 1])


class Penalties:
    """Changes logits by what was said, and by a bias."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int], vocabulary_size: int) -> None:
        """UsageError for a bias on a token that does not exist."""
        self._sampling = sampling
        self._seen = dict.fromkeys(prompt if sampling.repetition_penalty != 1.0 else ())
        self._counts: dict[int, int] = {}
        biased = [int(token) for token in sampling.logit_bias]
        if max(biased, default=0) >= vocabulary_size:
            raise UsageError(f"generate.logit_bias: token {max(biased)}, the vocabulary has {vocabulary_size}",
                             "give token ids of this model")
        self._biased = np.array(biased, np.int64)
        self._bias = np.array(list(sampling.logit_bias.values()), np.float32)

    @staticmethod
    def wanted(sampling: Sampling) -> bool:
        """Whether there is anything to change."""
        return bool(sampling.repetition_penalty != 1.0 or sampling.presence_penalty or sampling.frequency_penalty
                    or sampling.logit_bias)

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Change logits [vocabulary] in place."""
        repetition = np.float32(self._sampling.repetition_penalty)
        if repetition != 1.0:
            seen = np.fromiter(self._seen, np.int64, len(self._seen))
            found = logits[seen]
            logits[seen] = np.where(found > 0, found / repetition, found * repetition)
        if self._counts and (self._sampling.presence_penalty or self._sampling.frequency_penalty):
            ids = np.fromiter(self._counts, np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            logits[ids] -= np.float32(self._sampling.presence_penalty) + counts * np.float32(
                self._sampling.frequency_penalty)
        logits[self._biased] += self._bias

    def accept(self, token: int) -> None:
        """Note that the answer goes on with `token`."""
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._sampling.repetition_penalty != 1.0:
            self._seen[token] = None


class Chooser:
    """Chooses the tokens of one answer under penalties and a constraint."""

    def __init__(self, sampling: Sampling, constraint: Constraint | None, prompt: Sequence[int],
                 vocabulary_size: int) -> None:
        """Errors as in `Penalties`."""
        self._choose = Sampler(sampling) if sampling.temperature > 0 else greedy
        self._greedy = sampling.temperature == 0
        self._constraint = constraint
        self._penalties = Penalties(sampling, prompt, vocabulary_size) if Penalties.wanted(sampling) else None
        self.plain = self._greedy and constraint is None and self._penalties is None
        """Whether `greedy` alone chooses the same."""

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """Choose one token; logits [vocabulary] are changed in place. EdgestillError when they hold NaN."""
        if self._penalties is not None:
            self._penalties.apply(logits)
        if self._constraint is None:
            return self._choose(logits)
        if self._greedy:
            # The likeliest token is most often allowed, and asking for one costs a tenth of asking for all.
            token = greedy(logits)
            if self._constraint.allows(token):
                return token
        self._constraint.mask(logits)
        return self._choose(logits)

    def accept(self, token: int) -> None:
        """Note that the answer goes on with `token`."""
        self.note([token])
        if self._constraint is not None:
            self._constraint.accept(token)

    def note(self, tokens: Sequence[int]) -> None:
        """Note tokens that the answer goes on with and that the constraint has accepted already."""
        if self._penalties is not None:
            for token in tokens:
                self._penalties.accept(token)


def _not_finite() -> EdgestillError:
    return EdgestillError("the model's logits are not finite, so no token can be chosen",
                          "the file is damaged or its numbers overflow: run edgestill verify on it")
