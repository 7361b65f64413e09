"""Sequences of tokens and the cache: where two begin alike, and what is kept when the context is full."""

from __future__ import annotations

from collections.abc import Sequence

from ...models.errors import UsageError


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """Leading tokens that both have."""
    size = min(len(first), len(second))
    if first[:size] == second[:size]:
        return size
    return next((index for index in range(size) if first[index] != second[index]), size)


def shifted(ids: list[int], head: int, room: int) -> list[int]:
    """`ids` without the oldest half behind the first `head`, again until they and one more fit into `room` tokens.

    UsageError when the head alone is too long.
    """
    if head + 2 > room:
        raise UsageError(f"the system message has {head} tokens, the context holds {room} with the conversation",
                         "shorten it, or load the model with a larger context")
    while len(ids) + 1 > room:
        ids = ids[:head] + ids[head + (len(ids) - head + 1) // 2:]
    return ids
