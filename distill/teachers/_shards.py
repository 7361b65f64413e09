"""What a teacher says about a set of rows, in files of some thousand places each: each is whole or is made again."""

from __future__ import annotations

import hashlib
import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models import files
from ...models.errors import TrainingError
from ..data.token_sets import TokenSet

PLACES = 4096
"""Places of a file, about: what a killed process loses, some seconds or minutes of the teacher's time."""
Arrays = Mapping[str, NDArray[Any]]
log = logging.getLogger(__name__)


class Shards:
    """The files of one set, in a folder named by its ids and what of them is learned."""

    def __init__(self, folder: Path, tokens: TokenSet) -> None:
        digest = hashlib.sha256()
        for array in (tokens.ids, tokens.offsets, tokens.learned):
            digest.update(np.ascontiguousarray(array).tobytes())
        self._digest = digest.hexdigest()
        self.folder = folder / self._digest[:16]
        order = np.argsort(tokens.lengths, kind="stable")  # rows of like length are asked about together
        self._counts = np.add.reduceat(tokens.learned.astype(np.int64), tokens.offsets[:-1])
        ends = self._counts[order].cumsum()
        self.rows = np.split(order, np.flatnonzero(np.diff((ends - 1) // PLACES)) + 1)
        """Of each file."""
        self._starts = np.empty_like(ends)
        self._starts[order] = ends - self._counts[order]

    def __len__(self) -> int:
        return len(self.rows)

    def places(self, rows: list[int]) -> NDArray[np.int64]:
        """Where what is said of these rows stands, in all files one after the other."""
        return np.concatenate([np.arange(self._starts[row], self._starts[row] + self._counts[row]) for row in rows])

    def random(self, index: int) -> NDArray[np.float64]:
        """A random number for each place of a file, the same ones whenever it is made."""
        count = int(self._counts[self.rows[index]].sum())
        return np.random.default_rng([int(self._digest[:16], 16), index]).random(count)

    def read(self, index: int) -> dict[str, NDArray[Any]] | None:
        """What was written; None for a file that is not there, or is damaged, which is told."""
        path = self._path(index)
        if not path.is_file():
            return None
        content = path.read_bytes()
        if content[:32] != self._checksum(index, content[32:]):
            log.warning("%s: damaged, and made again", path)
            return None
        with np.load(io.BytesIO(content[32:]), allow_pickle=False) as table:
            found = {name: table[name] for name in table.files}
        return found | {"ids": _unpacked(found["ids"], found.pop("shape"), int(found["vocabulary"]))}

    def write(self, index: int, arrays: Arrays) -> None:
        """Keep what a teacher says: `ids`, the `vocabulary` that they are below, and what belongs to them.

        Raises TrainingError when the disk takes no more; what was written before stays.
        """
        buffer = io.BytesIO()
        ids = arrays["ids"]
        np.savez_compressed(buffer, allow_pickle=False, **{
            **arrays, "ids": _packed(ids, int(arrays["vocabulary"])), "shape": np.array(ids.shape)})
        content = buffer.getvalue()
        try:
            files.write_bytes(self._path(index), self._checksum(index, content) + content)
        except OSError as error:
            raise TrainingError(f"{self.folder}: what the teacher says could not be kept: {error}",
                                "make room and give the same command again: it asks on where it was stopped") from error

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.shard"

    def _checksum(self, index: int, content: bytes) -> bytes:
        """Of a file in its place: a copy of another one is as wrong as a flipped bit."""
        return hashlib.sha256(f"{self._digest} {index} {len(self)}\n".encode() + content).digest()


def _packed(ids: NDArray[Any], vocabulary: int) -> NDArray[np.uint8]:
    """As many bits of each id as the vocabulary needs."""
    bits = ids.reshape(-1, 1) >> np.arange(_bits(vocabulary)) & 1
    return np.packbits(bits.astype(np.uint8))


def _unpacked(packed: NDArray[Any], shape: NDArray[Any], vocabulary: int) -> NDArray[np.int32]:
    width, sizes = _bits(vocabulary), shape.tolist()
    bits = np.unpackbits(packed, count=width * math.prod(sizes)).reshape(-1, width).astype(np.int32)
    ids: NDArray[np.int32] = (bits << np.arange(width, dtype=np.int32)).sum(-1, dtype=np.int32)
    return ids.reshape(sizes)


def _bits(vocabulary: int) -> int:
    return max(1, (vocabulary - 1).bit_length())
