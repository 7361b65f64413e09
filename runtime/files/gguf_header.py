"""The header of a GGUF file, read strictly and without llama.cpp, which a crafted or damaged one can crash.

Source: the GGUF specification, versions 2 and 3. Every length and offset is checked against the file's size before it
is followed, and counts are capped, so a hostile header costs neither time nor memory. GGUF has no checksums: what
passes here may still hold wrong numbers.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...models.errors import ArtifactError

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_KEYS, MAX_TENSORS, MAX_NAME, MAX_DIMENSIONS = 4096, 16384, 63, 4
MAX_STRINGS = 2**21
"""Strings of all lists together: the largest vocabularies in use have 262,144 tokens and twice as many merges."""
MAX_TEXTS = 2**24
"""Bytes of all texts together that are no list's."""
MAX_TEXT = 2**20
"""Bytes of a key or of a text that is no list's: chat templates have some thousand."""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Number of a value's type → its struct letter."""
STRING, LIST = 8, 9
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 26: ("I32", 1, 4), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}
"""Number of a tensor's type → its name, values in a block, bytes of a block."""
WHOLE = ("split.count", *(f"tokenizer.ggml.{name}_token_id" for name in ("bos", "eos", "padding", "unknown")))
"""Keys whose values are whole numbers where they are there."""
LISTS = {"tokens": STRING, "merges": STRING, "scores": 6, "token_type": 5}
"""Lists below tokenizer.ggml and the type of their items; all but merges have one item a token."""


@dataclass(frozen=True)
class Tensor:
    """One tensor; its bytes were found to lie inside the file."""

    name: str
    shape: tuple[int, ...]
    """As stored: the row length first."""
    type: str
    offset: int
    """In bytes from the start of the file."""
    bytes: int


class Items(NamedTuple):
    """Where a list stands; its items were found to lie inside the file."""

    kind: int
    """Number of the items' type."""
    length: int
    offset: int
    """Of the first item, in bytes from the start of the file."""


@dataclass(frozen=True)
class Header:
    """Everything in front of the weights, but the items of lists."""

    values: dict[str, Any]
    """Numbers, switches and texts by key."""
    lists: dict[str, Items]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model's kind."""
        return str(self.values["general.architecture"])

    @property
    def tokens(self) -> int:
        """Size of the vocabulary."""
        return self.lists["tokenizer.ggml.tokens"][1]

    @property
    def parameters(self) -> int:
        """Weights of all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    def dimension(self, key: str) -> int:
        """A number of the architecture such as block_count; 0 where the file has none."""
        value = self.values.get(f"{self.architecture}.{key}", 0)
        return value if isinstance(value, int) else 0


def read(path: Path) -> Header:
    """Read and check the header of `path`; ArtifactError naming what is wrong."""
    size = path.stat().st_size
    if size < 24:
        raise _damaged(path, f"{size} bytes, a GGUF file has at least 24")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(path, data, size).header()


def items(path: Path, header: Header, key: str) -> list[Any]:
    """The items of a list of `path`, whose header was read before; empty where it has none of that name.

    Raises ArtifactError for a text that is no UTF-8 or longer than MAX_TEXT.
    """
    if key not in header.lists:
        return []
    kind, count, offset = header.lists[key]
    size = path.stat().st_size
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if kind != STRING:
            return list(struct.unpack_from(f"<{count}{SCALARS[kind]}", data, offset))
        reader = _Reader(path, data, size)
        reader.at = offset
        return [reader.text() for _ in range(count)]


class _Reader:
    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size = path, data, size
        self.at = 0
        self.strings = self.texts = 0

    def header(self) -> Header:
        magic = self.take(4)
        version, tensor_count, key_count = self.number("I"), self.number("Q"), self.number("Q")
        if magic != MAGIC:
            raise _damaged(self.path, f"begins with {magic!r}, a GGUF file with {MAGIC!r}")
        if version not in VERSIONS:
            other = ", of a big-endian machine" if version % 2**24 == 0 else ""
            raise _damaged(self.path, f"GGUF version {version}{other}, only {VERSIONS} (little-endian) are read")
        self.within("tensors", tensor_count, MAX_TENSORS)
        self.within("keys", key_count, MAX_KEYS)
        values: dict[str, Any] = {}
        lists: dict[str, Items] = {}
        for _ in range(key_count):
            key, kind = self.text(), self.number("I")
            if key in values or key in lists:
                raise _damaged(self.path, f"the key {key[:60]!r} stands twice")
            if kind == LIST:
                lists[key] = self.items(key)
            elif kind == STRING:
                values[key] = self.text()
            else:
                values[key] = self.number(self.letter(kind, key))
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 8 <= alignment <= 4096 or alignment & (alignment - 1):
            raise _damaged(self.path, f"general.alignment is {alignment!r}, and must be a power of two")
        infos = [self.tensor() for _ in range(tensor_count)]
        start = -(-self.at // alignment) * alignment
        header = Header(values, lists, self.placed(infos, start, alignment))
        self.check(header)
        return header

    def take(self, count: int) -> bytes:
        self.skip(count)
        return self.data[self.at - count : self.at]

    def skip(self, count: int) -> None:
        if count > self.size - self.at:
            raise _damaged(self.path, f"{count:,} bytes are to follow at {self.at:,}, the file has {self.size:,}")
        self.at += count

    def number(self, letter: str) -> Any:
        width = struct.calcsize(f"<{letter}")
        self.skip(width)
        return struct.unpack_from(f"<{letter}", self.data, self.at - width)[0]

    def letter(self, kind: int, key: str) -> str:
        if kind not in SCALARS:
            raise _damaged(self.path, f"{key[:60]!r} is of the unknown type {kind}")
        return SCALARS[kind]

    def text(self) -> str:
        length = self.within("bytes of a text", self.number("Q"), MAX_TEXT)
        self.texts = self.within("bytes of texts", self.texts + length, MAX_TEXTS)
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _damaged(self.path, f"a text at byte {self.at - length:,} is no UTF-8") from error

    def items(self, key: str) -> Items:
        """Where a list's items stand, which are stepped over."""
        kind, count = self.number("I"), self.number("Q")
        found = Items(kind, count, self.at)
        if kind != STRING:
            self.skip(count * struct.calcsize(f"<{self.letter(kind, key)}"))
            return found
        self.strings = self.within("texts in lists", self.strings + count, MAX_STRINGS)
        data, at, last = self.data, self.at, self.size - 8
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if at > last:
                break
            at += 8 + unpack(data, at)[0]
        else:
            last = self.size
        if at > last:
            raise _damaged(self.path, f"the list {key[:60]!r} of {count:,} texts goes beyond the end")
        self.at = at
        return found

    def tensor(self) -> Tensor:
        name = self.text()
        self.within(f"bytes of the tensor name {name[:20]!r}", len(name.encode()), MAX_NAME)
        shape = tuple(self.number("Q") for _ in range(self.within("dimensions", self.number("I"), MAX_DIMENSIONS)))
        kind, offset = self.number("I"), self.number("Q")
        if kind not in TYPES:
            raise _damaged(self.path, f"the tensor {name!r} is of the unknown type {kind}")
        type_name, block, width = TYPES[kind]
        if not shape or min(shape) < 1 or math.prod(shape) >= 2**63 or shape[0] % block:
            raise _damaged(self.path, f"the tensor {name!r} has the shape {shape}, which {type_name} cannot store")
        return Tensor(name, shape, type_name, offset, math.prod(shape) // block * width)

    def placed(self, tensors: list[Tensor], start: int, alignment: int) -> tuple[Tensor, ...]:
        """The tensors with their places in the file; each lies inside it, and none upon another."""
        if len({tensor.name for tensor in tensors}) < len(tensors):
            raise _damaged(self.path, "a tensor's name stands twice")
        found = [Tensor(t.name, t.shape, t.type, start + t.offset, t.bytes) for t in tensors]
        end, before = start, "the header"
        for tensor in sorted(found, key=lambda tensor: tensor.offset):
            if tensor.offset % alignment or tensor.offset < end or tensor.offset + tensor.bytes > self.size:
                raise _damaged(self.path, f"the tensor {tensor.name!r} is said to take the bytes {tensor.offset:,} to "
                                          f"{tensor.offset + tensor.bytes:,}; {before} ends at {end:,}, the file at "
                                          f"{self.size:,}")
            end, before = tensor.offset + tensor.bytes, repr(tensor.name)
        return tuple(found)

    def check(self, header: Header) -> None:
        """What llama.cpp takes for granted: an architecture, and lists that have an item for every token."""
        if not isinstance(header.values.get("general.architecture"), str):
            raise _damaged(self.path, "no general.architecture in it, so nothing says what model it is")
        odd = next((key for key in WHOLE if type(header.values.get(key, 0)) is not int or key in header.lists), None)
        if odd is not None:
            raise _damaged(self.path, f"{odd} is {str(header.values.get(odd, 'a list'))[:60]!r}, no whole number")
        if "tokenizer.ggml.tokens" not in header.lists:
            raise _damaged(self.path, "no tokenizer.ggml.tokens in it: a file without a vocabulary generates no text")
        for name, kind in LISTS.items():
            found = header.lists.get(f"tokenizer.ggml.{name}")
            if found and (found[0] != kind or (name != "merges" and found[1] != header.tokens)):
                raise _damaged(self.path, f"tokenizer.ggml.{name} has {found[1]:,} items of type {found[0]}, expected "
                                          f"{header.tokens:,} of type {kind}")
        embedding = next((t for t in header.tensors if t.name == "token_embd.weight"), None)
        if embedding is None or embedding.shape[1:] != (header.tokens,):
            rows = "missing" if embedding is None else f"{embedding.shape[1:]} rows"
            raise _damaged(self.path, f"the vocabulary has {header.tokens:,} tokens, the embedding is {rows}")

    def within(self, what: str, count: int, limit: int) -> int:
        if count > limit:
            raise _damaged(self.path, f"{count:,} {what}, the limit is {limit:,}")
        return count


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path}: no sound GGUF file: {what}",
                         "it is damaged, cut short or was never one: get it again")
