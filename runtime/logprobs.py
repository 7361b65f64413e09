"""How likely a model found its tokens, and those it might have said instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenLogprob:
    """A token and its natural log-probability under the model alone: before penalties, temperature and grammar."""

    id: int
    logprob: float
    top: list[tuple[int, float]]
    """The likeliest tokens in this place with theirs, likeliest first."""


def token_logprob(logits: NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    """The log-probability of `token` under logits [vocabulary], and of the `top` likeliest tokens."""
    highest = logits.max()
    norm = float(np.log(np.exp(logits - highest).sum(dtype=np.float64)) + highest)
    ids = np.argpartition(-logits, top)[:top] if top < len(logits) else np.arange(len(logits))
    ids = ids[np.lexsort((ids, -logits[ids]))]
    return TokenLogprob(token, float(logits[token]) - norm, [(int(best), float(logits[best]) - norm) for best in ids])
