"""Whether two groups of texts, labels or numbers come from one source, by permutation: each test is exact whatever the
distribution, for it holds what was found against the same number under groups that were drawn anew (Phipson and Smyth
2010, Permutation P-values Should Never Be Zero).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Groups = NDArray[np.bool_]
"""[permutations, items]: whether an item is of the second group; the first line is how it was."""
PERMUTATIONS = 999
_RIDGE = 1.0
"""Of the domain classifier; its kernel is 1 for a text and itself."""


@dataclass(frozen=True)
class Difference:
    """What a test found."""

    size: float
    """0 for none; what 1 is each test says."""
    p: float
    """How often a difference of this size is chance."""


def groups(first: int, second: int, seed: int = 0) -> Groups:
    """Groups of these sizes as they are, and PERMUTATIONS drawn ones."""
    generator = np.random.default_rng(seed)
    found = np.zeros((PERMUTATIONS + 1, first + second), bool)
    found[0, first:] = True
    for line in found[1:]:
        line[generator.permutation(first + second)[:second]] = True
    return found


def numbers_differ(values: Numbers, drawn: Groups) -> Difference:
    """The largest distance of both groups' distribution functions (Kolmogorov and Smirnov); `values` [items]."""
    order = np.argsort(values, kind="stable")
    last = np.append(values[order][1:] != values[order][:-1], True)  # of equal values the last one alone counts
    second = drawn[:, order]
    shares = (np.cumsum(second, axis=1)[:, last] / drawn[0].sum(),
              np.cumsum(~second, axis=1)[:, last] / (~drawn[0]).sum())
    return _difference(np.abs(shares[0] - shares[1]).max(axis=1))


def labels_differ(labels: Sequence[str], drawn: Groups) -> Difference:
    """How much of one group would need another label for both to have the same shares (total variation); as a test, by
    the chi-squared statistic of the table of labels and groups."""
    _, codes = np.unique(np.array(labels, object), return_inverse=True)
    member = np.eye(int(codes.max()) + 1)[codes]
    second = drawn @ member
    whole = member.sum(axis=0)
    share = drawn[0].mean()
    statistic = ((second - share * whole)**2 / whole).sum(axis=1)  # the rest of it is the same for all groups
    shares = second[0] / drawn[0].sum(), (whole - second[0]) / (~drawn[0]).sum()
    return Difference(float(np.abs(shares[0] - shares[1]).sum() / 2), _difference(statistic).p)


def texts_differ(kernel: Numbers, drawn: Groups) -> tuple[Difference, Numbers]:
    """How well a classifier tells both groups apart, each text by one that has not seen it; `kernel` [items, items].

    The size is 2 AUC − 1: 1 where it always can. The classifier is ridge regression on the kernel, whose answer without
    a text follows from that with it (Hastie and others, The Elements of Statistical Learning, 7.10), so that every
    drawn grouping costs a product. Also gives its score of each text, from the first group's side to the second's.
    """
    size = len(kernel)
    hat = np.linalg.solve(kernel + _RIDGE * np.eye(size), kernel)
    leverage = np.diag(hat)
    wanted = drawn - drawn.mean(axis=1, keepdims=True)
    fitted = wanted @ hat.T
    scores = wanted - (wanted - fitted) / (1 - leverage)
    ranks = _ranks(scores)
    second, first = drawn[0].sum(), (~drawn[0]).sum()
    above = (ranks * drawn).sum(axis=1) - second * (second + 1) / 2
    aucs = above / (first * second)
    return Difference(float(2 * aucs[0] - 1), _difference(aucs).p), scores[0]


def _ranks(scores: Numbers) -> Numbers:
    """Places of each line's values in their order, from 1 on; of equal ones their mean."""
    order = np.argsort(scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    lines, size = scores.shape
    places = np.broadcast_to(np.arange(1.0, size + 1), scores.shape)
    starts = np.ones(scores.shape, bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    tie = np.cumsum(starts, axis=1) - 1 + size * np.arange(lines)[:, None]
    sums = np.bincount(tie.ravel(), places.ravel(), lines * size)
    counts = np.bincount(tie.ravel(), minlength=lines * size)
    found = np.empty(scores.shape)
    np.put_along_axis(found, order, (sums / np.maximum(counts, 1))[tie], axis=1)
    return found


def _difference(statistics: Numbers) -> Difference:
    """The first of `statistics` held against the others; what differs in its last bits only is as large."""
    as_large = statistics[1:] >= statistics[0] - 1e-9 * abs(statistics[0])
    return Difference(float(statistics[0]), float((1 + as_large.sum()) / len(statistics)))


def any_of(values: Sequence[float], level: float) -> list[bool]:
    """Which of several tests hold at a `level` that all of them share (Holm 1979)."""
    found, holds = [False] * len(values), True
    for rank, place in enumerate(np.argsort(values, kind="stable")):
        holds = holds and values[place] <= level / (len(values) - rank)
        found[place] = holds
    return found
