"""Where a model reads otherwise than before: its window, and the context it was first trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

POSITIONS = 64
"""Tokens behind a border that are compared; as many lie between them and it."""
MOST_TOKENS = 8448
"""Longest text that is tried: twice as long takes four times as long to attend over."""


def borders(config: Mapping[str, Any]) -> dict[str, int]:
    """The token numbers, by what they are, behind which a decoder attends or turns positions in another way."""
    found: dict[str, int] = {}
    if config.get("use_sliding_window", True) and config.get("sliding_window"):
        found["window"] = int(config["sliding_window"])
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    original = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    if original:
        found["original context"] = int(original)
    return found


def plan(found: Mapping[str, int], context: int, longest: int) -> tuple[int, str]:
    """How long a text must be to lie beyond all borders that can be tried, and what cannot be.

    0 where there is none to try: the model never reads so far, or the `longest` text that is read anyway does. Borders
    at or behind `context`, the most tokens that are ever read, are none.
    """
    needed = {name: min(border + 2 * POSITIONS, context) for name, border in found.items() if border < context}
    over = {name: tokens for name, tokens in needed.items() if tokens > MOST_TOKENS}
    told = "; ".join(f"to pass the {name} of {found[name]:,} takes {tokens:,} tokens, and {MOST_TOKENS:,} are the most "
                     "that are tried" for name, tokens in over.items())
    tokens = max((tokens for name, tokens in needed.items() if name not in over), default=0)
    return (tokens if tokens > longest else 0), told
