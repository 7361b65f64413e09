"""What every kind of teacher gives: what it is, and its signal about the rows that a student learns from.

A kind is a file with a `Config`, the [teacher] table, and three functions:

- `key(config, base)`: a hash of all that its signal depends on, without loading it;
- `provides(config, base)`: that of its Teacher, without loading it;
- `open(config, base, device)`: a Teacher. Weights and connections wait for the first `prepare`.

What plans ask of it, loading nothing, it may say, too:

- `TASKS`, the kinds of tasks that it teaches; without it all of them;
- `size(config, base)`: its Size, None where it is not known before a download;
- `stands_for(config, fetch)`: JSON values that stand for it as `key` does, but without `fetch` nothing is downloaded;
- `source(config, base)`, where the teacher is a Hugging Face folder: a student can be cut from that, its answers are
  measured, and `tune = true` fine-tunes it;
- `IN_ROWS = True`, where what it says stands in the rows, and no signal is asked for;
- `packed(config, base)`, where it is a file that the runtime runs: its answers are measured there.

`base` is the folder that a run file's paths are relative to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ...models.errors import UsageError
from ...models.task import Task
from ...runtime.text.codec import Codec
from ..data.batches import Batch, Schedule
from ..signals import AnySignal, Inner

KEPT_BYTES = 2**30
"""Of hidden states of a set that are kept in memory between epochs, at most."""


@dataclass(frozen=True)
class Wants:
    """What a run asks of its teacher about a set of rows."""

    parts: frozenset[str]
    """Of a signal, such as logits."""
    task: Task
    """With its labels, in the student's order."""
    precision: str
    """What a model computes in: fp32 or bf16."""
    repeated: bool
    """Whether each row is asked about more than once."""
    inside: frozenset[Inner] = frozenset()
    """What losses compare of its inside."""
    own_ids: bool = False
    """Whether batches hold the teacher's own ids, of prompts that the student does not read."""


@dataclass(frozen=True)
class Size:
    """What a teacher costs those who ask it."""

    parameters: int
    """That compute with each token."""
    bytes: int
    """Of memory."""
    asked_anew: bool = False
    """In every epoch."""
    place_bytes: int = 0
    """Of memory that keep what it says of a place between epochs; 0 where that is not known, or not in memory."""

    def passes(self, places: int, epochs: float) -> float:
        """How often it is asked about each row of a set where so many places are learned."""
        return epochs if self.asked_anew or places * self.place_bytes > KEPT_BYTES else 1.0


class Teacher(Protocol):
    """A teacher of any kind. One that provides what is inside of a model has `config`, too: its config.json; one that
    computes in `Wants.precision` says `follows_precision = True`."""

    @property
    def provides(self) -> frozenset[str]:
        """The parts that its signal can have."""

    @property
    def parents(self) -> Sequence[Mapping[str, Any]]:
        """What a manifest names it by, after what it was made from itself."""

    @property
    def licence(self) -> str:
        """The licence of what it teaches."""

    def prepare(self, examples: Schedule, codec: Codec, wants: Wants, cache: Path) -> None:
        """Get ready for every batch of `examples`, in an order that does not depend on where training stands.

        `codec` is the student's. What must not be asked twice is kept in the folder `cache`: a killed call continues.
        Raises UsageError for a teacher that does not fit the student or its task.
        """

    def signal(self, batch: Batch, wants: Wants) -> AnySignal:
        """What it says at each of the batch's labels, in the student's tokens or labels; of a set that it prepared."""


class Reader(Teacher, Protocol):
    """A teacher that can be told more than its student (see _prompt): it takes batches of its own ids, too."""

    @property
    def context(self) -> int:
        """The most tokens that it reads at once; 0 where that is not known."""

    def codec(self, task: Task) -> Codec:
        """Its own tokenizer and template, for a task."""


def check_decodes(task: Task, kind: str) -> None:
    """UsageError for a task that a kind of teacher, which reads text alone, knows nothing of."""
    if task.kind != "generate":
        raise UsageError(f"teacher: {kind} is for decoders, and task.kind is {task.kind!r}",
                         'teachers of classifiers are of the kind "local", and are asked about each row once')
