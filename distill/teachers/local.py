"""A teacher on this machine: any model of the catalogue, the hub or a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models import catalogue, hub
from ...models.family import of_config
from ...models.strict import limited
from ...models.task import Task
from ...quantize.unpack.folder import is_gguf
from ...runtime.files import gguf_header
from ...runtime.files.model_files import read_table, stored_parameters
from ...runtime.text.codec import Codec
from ..data.batches import Batch, Schedule
from ..signals import ATTENTION, HIDDEN, LOGITS, Signal
from ..sources import Source, resolve, stands_for_model, weights_digest
from ._base import Size, Wants
from ._cache import Cache
from ._classifier import Classifier
from ._decoder import Decoder
from ._prompt import Prompt


@dataclass(frozen=True)
class Config(Prompt):
    """The [teacher] table."""

    model: str = limited()
    """A folder, a catalogue name or a hub name."""
    revision: str = ""
    """The hub's commit, branch or tag; empty: main, as it was downloaded last."""
    tune: bool = False
    """Fine-tune the teacher on the labels first, as [tune] says."""
    cache: Cache | None = None
    """Keep what it says on disk, and ask nothing twice about the same set of rows."""


def source(config: Config, base: Path) -> Source:
    """The teacher's folder; errors as of sources.resolve."""
    return resolve(config.model, config.revision, base, "teacher.model")


def stands_for(config: Config, fetch: bool) -> Any:
    """What stands for the model; see sources.stands_for."""
    return stands_for_model(config.model, config.revision, "teacher.model", fetch)


def size(config: Config, base: Path) -> Size | None:
    """Its weights, and the hidden states that it keeps, in float32; see _base."""
    path = base / config.model
    if config.model in catalogue.names():
        count = catalogue.entry(config.model).parameters
    else:
        count = gguf_header.read(path).parameters if is_gguf(path) else stored_parameters(path)
    return Size(count, 4 * count, place_bytes=0 if config.cache else 4 * _hidden(config, path)) if count else None


def _hidden(config: Config, path: Path) -> int:
    """Numbers in a hidden state; 0 for a model that is not here yet."""
    if is_gguf(path):
        return gguf_header.read(path).dimension("embedding_length")
    known = config.model in catalogue.names()
    folder = hub.snapshot(catalogue.entry(config.model).hub_id, config.revision) if known else path
    table = read_table(folder / "config.json") if folder else {}
    return int(of_config(table, training=True).of(table, "hidden")) if table else 0


def provides(config: Config, base: Path) -> frozenset[str]:
    """See Teacher."""
    return LocalTeacher.provides


def key(config: Config, base: Path) -> str:
    """The hash of its files."""
    return weights_digest(source(config, base).folder)


def open(config: Config, base: Path, device: str) -> LocalTeacher:
    """The teacher; errors as of sources.resolve."""
    return LocalTeacher(source(config, base), device)


class LocalTeacher:
    """A model of transformers, in memory from the first `prepare` on; see Teacher."""

    provides = frozenset({LOGITS, HIDDEN, ATTENTION})
    follows_precision = True

    def __init__(self, source: Source, device: str) -> None:
        self.source, self.device = source, device
        self._model: Decoder | Classifier | None = None

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config.json."""
        return read_table(self.source.folder / "config.json")

    @property
    def context(self) -> int:
        """See Reader."""
        return of_config(self.config, training=True).context(self.config)

    def codec(self, task: Task) -> Codec:
        """See Reader."""
        return Codec.from_folder(self.source.folder, task)

    @property
    def parents(self) -> Sequence[Mapping[str, Any]]:
        """See Teacher."""
        return [*self.source.lineage, self.source.parent("teacher")]

    @property
    def licence(self) -> str:
        """See Teacher."""
        return self.source.licence

    def prepare(self, examples: Schedule, codec: Codec, wants: Wants, cache: Path) -> None:
        """See Teacher; what it keeps, it keeps in memory."""
        if self._model is None:
            folder = self.source.folder
            self._model = (Classifier(folder, wants, self.device) if wants.task.kind == "classify"
                           else Decoder(folder, codec, wants, self.device))
        self._model.prepare(examples, wants)

    def signal(self, batch: Batch, wants: Wants) -> Signal:
        """See Teacher."""
        assert self._model is not None  # nothing was prepared
        return self._model.signal(batch, wants)
