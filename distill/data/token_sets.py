"""Rows as token ids: what is read of each, what of it is learned, and which row of the data it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.learned_tokens import Learned


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Rows as ids: row i is ids[offsets[i]:offsets[i + 1]]."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    learned: NDArray[np.bool_]
    """Which of the ids are learned; a row's first has nothing before it and is not."""
    targets: NDArray[Any]
    """Of a classifier's row, the id of its label (int32 [rows]), or what each output is to be (float32 [rows, outputs])
    where rows have several labels or a score."""
    sources: NDArray[np.int32]
    """Each row's place in the rows that were tokenized; -1 for a block of plain texts. A chat whose template writes
    earlier turns otherwise than the last one is several rows here."""
    left_out: int
    """Rows that were longer than max_tokens."""
    unlearned: int = 0
    """Rows in which nothing is to be learned."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.offsets)

    def row(self, index: int) -> NDArray[np.int32]:
        """The ids of one row."""
        return self.ids[self.offsets[index]:self.offsets[index + 1]]

    def only(self, rows: NDArray[np.int64]) -> TokenSet:
        """The rows at these places, one at least."""
        places = np.concatenate([np.arange(self.offsets[row], self.offsets[row + 1]) for row in rows])
        return replace(self, ids=self.ids[places], offsets=np.cumsum([0, *self.lengths[rows]], dtype=np.int64),
                       learned=self.learned[places], targets=self.targets[rows], sources=self.sources[rows])


def everything(tokens: TokenSet) -> TokenSet:
    """The same rows with every token learned that has one before it."""
    learned = np.ones_like(tokens.learned)
    learned[tokens.offsets[:-1]] = False
    return replace(tokens, learned=learned)


def token_set(sequences: Sequence[Learned], targets: Sequence[int], sources: Sequence[int], left_out: int = 0,
              unlearned: int = 0) -> TokenSet:
    """Sequences as one set; see TokenSet."""
    flat = np.fromiter((token for one in sequences for token in one.ids), dtype=np.int32)
    offsets = np.cumsum([0, *(len(one.ids) for one in sequences)], dtype=np.int64)
    learned = np.zeros(len(flat), dtype=np.bool_)
    for offset, one in zip(offsets, sequences, strict=False):
        for start, end in one.spans:
            learned[offset + max(start, 1):offset + end] = True
    return TokenSet(flat, offsets, learned, np.array(targets, dtype=np.int32), np.array(sources, dtype=np.int32),
                    left_out, unlearned)
