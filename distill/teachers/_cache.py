"""What a decoder said, kept on disk: no place of the same set of rows is asked about twice, and later students of the
tokenizer read it, too.

Of each place some tokens are kept that were drawn from the teacher's distribution, about 30 bytes instead of a number
for every token of the vocabulary, or its likeliest tokens with their log-probabilities.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models import files, progress
from ...models.errors import UsageError
from ...models.strict import limited
from ...runtime.text.codec import Codec
from ..data.batches import Batch, Schedule
from ..data.token_sets import TokenSet
from ..heads import chunks
from ..signals import DRAWN, LIKELIEST, LOGITS, AnySignal, Drawn, Likeliest, Signal
from ._base import Teacher, Wants, check_decodes
from ._shards import Arrays, Shards

if TYPE_CHECKING:
    from torch import Tensor

ABOUT, VERSION = "about.json", 1


@dataclass(frozen=True)
class Cache:
    """What the teacher says, kept on disk; `cache = {}` takes all defaults."""

    folder: str = "teacher-cache"
    """Where it lies."""
    keep: str = limited(DRAWN, choices=(DRAWN, LIKELIEST))
    """drawn: tokens drawn at each place, for forward_kl, which they estimate without bias. likeliest: its likeliest
    tokens and the mass of all others, for every loss between distributions."""
    tokens: int = limited(32, minimum=1, maximum=255)
    """How many are drawn, or kept, of each place."""


@dataclass(frozen=True)
class About:
    """Whose word is kept, and what of it."""

    teacher: str
    """Its key."""
    keep: str
    tokens: int
    parents: list[dict[str, Any]]
    licence: str
    precision: str = ""
    """What it computed in, where it computes in the run's."""
    version: int = VERSION

    @property
    def key(self) -> str:
        """What the signal depends on."""
        named = [self.version, self.teacher, self.keep, self.tokens, *filter(None, [self.precision])]
        return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def about(teacher: Teacher, key: str, cache: Cache) -> About:
    """What a cache says of a teacher with this key."""
    return About(key, cache.keep, cache.tokens, [dict(parent) for parent in teacher.parents], teacher.licence)


class CachedTeacher:
    """See Teacher. The teacher behind it is made ready only where something is not kept yet."""

    def __init__(self, folder: Path, about: About, teacher: Teacher | None) -> None:
        """`teacher` None: what is kept must be enough."""
        self.folder, self.about, self.teacher = folder, about, teacher
        self._known: dict[TokenSet, tuple[Shards, dict[str, NDArray[Any]]]] = {}

    @property
    def provides(self) -> frozenset[str]:
        """See Teacher."""
        return frozenset({self.about.keep})

    @property
    def parents(self) -> Sequence[Mapping[str, Any]]:
        """See Teacher."""
        return self.about.parents

    @property
    def licence(self) -> str:
        """See Teacher."""
        return self.about.licence

    def prepare(self, examples: Schedule, codec: Codec, wants: Wants, cache: Path) -> None:
        """See Teacher. Raises UsageError where there is nobody to ask about what is not kept, TrainingError when the
        disk takes no more."""
        check_decodes(wants.task, "a cache")
        of_run = self.teacher is not None and getattr(self.teacher, "follows_precision", False)
        about = replace(self.about, precision=wants.precision) if of_run else self.about
        folder = self._folder(about, codec)
        if self.teacher is not None and not (folder / ABOUT).is_file():
            files.write_json(folder / ABOUT, asdict(about))
        shards = Shards(folder, examples.tokens)
        found = {index: arrays for index in range(len(shards)) if (arrays := shards.read(index)) is not None}
        lacking = [index for index in range(len(shards)) if index not in found]
        if lacking and self.teacher is None:
            rows = sum(len(shards.rows[index]) for index in lacking)
            raise UsageError(f"{self.folder}: what the teacher says of {rows} of {len(examples.tokens)} rows, as this "
                             "student's tokenizer and template read them, is not kept here",
                             "name the teacher itself in [teacher], with this folder as its cache, and run edgestill "
                             "distill --cache-only")
        if lacking and self.teacher is not None:
            wants = replace(wants, parts=frozenset({LOGITS}), repeated=False)
            self.teacher.prepare(examples, codec, wants, cache)
            for index in lacking:
                progress.at("teacher", index, len(shards), "asked and kept")
                found[index] = self._ask(self.teacher, examples, codec, wants, shards, index)
                shards.write(index, found[index])
        known = _joined([found[index] for index in range(len(shards))])
        if "sizes" in known:
            known["starts"] = known["sizes"].cumsum(dtype=np.int64) - known["sizes"]
        self._known[examples.tokens] = shards, known

    def _folder(self, about: About, codec: Codec) -> Path:
        """Of what is said in this student's tokens."""
        tokens = sorted(codec.tokenizer.get_vocab(with_added_tokens=True).items())
        return self.folder / hashlib.sha256(json.dumps([about.key, tokens]).encode()).hexdigest()[:16]

    def _ask(self, teacher: Teacher, examples: Schedule, codec: Codec, wants: Wants, shards: Shards,
             index: int) -> dict[str, NDArray[Any]]:
        import torch

        random, found, done = torch.from_numpy(shards.random(index)), list[Arrays](), 0
        for batch in examples.split(shards.rows[index]):
            told = teacher.signal(batch, wants)
            assert isinstance(told, Signal)  # as was asked for
            for part in chunks(batch.count, codec.vocabulary_size):
                logits = told[part].logits
                found.append(self._kept(logits, random[done:done + len(logits)]))
                done += len(logits)
        return _joined(found)

    def _kept(self, logits: Tensor, random: Tensor) -> Arrays:
        vocabulary = np.array(logits.shape[-1])
        if self.about.keep == LIKELIEST:
            best = Likeliest.of(logits, self.about.tokens)
            return {"vocabulary": vocabulary, "ids": best.ids.cpu().numpy(),
                    "log_probabilities": best.log_probabilities.cpu().numpy().astype(np.float16)}
        drawn = Drawn.of(logits, self.about.tokens, random)
        there, counts = drawn.weights > 0, (drawn.weights * self.about.tokens).round()
        return {"vocabulary": vocabulary, "ids": drawn.ids[there].cpu().numpy(), "own": drawn.own.cpu().numpy(),
                "counts": counts[there].cpu().numpy().astype(np.uint8),
                "sizes": there.sum(-1).cpu().numpy().astype(np.uint8)}

    def signal(self, batch: Batch, wants: Wants) -> AnySignal:
        """See Teacher."""
        import torch

        shards, known = self._known[batch.of]
        places, device, vocabulary = shards.places(batch.rows), batch.ids.device, int(known["vocabulary"])
        if self.about.keep == LIKELIEST:
            ids, kept = (torch.from_numpy(known[name][places]).to(device) for name in ("ids", "log_probabilities"))
            return Likeliest(vocabulary, ids.long(), kept.float().log_softmax(-1))  # rounded, they are one again
        sizes = known["sizes"][places].astype(np.int64)
        column = np.arange(sizes.max(initial=0))
        there = column < sizes[:, None]
        place = np.where(there, known["starts"][places][:, None] + column, 0)
        ids, counts = (np.where(there, known[name][place], 0) for name in ("ids", "counts"))
        drawn, often, own = (torch.from_numpy(array).to(device) for array in (ids, counts, known["own"][places]))
        return Drawn(vocabulary, drawn.long(), often / self.about.tokens, own)


def _joined(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """Parts one after the other."""
    return {name: first if name == "vocabulary" else np.concatenate([part[name] for part in parts])
            for name, first in parts[0].items()}
