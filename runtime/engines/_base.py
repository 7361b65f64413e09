"""What every engine can do, and what all of them share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...models.errors import ContextError, UsageError
from ._exclusive_use import Use

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_CONTEXT = 2048
"""Tokens of context when none is asked for: a model's own 32,768 would cost gigabytes on a small device."""
EXTEND = 32
"""Most tokens that `Engine.extend` takes at once."""
LOGITS_BYTES = 64 * 2**20
"""Most bytes of logits that one pass over several tokens may make."""


class Engine(Protocol):
    """One model and one cache of keys and values.

    Arrays that `prefill`, `decode` and `extend` return are views, valid until the next call.
    """

    vocabulary_size: int
    context_length: int
    threads: int
    block: int
    """Tokens that are kept for another prompt together; see `Cache`."""
    held: list[int]
    """The tokens in the cache, in order."""
    rewinds: bool
    """Whether `truncate` goes back to any length; what a recurrent state has read can only be forgotten whole."""
    use: Use
    """Who computes with it: whoever makes an answer asks here first."""

    @property
    def position(self) -> int:
        """Tokens in the cache."""
        ...

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Append `ids` to the cache; logits [vocabulary] of the last one."""
        ...

    def decode(self, token: int) -> NDArray[np.float32]:
        """Append one token; its logits [vocabulary]."""
        ...

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Append a few `ids` (at most EXTEND) to the cache; logits [n, vocabulary] of each."""
        ...

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits [n, vocabulary] of every token, from an empty cache; afterwards the cache holds `ids`."""
        ...

    def truncate(self, length: int) -> None:
        """Forget everything after the first `length` tokens."""
        ...

    def rewind(self, length: int, exact: bool = True) -> None:
        """Forget at least everything after the first `length` tokens.

        `exact` forgets as much more as it takes for what follows to be, bit for bit, as from an empty cache.
        """
        ...

    def saved(self) -> list[NDArray[Any]]:
        """A copy of what the cache holds, for `restore`."""
        ...

    def restore(self, ids: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """Replace the cache's content by what `saved` gave when the cache held `ids`, exactly prefilled.

        Raises ArtifactError for arrays of another shape or model.
        """
        ...

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens now, so that no later call has to."""
        ...

    def rest(self) -> None:
        """Say that the answer is over: others that share the weights need not wait for its next token."""
        ...

    def close(self) -> None:
        """Free the model once nobody computes with it; again it does nothing. Any other call is then a UsageError."""
        ...


class Cache:
    """What engines note of the tokens they hold.

    Kernels for few rows round otherwise than those for many, so a token's keys and values depend in their last bits
    on the pass that computed them. Passes over whole blocks, counted from the first token, do not differ: what they
    computed is settled, and may be kept for another prompt without a trace in its answer.
    """

    block: int
    """Tokens of a block."""
    rewinds = True

    def __init__(self) -> None:
        self.held: list[int] = []
        self._settled = 0
        self.use = Use()

    @property
    def position(self) -> int:
        """See `Engine.position`."""
        return len(self.held)

    def truncate(self, length: int) -> None:
        """See `Engine.truncate`."""
        check_length(length, len(self.held))
        del self.held[length:]
        self._settled = min(self._settled, length // self.block * self.block)

    def rewind(self, length: int, exact: bool = True) -> None:
        """See `Engine.rewind`."""
        kept = min(length, self._settled) // self.block * self.block if exact else length
        self.truncate(kept if self.rewinds or kept == len(self.held) else 0)

    def rest(self) -> None:
        """See `Engine.rest`. Whoever shares nothing has nobody who waits."""

    def _note(self, ids: Sequence[int]) -> None:
        """Note that one pass has computed `ids`."""
        if self._settled == len(self.held) and len(ids) % self.block == 0:
            self._settled += len(ids)
        self.held.extend(ids)

    def _passes(self, ids: Sequence[int], most: int) -> Iterator[Sequence[int]]:
        """`ids` in passes of at most `most` tokens: whole blocks, then the rest."""
        whole = len(ids) // self.block * self.block if len(self.held) % self.block == 0 else 0
        size = max(self.block, most // self.block * self.block)
        for start in range(0, whole, size):
            yield ids[start:min(start + size, whole)]
        for start in range(whole, len(ids), most):
            yield ids[start:start + most]


def chosen_context(asked: int, limit: int) -> int:
    """Tokens of context: what was asked for, or the model's own length up to DEFAULT_CONTEXT.

    Raises UsageError for more than the model was made for.
    """
    if asked < 0 or (limit and asked > limit):
        raise UsageError(f"context: {asked} tokens, the model's limit is {limit}",
                         f"use 1 to {limit}, or 0 for the default")
    return asked or min(limit or DEFAULT_CONTEXT, DEFAULT_CONTEXT)


def check_ids(ids: Sequence[int], position: int, context_length: int, vocabulary_size: int) -> None:
    """Refuse what would be read outside the cache or the embedding; UsageError (ContextError for too many) names the
    counts."""
    if not ids:
        raise UsageError("no token ids were given", "give at least one token, such as the begin-of-sequence token")
    if position + len(ids) > context_length:
        raise ContextError(f"{position + len(ids)} tokens, the context holds {context_length}",
                           "shorten the prompt, or load the model with a larger context", context_length)
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
