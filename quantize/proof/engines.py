"""The engines that a packed decoder is asked in: its own, and one that keeps keys and values as it likes itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import kinds
from ...models.artifact import Artifact
from ...models.kv_cache import AUTO
from .divergence import Divergence, first, over
from .limits import KV_KL_NATS

TOKENS = 2048
"""Tokens that keys and values in fewer bits are compared on."""


class Engines:
    """Opened when they are first asked; close them together."""

    def __init__(self, artifact: Artifact, threads: int, room: Callable[[], int]) -> None:
        """`room` says how many tokens of context they need."""
        self._artifact, self._threads, self._room = artifact, threads, room
        self._own: Any = None
        self._plain: Any = None
        self._lost: Divergence | None = None

    @property
    def own(self) -> Any:
        """As the runtime opens the artifact."""
        if self._own is None:
            self._own = self._opened(self._artifact)
        return self._own

    @property
    def plain(self) -> Any:
        """With keys and values in the engine's own type: where weights are to be judged, and not the cache."""
        manifest = self._artifact.manifest
        if manifest.kv == AUTO:
            return self.own
        if self._plain is None:
            settings = {key: value for key, value in manifest.settings.items() if key != "kv"}
            self._plain = self._opened(replace(self._artifact, manifest=replace(manifest, settings=settings)))
        return self._plain

    def kv_loss(self, sequences: Sequence[NDArray[np.int32]]) -> Divergence | None:
        """What keys and values in fewer bits cost: `own` beside `plain` over the first `sequences`, which are the same
        every time; None where both are one."""
        if self._artifact.manifest.kv != AUTO and self._lost is None:
            self._lost = over(first(sequences, TOKENS), self.plain.logits, self.own.logits)
        return self._lost

    def blamed(self, sequences: Sequence[NDArray[np.int32]]) -> str:
        """The cause where the file is not what the float model is: the cache if it costs more than it may, else the
        weights."""
        lost = self.kv_loss(sequences)
        return "weights" if lost is None or lost.mean <= KV_KL_NATS[self._artifact.manifest.kv] else "cache"

    def close(self) -> None:
        """Free both."""
        for engine in (self._own, self._plain):
            if engine is not None:
                engine.close()
        self._own = self._plain = None

    def _opened(self, artifact: Artifact) -> Any:
        module = kinds.load("runtime.engines", artifact.manifest.scheme.partition(":")[0])
        return module.open(artifact, threads=self._threads, context=self._room())
