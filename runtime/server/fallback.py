"""The bigger model behind the served ones: it answers where they are not sure, and is compared with where they are.

It is reached at an OpenAI-compatible address; the rule that decides is `cascade`'s.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...models.errors import EdgestillError
from ..answer import Piece
from ..cascade import ANSWER, Next, confidences, is_sure
from ..metrics._common import same_answer
from ..text import Codec
from .asked import Part
from .counters import Counters
from .labels import Labelled

LOG = logging.getLogger("edgestill.server")
_SHADOWS: set[asyncio.Task[None]] = set()
"""Comparisons under way: asyncio itself keeps no task alive."""


@dataclass(frozen=True)
class Fallback:
    """Who answers where a served model is not sure."""

    next: Next
    threshold: float
    """Lowest confidence, from 0 to 1, of an answer that is kept."""
    shadow: float = 0.0
    """Share of the kept answers that the fallback is asked for too, to count how often it says the same."""

    async def decide(self, name: str, codec: Codec, parts: Sequence[Part], messages: Sequence[Mapping[str, Any]],
                     counters: Counters) -> Sequence[Part]:
        """The parts of one answer of the model `name`, or the fallback's in their place. Raises what the fallback
        raises."""
        done = parts[-1].piece.done
        assert done is not None  # a whole answer ends with it
        sure = {ANSWER: done.confidence} if isinstance(done, Labelled) else confidences(done, codec)
        kept = is_sure(sure, self.threshold)
        by = "model" if kept else "fallback"
        LOG.info("%s: answered by the %s, least confidence %.4f", name, by, min(sure.values()))
        if not kept:
            text = await asyncio.to_thread(self.next, messages)
            parts = [Part(0, Piece(text, replace(done, text=text, finish_reason="stop")), [])]
        counters.add("answered", model=name, by=by)
        if kept and random.random() < self.shadow:
            task = asyncio.create_task(self._compare(name, done.text, messages, counters))
            _SHADOWS.add(task)
            task.add_done_callback(_SHADOWS.discard)
        return parts

    async def _compare(self, name: str, text: str, messages: Sequence[Mapping[str, Any]], counters: Counters) -> None:
        try:
            other = await asyncio.to_thread(self.next, messages)
        except EdgestillError as error:
            LOG.warning("%s: the fallback could not be compared with: %s", name, error.message)
            return
        same = same_answer(text, other)
        counters.add("shadow", model=name, same=str(same).lower())
        LOG.info("%s: the fallback says %s", name, "the same" if same else f"{other[:200]!r}, not {text[:200]!r}")
