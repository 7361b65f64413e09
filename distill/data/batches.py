"""The batches that training sees: same seed, same batches, from any step on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.reader import Row
from .token_sets import TokenSet

if TYPE_CHECKING:
    from torch import Tensor

MEGA_BATCH = 50
"""Batches that are sorted by length together: enough that rows of a batch are of like length, few enough that
their order stays random."""


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass, padded on the right to the longest of them."""

    of: TokenSet
    """The set that they belong to."""
    rows: list[int]
    """Their places in it."""
    ids: Tensor
    """[rows, length]"""
    mask: Tensor | None
    """[rows, length] with 1 at real tokens; None where there is no padding."""
    positions: Tensor
    """Text: flat places in [rows * length] whose next token belongs to a completion."""
    labels: Tensor
    """The token that follows each of `positions`, or of each row its label or what every output is to be."""
    counts: list[int]
    """Entries of `labels` that belong to each row."""
    tokens: int
    """Real tokens, without padding."""

    @property
    def count(self) -> int:
        """What a loss is averaged over: completion tokens, or rows."""
        return len(self.labels)


@dataclass(frozen=True)
class Places:
    """What a padded batch is learned from; of numpy, see Batch."""

    positions: NDArray[np.int64]
    labels: NDArray[Any]
    counts: list[int]


Collate = Callable[[TokenSet, NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]], Places]
"""(set, rows of it [rows], their padded ids and which of them are learned [rows, length]) → what is learned."""


def next_tokens(tokens: TokenSet, rows: NDArray[np.int64], ids: NDArray[np.int64],
                learned: NDArray[np.bool_]) -> Places:
    """Each learned token, from the place before it; see Collate."""
    # Position t predicts token t + 1, so what is learned from s on is predicted from s - 1 on.
    return Places(np.flatnonzero(learned) - 1, ids[learned], [int(n) for n in learned.sum(axis=1)])


def whole_rows(tokens: TokenSet, rows: NDArray[np.int64], ids: NDArray[np.int64],
               learned: NDArray[np.bool_]) -> Places:
    """The target of each row; see Collate."""
    labels = tokens.targets[rows]
    return Places(np.zeros(0, dtype=np.int64), labels if labels.ndim > 1 else labels.astype(np.int64),
                   [1] * len(rows))


class Schedule:
    """Which rows each optimizer step sees. Any step can be asked for without the ones before it."""

    def __init__(self, tokens: TokenSet, batch_size: int, micro_batch_tokens: int, seed: int, collate: Collate,
                 device: str = "cpu", pad_id: int = 0, rows: Sequence[Row] = (),
                 groups: NDArray[np.int64] | None = None) -> None:
        """`rows` are what the tokens were made from: a teacher may have to read them itself. Those of different
        `groups` [rows of the set] share no forward pass."""
        self.rows = rows
        self.groups = np.zeros(len(tokens), np.int64) if groups is None else groups
        self.tokens, self.batch_size, self.micro_batch_tokens = tokens, batch_size, micro_batch_tokens
        self.seed, self.collate, self.device, self.pad_id = seed, collate, device, pad_id
        self.steps_per_epoch = -(-len(tokens) // batch_size)
        self._epoch: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def step(self, step: int, share: slice = slice(None)) -> list[Batch]:
        """The forward passes of one optimizer step, or of a `share` of its rows, from the shortest on; rows of like
        length stand together."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return self.split(self._epoch[1][place], share)

    def all(self, share: slice = slice(None)) -> Iterator[Batch]:
        """Every row once, or a `share` of them, shortest first: for validation and for what a teacher says."""
        yield from self.split(np.arange(len(self.tokens)), share)

    def _order(self, epoch: int) -> list[NDArray[np.int64]]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.tokens))
        lengths = self.tokens.lengths
        batches = []
        for start in range(0, len(order), MEGA_BATCH * self.batch_size):
            part = order[start:start + MEGA_BATCH * self.batch_size]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [part[i:i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        return [batches[index] for index in random.permutation(len(batches))]

    def only(self, rows: NDArray[np.int64]) -> Schedule:
        """Of the rows at these places of the set alone."""
        return Schedule(self.tokens.only(rows), self.batch_size, self.micro_batch_tokens, self.seed, self.collate,
                        self.device, self.pad_id, self.rows)

    def split(self, rows: NDArray[np.int64], share: slice = slice(None)) -> list[Batch]:
        """Cut rows into batches of one group and at most micro_batch_tokens padded tokens (one row at least)."""
        lengths, groups = self.tokens.lengths, self.groups
        rows = rows[np.lexsort((lengths[rows], groups[rows]))][share]
        batches, start = [], 0
        for end in range(1, len(rows) + 1):
            if (end == len(rows) or groups[rows[end]] != groups[rows[start]]
                    or (end + 1 - start) * lengths[rows[end]] > self.micro_batch_tokens):
                batches.append(self.batch(rows[start:end]))
                start = end
        return batches

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """These rows, in this order, as one batch."""
        import torch

        lengths = self.tokens.lengths[rows]
        width = int(lengths.max())
        ids = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        learned = np.zeros((len(rows), width), dtype=np.bool_)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = self.tokens.row(int(row))
            part = slice(self.tokens.offsets[row], self.tokens.offsets[row + 1])
            learned[place, : lengths[place]] = self.tokens.learned[part]
        column = np.arange(width)
        real = column < lengths[:, None]
        found = self.collate(self.tokens, rows, ids, learned)
        mask = None if bool(real.all()) else torch.from_numpy(real.astype(np.int64)).to(self.device)
        return Batch(self.tokens, [int(row) for row in rows], torch.from_numpy(ids).to(self.device), mask,
                     torch.from_numpy(found.positions).to(self.device), torch.from_numpy(found.labels).to(self.device),
                     found.counts, int(lengths.sum()))
