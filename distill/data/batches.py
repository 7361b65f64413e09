"""Rows as token ids, and the batches that training sees: same seed, same batches, from any step on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models import files
from ...models.artifact import versions
from ...models.errors import DataError
from ...runtime.data import learned_tokens
from ...runtime.data.learned_tokens import Learned
from ...runtime.data.reader import Row, rows_digest
from ...runtime.text.codec import Codec
from .targets import wanted

if TYPE_CHECKING:
    from torch import Tensor

CACHE_VERSION = 2
MEGA_BATCH = 50
"""Batches that are sorted by length together: enough that rows of a batch are of like length, few enough that
their order stays random."""


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Rows as ids: row i is ids[offsets[i]:offsets[i + 1]]."""

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    learned: NDArray[np.bool_]
    """Which of the ids are learned; a row's first has nothing before it and is not."""
    targets: NDArray[Any]
    """Of a classifier's row, the id of its label (int32 [rows]), or what each output is to be (float32 [rows, outputs])
    where rows have several labels or a score."""
    sources: NDArray[np.int32]
    """Each row's place in the rows that were tokenized; -1 for a block of plain texts. A chat whose template writes
    earlier turns otherwise than the last one is several rows here."""
    left_out: int
    """Rows that were longer than max_tokens."""
    unlearned: int = 0
    """Rows in which nothing is to be learned."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.offsets)

    def row(self, index: int) -> NDArray[np.int32]:
        """The ids of one row."""
        return self.ids[self.offsets[index]:self.offsets[index + 1]]


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass, padded on the right to the longest of them."""

    of: TokenSet
    """The set that they belong to."""
    rows: list[int]
    """Their places in it."""
    ids: Tensor
    """[rows, length]"""
    mask: Tensor | None
    """[rows, length] with 1 at real tokens; None where there is no padding."""
    positions: Tensor
    """Text: flat places in [rows * length] whose next token belongs to a completion."""
    labels: Tensor
    """The token that follows each of `positions`, or of each row its label or what every output is to be."""
    counts: list[int]
    """Entries of `labels` that belong to each row."""
    tokens: int
    """Real tokens, without padding."""

    @property
    def count(self) -> int:
        """What a loss is averaged over: completion tokens, or rows."""
        return len(self.labels)


def everything(tokens: TokenSet) -> TokenSet:
    """The same rows with every token learned that has one before it."""
    learned = np.ones_like(tokens.learned)
    learned[tokens.offsets[:-1]] = False
    return replace(tokens, learned=learned)


def tokenize(rows: Sequence[Row], codec: Codec, max_tokens: int, labels: Sequence[str] = (),
             cache: Path | None = None, learn: str = "all") -> TokenSet:
    """The ids of `rows`, from the folder `cache` where they were computed before.

    Plain texts are joined and cut into blocks of `max_tokens`. Chats and texts to classify that are longer than
    `max_tokens` are left out. Of a chat every turn of the assistant's is learned, or the "last" one. Raises DataError
    for a label outside `labels`, for a row of which a part reaches no id, or when no row is left.
    """
    path = None if cache is None else cache / f"{_key(rows, codec, max_tokens, labels, learn)}.npz"
    found = _read(path) if path is not None and path.is_file() else None
    if found is None:
        found = _tokenize(rows, codec, max_tokens, list(labels), learn)
        if path is not None:
            _write(path, found)
    if not len(found):
        nothing = f", {found.unlearned} have nothing to learn" if found.unlearned else ""
        raise DataError(f"no row is left to train on: {found.left_out} of {len(rows)} are longer than max_tokens = "
                        f"{max_tokens}{nothing}", "raise [data] max_tokens, or shorten the rows")
    return found


def _tokenize(rows: Sequence[Row], codec: Codec, max_tokens: int, labels: list[str], learn: str) -> TokenSet:
    sequences: list[Learned] = []
    targets: list[int] = []
    sources: list[int] = []
    left_out = unlearned = 0
    stream: list[int] = []
    known = {label: index for index, label in enumerate(labels)}
    for place, row in enumerate(rows):
        if row.kind == "text":
            stream += learned_tokens.training_ids(codec, row)[0]
            continue
        target = 0
        if row.kind in ("labels", "score"):
            found = [Learned(codec.encode(row.text, add_special_tokens=True), [])]
        elif row.kind == "label":
            if row.label not in known:
                raise DataError(f"{row.where}: label {row.label!r} is not one of the {len(labels)} known labels",
                                "correct the row, or add the label to [task] labels")
            found, target = [Learned(codec.encode(row.text, add_special_tokens=True), [])], known[row.label]
        else:
            found = learned_tokens.sequences(codec, row, learn)
        fitting = [one for one in found if len(one.ids) <= max_tokens]
        left_out += len(fitting) < len(found)
        unlearned += not found
        sequences += fitting
        targets += [target] * len(fitting)
        sources += [place] * len(fitting)
    # Each block begins with the last token of the one before, so that every token but the first is predicted once.
    for start in range(0, len(stream) - 1, max_tokens - 1):
        ids = stream[start:start + max_tokens]
        sequences.append(Learned(ids, [(1, len(ids))]))
        targets.append(0)
        sources.append(-1)
    made = token_set(sequences, targets, sources, left_out, unlearned)
    several = rows[0].kind in ("labels", "score")
    return replace(made, targets=wanted([rows[place] for place in sources], labels)) if several else made


def token_set(sequences: Sequence[Learned], targets: Sequence[int], sources: Sequence[int], left_out: int = 0,
              unlearned: int = 0) -> TokenSet:
    """Sequences as one set; see TokenSet."""
    flat = np.fromiter((token for one in sequences for token in one.ids), dtype=np.int32)
    offsets = np.cumsum([0, *(len(one.ids) for one in sequences)], dtype=np.int64)
    learned = np.zeros(len(flat), dtype=np.bool_)
    for offset, one in zip(offsets, sequences, strict=False):
        for start, end in one.spans:
            learned[offset + max(start, 1):offset + end] = True
    return TokenSet(flat, offsets, learned, np.array(targets, dtype=np.int32), np.array(sources, dtype=np.int32),
                    left_out, unlearned)


def _key(rows: Sequence[Row], codec: Codec, max_tokens: int, labels: Sequence[str], learn: str) -> str:
    digest = hashlib.sha256(rows_digest(rows).encode())
    for part in (codec.tokenizer.to_str(), codec.templates, codec.system, sorted(codec.options.items()),
                 sorted(codec.stop_ids), max_tokens, list(labels), learn, CACHE_VERSION,
                 versions(("edgestill", "tokenizers", "jinja2"))):
        digest.update(repr(part).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _write(path: Path, tokens: TokenSet) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {item.name: np.asarray(getattr(tokens, item.name)) for item in fields(tokens)}
    np.savez(buffer, **arrays)
    files.write_bytes(path, buffer.getvalue())


def _read(path: Path) -> TokenSet | None:
    """The cached ids, or None for a file that is damaged: it is only a cache."""
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as table:
            found = {item.name: table[item.name] for item in fields(TokenSet)}
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError):
        return None
    return TokenSet(**found | {name: int(found[name]) for name in ("left_out", "unlearned")})


class Schedule:
    """Which rows each optimizer step sees. Any step can be asked for without the ones before it."""

    def __init__(self, tokens: TokenSet, batch_size: int, micro_batch_tokens: int, seed: int, classify: bool,
                 device: str = "cpu", pad_id: int = 0, rows: Sequence[Row] = ()) -> None:
        """`rows` are what the tokens were made from: a teacher may have to read them itself."""
        self.rows = rows
        self.tokens, self.batch_size, self.micro_batch_tokens = tokens, batch_size, micro_batch_tokens
        self.seed, self.classify, self.device, self.pad_id = seed, classify, device, pad_id
        self.steps_per_epoch = -(-len(tokens) // batch_size)
        self._epoch: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def step(self, step: int) -> list[Batch]:
        """The forward passes of one optimizer step; rows of like length stand together."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return self._split(self._epoch[1][place])

    def all(self) -> Iterator[Batch]:
        """Every row once, shortest first: for validation and for what a teacher says."""
        yield from self._split(np.arange(len(self.tokens)))

    def _order(self, epoch: int) -> list[NDArray[np.int64]]:
        random = np.random.default_rng([self.seed, epoch])
        order = random.permutation(len(self.tokens))
        lengths = self.tokens.lengths
        batches = []
        for start in range(0, len(order), MEGA_BATCH * self.batch_size):
            part = order[start:start + MEGA_BATCH * self.batch_size]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [part[i:i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        return [batches[index] for index in random.permutation(len(batches))]

    def _split(self, rows: NDArray[np.int64]) -> list[Batch]:
        """Cut rows into batches of at most micro_batch_tokens padded tokens (one row at least)."""
        lengths = self.tokens.lengths
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches, start = [], 0
        for end in range(1, len(rows) + 1):
            if end == len(rows) or (end + 1 - start) * lengths[rows[end]] > self.micro_batch_tokens:
                batches.append(self._batch(rows[start:end]))
                start = end
        return batches

    def _batch(self, rows: NDArray[np.int64]) -> Batch:
        import torch

        lengths = self.tokens.lengths[rows]
        width = int(lengths.max())
        ids = np.full((len(rows), width), self.pad_id, dtype=np.int64)
        learned = np.zeros((len(rows), width), dtype=np.bool_)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = self.tokens.row(int(row))
            part = slice(self.tokens.offsets[row], self.tokens.offsets[row + 1])
            learned[place, : lengths[place]] = self.tokens.learned[part]
        column = np.arange(width)
        real = column < lengths[:, None]
        if self.classify:
            labels = self.tokens.targets[rows]
            labels = labels if labels.ndim > 1 else labels.astype(np.int64)
            positions, counts = np.zeros(0, dtype=np.int64), [1] * len(rows)
        else:
            # Position t predicts token t + 1, so what is learned from s on is predicted from s - 1 on.
            positions = np.flatnonzero(learned) - 1
            labels, counts = ids[learned], [int(n) for n in learned.sum(axis=1)]
        mask = None if bool(real.all()) else torch.from_numpy(real.astype(np.int64)).to(self.device)
        return Batch(self.tokens, [int(row) for row in rows], torch.from_numpy(ids).to(self.device), mask,
                     torch.from_numpy(positions).to(self.device), torch.from_numpy(labels).to(self.device), counts,
                     int(lengths.sum()))
