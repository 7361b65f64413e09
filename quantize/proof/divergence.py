"""How far one distribution over tokens lies from another, in nats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ...models.errors import ArtifactError
from ...runtime.machine.cores import allowed_cores

Floats = NDArray[np.floating]
Logits = Callable[[Sequence[int]], Floats]
Part = TypeVar("Part")
CHUNK_ROWS = 32
"""Rows that a thread turns into float64 at once: a vocabulary of 151,936 then takes 40 MB, not gigabytes."""


def by_chunks(work: Callable[[slice], Part], rows: int) -> list[Part]:
    """`work` on slices of CHUNK_ROWS rows, side by side; what it gives, in their order."""
    chunks = [slice(start, start + CHUNK_ROWS) for start in range(0, max(rows, 1), CHUNK_ROWS)]
    if len(chunks) == 1:
        return [work(chunks[0])]
    with ThreadPoolExecutor(allowed_cores()) as pool:
        return list(pool.map(work, chunks))


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Log-probabilities of logits [n, vocabulary], in float64: in float32 sums over a vocabulary lose 1e-6 nats."""
    shifted: NDArray[np.float64] = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def kl(p_logits: Floats, q_logits: Floats) -> NDArray[np.float64]:
    """KL(p || q) in nats for every row of two [n, vocabulary] logits.

    Rows are compared over the columns both have: files of one family pad their vocabularies differently.
    """
    width = min(p_logits.shape[1], q_logits.shape[1])

    def work(part: slice) -> NDArray[np.float64]:
        p, q = log_softmax(p_logits[part, :width]), log_softmax(q_logits[part, :width])
        np.subtract(p, q, out=q)
        np.exp(p, out=p)
        found: NDArray[np.float64] = np.einsum("nv,nv->n", p, q)
        return found
    return np.concatenate(by_chunks(work, len(p_logits))).clip(min=0.0)


def kl_of_top(top_ids: NDArray[np.integer], top_logprobs: Floats, tails: Floats,
              q_logits: Floats) -> NDArray[np.float64]:
    """KL in nats from p's K most likely tokens, everything else taken as one further outcome.

    Merging outcomes never raises a KL (data-processing inequality), so this is a lower bound of the full KL, and
    equal to it for K = vocabulary.

    Args:
        top_ids: [n, K] token ids.
        top_logprobs: [n, K] log-probabilities of p, possibly rounded.
        tails: [n] what p gives to all other tokens together.
        q_logits: [n, vocabulary].
    """
    if top_ids.max(initial=0) >= q_logits.shape[1]:
        raise ArtifactError(f"the float model's likeliest tokens go up to {top_ids.max()}, the file has "
                            f"{q_logits.shape[1]}", "it is another model's file, or another model's reference")

    def work(part: slice) -> NDArray[np.float64]:
        q_all = np.exp(log_softmax(q_logits[part]))
        q = np.take_along_axis(q_all, top_ids[part].astype(np.int64), axis=1)
        np.put_along_axis(q_all, top_ids[part].astype(np.int64), 0.0, axis=1)
        q_tail = q_all.sum(axis=1)  # 1 - q.sum() would lose a small tail to rounding
        p, p_tail = np.exp(top_logprobs[part].astype(np.float64)), tails[part].astype(np.float64)
        p *= ((1.0 - p_tail) / p.sum(axis=1))[:, None]  # rounding of what is stored must not become a bias
        found: NDArray[np.float64] = _terms(p, q).sum(axis=1) + _terms(p_tail, q_tail)
        return found
    return np.concatenate(by_chunks(work, len(top_ids))).clip(min=0.0)


def _terms(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    tiny = np.finfo(np.float64).tiny
    # What is no number stays none: it is no evidence that both are alike.
    return np.where(p == 0, 0.0, p * (np.log(np.maximum(p, tiny)) - np.log(np.maximum(q, tiny))))


def decisive(logits: Floats) -> NDArray[np.bool_]:
    """Rows of logits or log-probabilities [n, vocabulary] whose first choice is twice as likely as the second."""
    def work(part: slice) -> NDArray[np.bool_]:
        best = np.partition(logits[part], -2, axis=-1)[:, -2:].astype(np.float64)
        return np.asarray(best[:, 1] - best[:, 0] >= np.log(2.0))
    return np.concatenate(by_chunks(work, len(logits)))


@dataclass(frozen=True)
class Divergence:
    """What was found at every position."""

    kl: NDArray[np.float64]
    """In nats."""
    same_top: NDArray[np.bool_]
    """Both have the same most likely token."""
    decisive: NDArray[np.bool_]
    """The reference's first choice is at least twice as likely as its second."""

    @classmethod
    def of(cls, wanted: Floats, found: Floats) -> Divergence:
        """Between two [n, vocabulary] logits, the reference's first."""
        return cls(kl(wanted, found), np.asarray(wanted.argmax(axis=1) == found.argmax(axis=1)), decisive(wanted))

    @property
    def n(self) -> int:
        """Positions."""
        return len(self.kl)

    @property
    def mean(self) -> float:
        """Mean KL in nats; infinite when a logit is not a number."""
        return _finite(float(self.kl.mean()))

    @property
    def p999(self) -> float:
        """99.9th percentile of the KL in nats: one broken position in a thousand shows here, not in the mean."""
        return _finite(float(np.quantile(self.kl, 0.999)))

    @property
    def top1(self) -> float:
        """Share of positions with the same most likely token."""
        return float(self.same_top.mean())


def join(parts: Sequence[Divergence]) -> Divergence:
    """All positions of `parts` as one."""
    names = ("kl", "same_top", "decisive")
    return Divergence(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def first(sequences: Iterable[NDArray[np.integer]], tokens: int) -> list[list[int]]:
    """The first `tokens` of `sequences`, the last of them cut."""
    found: list[list[int]] = []
    for ids in sequences:
        if tokens <= 0:
            break
        found.append(ids[:tokens].tolist())
        tokens -= len(found[-1])
    return found


def over(texts: Iterable[list[int]], wanted: Logits, found: Logits) -> Divergence:
    """Between what two models say of texts, each read in one pass."""
    return join([Divergence.of(wanted(ids), found(ids)) for ids in texts])


def _finite(value: float) -> float:
    return value if np.isfinite(value) else float("inf")
