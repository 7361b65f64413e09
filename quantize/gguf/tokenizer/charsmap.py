"""A normalizer as llama.cpp has it for Unigram: a table of what is written for which characters, the longest first.

The table is not copied out of tokenizer.json: llama.cpp walks it as SentencePiece does, and tokenizers walks the same
table grapheme by grapheme, behind or before other steps. It is asked of the normalizer itself: of every character, and
of every sequence that Unicode composes.
"""

from __future__ import annotations

import struct
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

CHARACTERS = "".join(map(chr, (*range(1, 0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200))))
"""All that Unicode has given a meaning. llama.cpp's table cannot hold NUL."""
CHUNK = 64
"""Characters that are tried together first: most scripts are never changed."""
BLOCK = 256
"""Places that a node's labels can lie apart."""


@dataclass(frozen=True)
class Charsmap:
    """What is written for which texts."""

    entries: dict[str, str]
    longest: int
    """Characters of the longest key."""

    @classmethod
    def of(cls, normalize: Callable[[str], str], sequences: Iterable[str]) -> Charsmap:
        """The table of what `normalize` changes: characters, Unicode's compositions, and those of `sequences`."""
        found: dict[str, str] = {}
        for start in range(0, len(CHARACTERS), CHUNK):
            chunk = CHARACTERS[start:start + CHUNK]
            if normalize(chunk) != chunk:
                found |= {sign: written for sign in chunk if (written := normalize(sign)) != sign}
        made = cls(found, 1)
        for sequence in sorted({*composed(), *sequences}, key=len):
            written = normalize(sequence)
            if written != made.applied(sequence):
                found[sequence] = written
                made = cls(found, len(sequence))
        return made

    def applied(self, text: str) -> str:
        """`text` as llama.cpp rewrites it."""
        parts, start = [], 0
        while start < len(text):
            for length in range(self.longest, 0, -1):
                part = text[start:start + length]
                if part in self.entries:
                    parts.append(self.entries[part])
                    start += len(part)
                    break
            else:
                parts.append(text[start])
                start += 1
        return "".join(parts)

    def packed(self) -> bytes:
        """The table in SentencePiece's form; empty for an empty one.

        The size of a double array in bytes, the array, and the texts written, each with a NUL. A unit of the array has
        32 bits: a label (0 to 7), whether a key ends here (8) and the way to the children (10 to 30), to which their
        labels are added bit by bit; or, with bit 31, the place of a written text.
        """
        if not self.entries:
            return b""
        written, places = bytearray(), dict[str, int]()
        for text in self.entries.values():
            if text not in places:
                places[text] = len(written)
                written += text.encode() + b"\0"
        root = _Node()
        for key, text in self.entries.items():
            node = root
            for byte in key.encode():
                node = node.children.setdefault(byte, _Node())
            node.value = places[text]
        units = _double_array(root)
        return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + bytes(written)


@cache
def composed() -> frozenset[str]:
    """Letters with their marks apart: all of them, and the last one only."""
    apart = [parts for parts in (unicodedata.normalize("NFD", sign) for sign in CHARACTERS) if len(parts) > 1]
    return frozenset(apart) | {unicodedata.normalize("NFC", parts[:-1]) + parts[-1] for parts in apart}


class _Node:
    """One byte on the way to keys."""

    __slots__ = ("base", "children", "value")

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.value: int | None = None
        self.base = 0

    @property
    def labels(self) -> list[int]:
        """The bytes that follow, and 0 where a key ends."""
        return [0] * (self.value is not None) + list(self.children)


def _double_array(root: _Node) -> list[int]:
    """The units of a trie: a node's children stand at its base, with their labels added bit by bit.

    Bases are dealt out in one go to the nodes with several, the largest first; in a second one those with one child
    fill the gaps.
    """
    nodes = [root]
    for node in nodes:
        nodes.extend(node.children.values())
    taken, bases = bytearray(b"\1"), set[int]()
    for several in (True, False):
        place = 0
        for node in sorted((node for node in nodes if (len(node.labels) > 1) == several),
                           key=lambda node: -len(node.labels)):
            first, *others = node.labels
            while True:
                if place | BLOCK - 1 >= len(taken):  # every label of the block must have a place
                    taken += bytes((place | BLOCK - 1) + 1 - len(taken))
                base = place ^ first
                if not taken[place] and base not in bases and not any(taken[base ^ label] for label in others):
                    break
                place += 1
            node.base = base
            bases.add(base)
            for label in node.labels:
                taken[base ^ label] = 1
    units = [0] * len(taken)
    places = [(0, root)]
    for place, node in places:
        units[place] |= (place ^ node.base) << 10 | (node.value is not None) << 8
        if node.value is not None:
            units[node.base] = node.value | 1 << 31
        for label, child in node.children.items():
            units[node.base ^ label] = label
            places.append((node.base ^ label, child))
    return units
