"""Several teachers of one student: mixed by weight, or each asked about rows of its own.

Mixed, every loss is the mean of the loss against each teacher, weighted, as is usual with several teachers (You and
others 2017, "Learning from multiple teacher networks", section 3). Of the forward KL that is the KL to the mixture of
their distributions, up to a number that no student changes: the gradient of the two is the same. A mixture itself would
ask for all logits of every teacher; so each may give what it has, drawn tokens beside whole distributions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.data.reader import Row
from ...runtime.text.codec import Codec
from ..data.batches import Batch, Schedule
from ..data.token_sets import TokenSet
from ..signals import AnySignal, Mixed
from ._base import Teacher, Wants
from ._tables import Entry


class Several:
    """See Teacher: several of them, as one."""

    def __init__(self, entries: Sequence[Entry], opened: Sequence[tuple[Teacher, str]]) -> None:
        self.entries, self.members = entries, [teacher for teacher, _ in opened]
        self.key = hashlib.sha256(json.dumps([[key, entry.share, sorted(entry.route)] for entry, (_, key) in zip(
            entries, opened, strict=True)]).encode()).hexdigest()
        self._divided: dict[TokenSet, tuple[NDArray[np.int64], NDArray[np.int64], list[Schedule | None]]] = {}

    @property
    def provides(self) -> frozenset[str]:
        """See Teacher: of all; losses are held to each by its name."""
        return frozenset[str]().union(*(member.provides for member in self.members))

    @property
    def parents(self) -> Sequence[Mapping[str, Any]]:
        """See Teacher."""
        return [parent for member in self.members for parent in member.parents]

    @property
    def licence(self) -> str:
        """See Teacher: every one of them, since what they say together is under all."""
        return ", ".join(dict.fromkeys(member.licence for member in self.members))

    def groups(self, tokens: TokenSet, rows: Sequence[Row]) -> NDArray[np.int64] | None:
        """Which teacher each row of a set has; None where each has all."""
        places = {value: place for place, entry in enumerate(self.entries) for value in entry.route}
        return np.array([places[rows[row].route] for row in tokens.sources], np.int64) if places else None

    def prepare(self, examples: Schedule, codec: Codec, wants: Wants, cache: Path) -> None:
        """See Teacher; with routes each of its own rows alone."""
        routed = bool(self.entries[0].route)
        ranks, parts = np.zeros(len(examples.tokens), np.int64), list[Schedule | None]()
        for place, member in enumerate(self.members):
            rows = np.flatnonzero(examples.groups == place) if routed else np.arange(len(examples.tokens))
            ranks[rows] = np.arange(len(rows))
            part = None if not len(rows) else examples.only(rows) if routed else examples
            parts.append(part)
            if part is not None:
                with self.entries[place].named():
                    member.prepare(part, codec, wants, cache)
        self._divided[examples.tokens] = examples.groups, ranks, parts

    def signal(self, batch: Batch, wants: Wants) -> AnySignal:
        """See Teacher; a batch has rows of one route."""
        if not self.entries[0].route:
            return Mixed([(entry.share, member.signal(batch, wants))
                          for entry, member in zip(self.entries, self.members, strict=True)])
        groups, ranks, parts = self._divided[batch.of]
        place = int(groups[batch.rows[0]])
        part = parts[place]
        assert part is not None  # the row is one of its own
        own = replace(batch, of=part.tokens, rows=[int(ranks[row]) for row in batch.rows])
        return self.members[place].signal(own, wants)
