"""What every engine can do, and what all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ..models.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_CONTEXT = 2048
"""Tokens of context when none is asked for: a model's own 32,768 would cost gigabytes on a small device."""
LOGITS_BYTES = 64 * 2**20
"""Most bytes of logits that one pass over several tokens may make."""


class Engine(Protocol):
    """One model and one cache of keys and values.

    Arrays that `prefill` and `decode` return are views, valid until the next call.
    """

    vocabulary_size: int
    context_length: int
    threads: int
    position: int
    """Tokens in the cache."""

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Append `ids` to the cache; logits [vocabulary] of the last one."""
        ...

    def decode(self, token: int) -> NDArray[np.float32]:
        """Append one token; its logits [vocabulary]."""
        ...

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [n, vocabulary] of every token, from an empty cache; afterwards the cache holds `ids`."""
        ...

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        ...

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens now, so that no later call has to."""
        ...

    def close(self) -> None:
        """Free the model; no other call may follow."""
        ...


def chosen_context(asked: int, limit: int) -> int:
    """Tokens of context: what was asked for, or the model's own length up to DEFAULT_CONTEXT.

    Raises UsageError for more than the model was made for.
    """
    if asked < 0 or (limit and asked > limit):
        raise UsageError(f"context: {asked} tokens, the model's limit is {limit}",
                         f"use 1 to {limit}, or 0 for the default")
    return asked or min(limit or DEFAULT_CONTEXT, DEFAULT_CONTEXT)


def check_ids(ids: Sequence[int], position: int, context_length: int, vocabulary_size: int) -> None:
    """Refuse what would be read outside the cache or the embedding; UsageError names the counts."""
    if not ids:
        raise UsageError("no token ids were given", "give at least one token, such as the begin-of-sequence token")
    if position + len(ids) > context_length:
        raise UsageError(f"{position + len(ids)} tokens, the context holds {context_length}",
                         "shorten the prompt, or load the model with a larger context")
    if min(ids) < 0 or max(ids) >= vocabulary_size:
        raise UsageError(f"token id {min(ids) if min(ids) < 0 else max(ids)}, the vocabulary has {vocabulary_size}",
                         "the ids were made by another model's tokenizer")


def check_length(length: int, position: int) -> None:
    """Refuse to truncate to more than there is."""
    if not 0 <= length <= position:
        raise UsageError(f"cannot truncate the cache to {length} tokens, it holds {position}", f"use 0 to {position}")


def rows_per_pass(vocabulary_size: int, most: int = 512) -> int:
    """Tokens whose logits fit into LOGITS_BYTES as float32: 32 to `most`."""
    return max(32, min(most, LOGITS_BYTES // (4 * vocabulary_size)))
