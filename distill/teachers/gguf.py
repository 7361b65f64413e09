"""A GGUF file as teacher: llama.cpp computes its logits, so it teaches where there is no room for its float weights.

It takes what the file takes, and the keys and values of one row. Every epoch asks it anew, unless its word is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models.artifact import Artifact
from ...models.errors import UsageError
from ...models.strict import limited
from ...models.task import Task
from ...quantize.unpack.folder import digest
from ...runtime.engines._base import DEFAULT_CONTEXT, EXTEND
from ...runtime.files import gguf_header
from ...runtime.generation.context_shift import common
from ...runtime.loading.foreign import codec_of, is_foreign, open_model, place
from ...runtime.loading.load import load
from ...runtime.text.codec import Codec
from .. import alignment
from ..data.batches import Batch, Schedule
from ..data.token_sets import TokenSet
from ..signals import LOGITS, Signal
from ..sources import Source, resolve
from ._base import Size, Wants, check_decodes
from ._cache import Cache
from ._prompt import Prompt

if TYPE_CHECKING:
    from torch import Tensor

TASKS = ("generate",)


@dataclass(frozen=True)
class Config(Prompt):
    """The [teacher] table."""

    model: str = limited()
    """A .gguf file, or the folder of an exported one."""
    cache: Cache | None = None
    """Keep what it says on disk, and ask nothing twice about the same set of rows."""


def source(config: Config, base: Path) -> Source:
    """The float model that the file stands for; errors as of sources.resolve."""
    return resolve(config.model, base=base, key="teacher.model")


def packed(config: Config, base: Path) -> Path:
    """What the runtime runs."""
    return base / config.model


def size(config: Config, base: Path) -> Size:
    """See Size; errors as of `open`."""
    path = _artifact(config, base).model_path
    return Size(gguf_header.read(path).parameters, path.stat().st_size, config.cache is None)


def provides(config: Config, base: Path) -> frozenset[str]:
    """See Teacher."""
    return GgufTeacher.provides


def key(config: Config, base: Path) -> str:
    """The hash of its files; errors as of `open`."""
    artifact = _artifact(config, base)
    found = hashlib.sha256()
    for name in sorted(artifact.manifest.files):
        found.update(f"{name} {digest(artifact.folder / name)}\n".encode())
    return found.hexdigest()


def open(config: Config, base: Path, device: str) -> GgufTeacher:
    """The teacher; ArtifactError for what is damaged or no model, UsageError for what is no decoder in a GGUF file."""
    return GgufTeacher(_artifact(config, base))


def _artifact(config: Config, base: Path) -> Artifact:
    found = open_model(base / config.model)
    task, scheme = found.manifest.task.kind, found.manifest.scheme
    if task != "generate" or not scheme.startswith("gguf:"):
        raise UsageError(f"teacher.model: {config.model} holds a model for {task} as {scheme}, which is no decoder in "
                         "a GGUF file", 'name a .gguf file of a decoder; Hugging Face folders are of the kind "local"')
    return found


class GgufTeacher:
    """A decoder in llama.cpp, opened at the first `prepare`: a file made elsewhere first in a limited process."""

    provides = frozenset({LOGITS})

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._model: Any = None
        self._reading: tuple[TokenSet, int] | None = None
        """The row that the engine was asked about last."""

    @property
    def context(self) -> int:
        """See Reader."""
        return self._artifact.manifest.dimensions.get("context", 0)

    def codec(self, task: Task) -> Codec:
        """See Reader."""
        return codec_of(self._artifact, task)

    @property
    def parents(self) -> Sequence[Mapping[str, Any]]:
        """See Teacher."""
        path = self._artifact.model_path
        name = path.name if is_foreign(self._artifact) else self._artifact.folder.name
        return [*self._artifact.manifest.parents, {"role": "teacher", "name": name, "sha256": digest(path)}]

    @property
    def licence(self) -> str:
        """See Teacher."""
        if is_foreign(self._artifact):
            return str(gguf_header.read(self._artifact.model_path).values.get("general.license", "unknown"))
        return self._artifact.manifest.licences.get("model", "unknown")

    def prepare(self, examples: Schedule, codec: Codec, wants: Wants, cache: Path) -> None:
        """See Teacher. Nothing is asked yet: what it says of a row depends on no other row."""
        check_decodes(wants.task, "gguf")
        longest, limit = int(examples.tokens.lengths.max()), self.context
        if limit and longest > limit:
            raise UsageError(f"teacher.model: {self._artifact.model_path.name} reads {limit} tokens, and a row has "
                             f"{longest}", f"set data.max_tokens = {limit}, or take another teacher")
        if self._model is None or longest > self._model.engine.context_length:
            self._open(longest, codec)

    def _open(self, longest: int, codec: Codec) -> None:
        import torch

        again, path = self._model is not None, place(self._artifact)
        if again:
            self._model.close()
        self._model = load(path, torch.get_num_threads(), longest if longest > DEFAULT_CONTEXT else 0, not again)
        self._ids = np.array(alignment.of_tokens(codec, self._model.codec))
        self._reading = None

    def signal(self, batch: Batch, wants: Wants) -> Signal:
        """See Teacher; computed where its logits are read, some places at a time and in their order."""
        return Signal(batch.positions, partial(self._logits, batch, wants.own_ids))

    def _logits(self, batch: Batch, own_ids: bool, places: Tensor) -> Tensor:
        """Logits [c, v] in float32 at flat places of the batch."""
        import torch

        rows, columns = np.divmod(places.cpu().numpy(), batch.ids.shape[1])
        found = np.empty((len(places), len(self._ids)), np.float32)
        with self._model.engine.use.alone():
            for row in np.unique(rows):
                part = slice(*np.searchsorted(rows, (row, row + 1)))
                self._read(batch.of, batch.rows[row], own_ids, columns[part], found[part])
        return torch.from_numpy(found).to(places.device)

    def _read(self, tokens: TokenSet, row: int, own_ids: bool, columns: NDArray[np.int64],
              found: NDArray[np.float32]) -> None:
        """Fill `found` [c, v] with the logits at ascending columns of a row.

        Bits depend on the row alone: passes over what is not learned end where it ends, the others are so small that
        llama.cpp computes the same for any number of tokens, and what rows have in common is kept to whole blocks.
        """
        engine, ids = self._model.engine, (tokens.row(row) if own_ids else self._ids[tokens.row(row)]).tolist()
        if self._reading != (tokens, row) or engine.position > columns[0]:
            engine.rewind(common(engine.held, ids[:columns[0]]))
        self._reading = (tokens, row)
        done = 0
        for run in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
            if engine.position < run[0]:
                engine.prefill(ids[engine.position:run[0]])
            for part in np.split(run, range(EXTEND, len(run), EXTEND)):
                # Other kernels compute a token by itself, so one is read with its label, which is forgotten again.
                logits = engine.extend(ids[part[0]:part[0] + max(2, len(part))])
                found[done:done + len(part)] = logits[:len(part), self._ids]
                engine.truncate(int(part[-1]) + 1)
                done += len(part)
