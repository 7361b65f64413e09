"""What a model says at some places, as losses compare it: at positions of texts, or about whole rows.

All logits are a lot of numbers. Where they are kept, or come from far away, fewer stand for them: the likeliest tokens,
or some that were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LOGITS, LIKELIEST, DRAWN = "logits", "likeliest", "drawn"
HIDDEN, ATTENTION = "hidden", "attention"
TEXT = "text"
"""No signal: answers, which stand in the rows."""
Inner = tuple[str, int]
"""What a model computes on its way: HIDDEN and a layer (0: what enters the first one, k: what leaves the k-th), or
ATTENTION and a layer, from 1."""
_SERVES = {LOGITS: (LIKELIEST, DRAWN), LIKELIEST: (DRAWN,)}
_LEAST, _NOTHING = -80.0, -1e30
"""In nats: e^-80 of a distribution counts for nothing, and is still a number; a logit of no probability."""


def served(provided: Collection[str]) -> frozenset[str]:
    """All parts of a signal that can be read from the `provided` ones: the more numbers serve where fewer are asked."""
    return frozenset(provided).union(*(_SERVES.get(part, ()) for part in provided))


@dataclass(frozen=True, eq=False)
class Signal:
    """A model's word at n places; any part of them can be had as a signal of its own."""

    states: Tensor
    """[n, v] logits, or what `head` makes them from."""
    head: Callable[[Tensor], Tensor] | None = None
    """Makes float32 logits of states, so that those of all places need not be held at once."""
    inside: Mapping[Inner, Tensor] = field(default_factory=dict)
    """In float32, hidden states [n, hidden], and attention to the places of the row [n, length], over all heads."""

    def __getitem__(self, part: slice) -> Signal:
        return Signal(self.states[part], self.head, {what: value[part] for what, value in self.inside.items()})

    @cached_property
    def logits(self) -> Tensor:
        """[n, v] in float32, over the student's tokens or labels."""
        return self.states if self.head is None else self.head(self.states)


@dataclass(frozen=True, eq=False)
class Likeliest:
    """The k likeliest tokens of n places, and what is left for all others together."""

    vocabulary: int
    """The tokens that probabilities are over: ids are below it, and what a student has beyond it is padding."""
    ids: Tensor
    """[n, k]"""
    log_probabilities: Tensor
    """[n, k + 1] in nats: of each, and in the end of all others."""

    def __getitem__(self, part: slice) -> Likeliest:
        return Likeliest(self.vocabulary, self.ids[part], self.log_probabilities[part])

    @classmethod
    def of(cls, logits: Tensor, count: int) -> Likeliest:
        """The `count` likeliest of logits [n, v]."""
        ids = logits.topk(min(count, logits.shape[-1])).indices
        return cls(logits.shape[-1], ids, grouped(logits, ids))


@dataclass(frozen=True, eq=False)
class Drawn:
    """Tokens drawn at n places: `weights` are in the mean over draws the model's whole distribution.

    Random sampling for distillation: arXiv 2503.16870, which draws each token by itself. Here one random number draws
    them at even distances from the distribution, whose mean is the same, at less variance: of a token of probability p
    N draws hold N p, rounded down or up.
    """

    vocabulary: int
    """As of Likeliest."""
    ids: Tensor
    """[n, k]; 0 where fewer different tokens were drawn."""
    weights: Tensor
    """[n, k] shares of the draws; 0 there."""
    own: Tensor
    """[n] what the model itself gives for the drawn ones: their mean log-probability, in nats."""

    def __getitem__(self, part: slice) -> Drawn:
        return Drawn(self.vocabulary, self.ids[part], self.weights[part], self.own[part])

    @classmethod
    def of(cls, logits: Tensor, draws: int, random: Tensor) -> Drawn:
        """`draws` tokens at each place of logits [n, v]; `random` [n] from 0 to below 1, drawn evenly."""
        import torch

        log_p = logits.double().log_softmax(-1)
        sums = log_p.exp().cumsum(-1)
        places = (torch.arange(draws, device=logits.device) + random.to(logits.device)[:, None]) / draws
        drawn = torch.searchsorted(sums, places * sums[:, -1:], right=True)
        own = log_p.gather(-1, drawn).mean(-1)
        new = torch.ones_like(drawn, dtype=torch.bool)  # they come in order: equal ones stand together
        new[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
        slot = new.cumsum(-1) - 1
        empty = torch.zeros(len(drawn), int(slot.max()) + 1 if len(drawn) else 0, device=logits.device)
        weights = empty.scatter_add(-1, slot, torch.full_like(drawn, 1 / draws, dtype=empty.dtype))
        return cls(logits.shape[-1], empty.long().scatter(-1, slot, drawn), weights, own.float())


def grouped(logits: Tensor, ids: Tensor) -> Tensor:
    """The log-probabilities [n, k + 1] of the tokens `ids` [n, k] under logits [n, v], and in the end of all others, at
    least _LEAST."""
    import torch

    whole = logits.logsumexp(-1, keepdim=True)
    others = logits.scatter(-1, ids, _NOTHING).logsumexp(-1, keepdim=True)
    return torch.cat([logits.gather(-1, ids) - whole, (others - whole).clamp(min=_LEAST)], dim=-1)


@dataclass(frozen=True, eq=False)
class Mixed:
    """What several teachers say of the same n places."""

    parts: Sequence[tuple[float, AnySignal]]
    """Each with its share: they sum to 1."""

    def __getitem__(self, part: slice) -> Mixed:
        return Mixed([(share, told[part]) for share, told in self.parts])


AnySignal = Signal | Likeliest | Drawn | Mixed
"""What a teacher says, or several."""
