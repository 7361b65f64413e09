"""What packed and float classifiers decide, compared by what the head means: label by label, or number by number."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ...runtime.encoders.head import Head
from .certificate import Check, at_most, rounded
from .limits import Limits

Floats = NDArray[np.floating]
SURE = math.log(2.0)
"""A label is decided surely where its odds are twice, or half, those of its threshold."""
ROOM = 1.5
"""How much farther scores may lie than follows from the KL allowed."""
WORST = 5.0
"""The worst text's score may lie as many times as far away as all may on average."""


def labels(head: Head, expected: Floats, found: Floats, limits: Limits) -> list[Check]:
    """Every label of every text is one decision; expected and found are logits [texts, labels].

    The KL is that of two coins, a label's in the float model and in the packed file. Its mean is that of the label that
    lies farthest away: over all labels, one that is wholly wrong would vanish among hundreds that are never given.
    """
    apart = coin_kl(expected, found)
    wanted, given = head.given(head.values(expected)), head.given(head.values(found))
    same, sure = wanted == given, np.abs(expected - head.limits) >= SURE
    checks = [at_most("kl_nats", float(apart.mean(axis=0).max()), limits.kl_nats, len(apart), "nats"),
              at_most("kl_p999_nats", float(np.quantile(apart, 0.999)), limits.kl_p999_nats, apart.size, "nats"),
              Check("same_labels", True, "weights", round(float(same.all(axis=1).mean()), 6), None, len(same),
                    "texts that get the very same labels"),
              Check("same_decisions", True, "weights", round(float(same.mean()), 6), None, same.size)]
    name = "same_decisions_decisive"
    if not sure.any():
        return [*checks, Check(name, None, detail="nowhere are the odds of a label twice those of its threshold")]
    share, limit = float(same[sure].mean()), limits.decisive_top1
    passed = limit is None or share >= limit
    return [*checks, Check(name, passed, "weights", round(share, 6), limit, int(sure.sum()),
                           "" if passed else f"{share:.4f}, at least {limit} is needed")]


def scores(expected: Floats, found: Floats, limits: Limits) -> list[Check]:
    """The distance of scores [texts, scores], before a sigmoid, as a share of their spread over the texts.

    The limit belongs to the KL's: two normal distributions of one width, e widths apart, differ by e² / 2 nats; with a
    half more, for a sound int8 file of a real model of 22M with a random head lies .205 away, where .02 nats give .2.
    Noise leaves the slope of the packed scores over the float ones near 1, a wrong scale does not.
    """
    far = found.astype(np.float64) - expected
    spread = np.maximum(expected.std(axis=0, dtype=np.float64), 1e-3 * np.abs(expected).mean(axis=0) + 1e-9)
    limit = ROOM * math.sqrt(2 * limits.kl_nats)
    centred = expected - expected.mean(axis=0, dtype=np.float64)
    width = (centred**2).sum(axis=0)
    slope = np.where(width > 0, (centred * found).sum(axis=0) / np.where(width > 0, width, 1.0), 1.0)
    same = np.argsort(np.argsort(expected, axis=0), axis=0), np.argsort(np.argsort(found, axis=0), axis=0)
    rank = [np.corrcoef(*ranks)[0, 1] for ranks in zip(same[0].T, same[1].T, strict=True)] if len(expected) > 2 else []
    note = "of the scores' standard deviation"
    return [at_most("score_error", float((np.sqrt((far**2).mean(axis=0)) / spread).max()), limit, len(far), note),
            at_most("score_error_worst", float((np.abs(far) / spread).max()), WORST * limit, len(far), note),
            at_most("score_slope_error", float(np.abs(slope - 1).max()), limit / 2, len(far), "from a slope of 1"),
            Check("score_rank_correlation", True, "weights", rounded(float(min(rank))), None, len(far),
                  "Spearman's, between the float model's scores and the packed file's") if rank else
            Check("score_rank_correlation", None, detail=f"{len(far)} texts are too few for an order")]


def coin_kl(expected: Floats, found: Floats) -> NDArray[np.float64]:
    """KL in nats between coins that fall with the probability sigmoid(expected) and sigmoid(found)."""
    x, y = expected.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a logit that is no number makes a KL that is none, and that fails
        yes = np.exp(-np.logaddexp(0.0, -x))
        result: NDArray[np.float64] = np.maximum(
            yes * (np.logaddexp(0.0, -y) - np.logaddexp(0.0, -x))
            + (1.0 - yes) * (np.logaddexp(0.0, y) - np.logaddexp(0.0, x)), 0.0)
    return result
