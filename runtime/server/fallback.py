"""The bigger model behind the served ones: it answers where they are not sure, and is compared with where they are.

It is reached at an OpenAI-compatible address; the rule that decides is `cascade`'s. What is asked there waits in a pool
of its own, so however slow it is, the served models answer as before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..data.answers import apart
from ..data.json_answers import same_answer
from ..evaluation.cascade import ANSWER, called, confidences, is_sure, said
from ..evaluation.handover import request
from ..generation.generator import Generator
from ..generation.remote import Remote, RemoteError
from ..generation.result import Generation
from .labels import Labelled
from .measures import Measures
from .requests import Part
from .validation import Refusal
from .work_queue import Station, Work

LOG = logging.getLogger("edgestill.server")
WORKERS, PLACES = 8, 64
"""Requests that are asked of the fallback at a time, and those that may wait to be."""
_SHADOWS: set[asyncio.Task[None]] = set()
"""Comparisons under way: asyncio itself keeps no task alive."""


class Fallback:
    """Who answers where a served model is not sure."""

    def __init__(self, remote: Remote, threshold: float | Mapping[str, float], shadow: float = 0.0,
                 workers: int = WORKERS, places: int = PLACES) -> None:
        """`threshold` is the lowest confidence, from 0 to 1, of an answer that is kept, or each field's own. `shadow`
        is the share of the kept answers that the fallback is asked for too, to count how often it says the same."""
        self.threshold, self._shadow = threshold, shadow
        self.station = Station("fallback", [remote] * workers, places)

    def is_sure(self, station: Station, parts: Sequence[Part]) -> bool:
        """Whether the answers of a station's model, whole, are kept."""
        found = []
        for part in parts:
            if (done := part.piece.done) is not None:
                found.append({ANSWER: done.confidence} if isinstance(done, Labelled)
                             else confidences(done, station.model.codec))
        kept = all(is_sure(one, self.threshold) for one in found)
        LOG.info("%s: answered by the %s, least confidence %.4f", station.name, "model" if kept else "fallback",
                 min((value for one in found for value in one.values()), default=0.0))
        return kept

    @staticmethod
    def asking(station: Station, asked: Mapping[str, Any]) -> Work:
        """Work for `self.station`: a completion, or the chunks of one; Refusal 502 where it comes to nothing."""
        wanted = request(station.model, asked)

        def work(remote: Remote, cancel: threading.Event) -> Iterator[dict[str, Any]]:
            try:
                yield from remote.answers(wanted, cancel)
            except RemoteError as error:
                LOG.warning("%s: %s", station.name, error.message)
                told = {} if error.wait is None else {"Retry-After": str(error.wait)}
                raise Refusal(f"the model is not sure of its answer, and the fallback {error.reason}; the server's log "
                              "says more", status=429 if error.busy else 502, code="fallback_failed",
                              headers=told) from error

        return work

    def compare(self, station: Station, asked: Mapping[str, Any], done: Generation, measures: Measures) -> None:
        """Of a share of the kept answers, see later whether the fallback says the same."""
        if random.random() < self._shadow:
            task = asyncio.create_task(self._compare(station, asked, done, measures))
            _SHADOWS.add(task)
            task.add_done_callback(_SHADOWS.discard)

    async def _compare(self, station: Station, asked: Mapping[str, Any], done: Generation, measures: Measures) -> None:
        whole = {name: value for name, value in asked.items() if name not in ("stream", "n")}
        try:
            found = [one async for one in self.station.submit(self.asking(station, whole))]
        except Refusal as refusal:  # its pool is full, or it failed, which is logged
            measures.add("shadow", model=station.name, same="full" if refusal.status == 429 else "failed")
            return
        own = done.text
        if isinstance(station.model, Generator):
            codec = station.model.codec
            own = called(station.model, done) if asked.get("tools") else apart(codec, done.ids, done.text)[1]
        text, other = own, said(found[0])
        same = same_answer(text, other)
        measures.add("shadow", model=station.name, same=str(same).lower())
        LOG.info("%s: the fallback says %s", station.name,
                 "the same" if same else f"{other[:200]!r}, not {text[:200]!r}")

    def close(self) -> None:
        """Ask nothing more; what is being asked is not waited for."""
        self.station.close(patience=0)
