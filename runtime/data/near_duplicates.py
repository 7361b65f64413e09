"""Pairs of texts that say almost the same, found without comparing all with all.

MinHash (Broder 1997): the share of equal minima of two texts' hashed 5-grams estimates the Jaccard similarity
of the sets. Texts that agree in a whole band of minima are candidates, and candidates are checked exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
GRAM = 5
SHORT_WORDS = 30
"""Up to this median length in words texts are compared by 5-grams of characters, above it by 5-grams of words."""
_BANDS, _BAND_SIZE = 20, 5  # a pair of similarity 0.8 is found with probability 0.9996
_LARGE_GROUP = 40


def near_pairs(texts: Sequence[str], threshold: float = 0.8) -> list[tuple[int, int, float]]:
    """Pairs `(i, j, similarity)` with i < j whose 5-gram sets have a Jaccard similarity of at least `threshold`.

    Texts should be normalised and different: of n equal texts every pair would be listed.
    """
    if len(texts) < 2:
        return []
    grams, starts = _grams(texts)
    signatures = _signatures(grams, starts)
    pairs = _candidates(signatures)
    if not len(pairs):
        return []
    alike = np.concatenate([(signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1)
                            for part in np.array_split(pairs, len(pairs) // 65536 + 1)])
    likely = pairs[alike >= threshold - 0.2]  # five standard deviations of the estimate below the threshold
    ends = np.append(starts[1:], len(grams))
    sets = {index: frozenset(grams[starts[index]:ends[index]].tolist()) for index in np.unique(likely).tolist()}
    result = []
    for i, j in likely.tolist():
        both = len(sets[i] & sets[j])
        similarity = both / (len(sets[i]) + len(sets[j]) - both)
        if similarity >= threshold:
            result.append((i, j, similarity))
    return result


def _grams(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """All texts' hashed 5-grams in one array, and where each text's begin; a shorter text is one gram."""
    words = [text.split() for text in texts]
    units: list[NDArray[np.uint64]]
    if np.median([len(text) for text in words]) > SHORT_WORDS:
        number = {word: zlib.crc32(word.encode("utf-8")) for text in words for word in text}
        units = [np.array([number[word] for word in text], np.uint64) for text in words]
    else:
        units = [np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64) for text in texts]
    padded = [np.pad(unit, (0, max(0, GRAM - len(unit)))) for unit in units]
    flat = np.concatenate(padded)
    counts = np.array([len(unit) - GRAM + 1 for unit in padded])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    # Grams never reach over the end of a text: skip the GRAM - 1 positions before each end.
    positions = np.arange(counts.sum()) + np.repeat(np.arange(len(counts)) * (GRAM - 1), counts)
    grams = np.zeros(len(positions), np.uint64)
    for offset in range(GRAM):
        grams = _mix(grams * np.uint64(0x9E3779B97F4A7C15) + flat[positions + offset])
    return grams, starts


def _mix(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _signatures(grams: Hashes, starts: NDArray[np.int64]) -> Hashes:
    """The minima of 100 hash functions over each text's grams [texts, 100]."""
    generator = np.random.default_rng(0)
    factors = generator.integers(0, 2**63, _BANDS * _BAND_SIZE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    columns = [np.minimum.reduceat(_xorshift(grams * factor), starts) for factor in factors]
    return np.stack(columns, axis=1)


def _xorshift(values: Hashes) -> Hashes:
    return values ^ (values >> np.uint64(32))


def _candidates(signatures: Hashes) -> NDArray[np.int64]:
    """Pairs [pairs, 2], smaller index first, that agree in at least one band."""
    found: list[NDArray[np.int64]] = []
    for band in range(_BANDS):
        key = np.zeros(len(signatures), np.uint64)
        for column in range(band * _BAND_SIZE, (band + 1) * _BAND_SIZE):
            key = _mix(key * np.uint64(31) + signatures[:, column])
        order = np.argsort(key, kind="stable")
        starts = np.flatnonzero(np.diff(key[order], prepend=~key[order[0]]))
        sizes = np.diff(starts, append=len(key))
        for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
            group = order[start:start + size]
            if len(group) > _LARGE_GROUP:  # neighbours and the first: all pairs of a large group would be too many
                found.append(np.stack([group[:-1], group[1:]], axis=1))
                found.append(np.stack([np.full(len(group) - 1, group[0]), group[1:]], axis=1))
            else:
                left, right = np.triu_indices(len(group), 1)
                found.append(np.stack([group[left], group[right]], axis=1))
    if not found:
        return np.empty((0, 2), np.int64)
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
