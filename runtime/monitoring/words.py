"""Texts as their words: a kernel that says how much two share, and how many words are new."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")


class Words:
    """The words of some texts, each word once a text, whatever its case."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._of = [sorted(set(_WORD.findall(text.casefold()))) for text in texts]
        counts = Counter(word for words in self._of for word in words)
        self.names = sorted(counts)
        self._place = {word: place for place, word in enumerate(self.names)}
        self._counts = counts

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """TF-IDF [texts, words], every line of length 1 (0 where a text has no word)."""
        found = np.zeros((len(self._of), len(self.names)), np.float32)
        for line, words in zip(found, self._of, strict=True):
            for word in words:
                line[self._place[word]] = 1 + np.log(len(self._of) / self._counts[word])
        length = np.linalg.norm(found, axis=1, keepdims=True)
        found /= np.where(length > 0, length, 1)
        return found

    @cached_property
    def kernel(self) -> NDArray[np.float64]:
        """How alike two texts are, from 0 to 1 [texts, texts]."""
        return np.asarray(self.vectors @ self.vectors.T, np.float64)

    def typical(self, known: int, most: int = 8) -> tuple[str, ...]:
        """Words that the texts behind the first `known` ones have oftenest for what these have."""
        before, behind = (Counter(word for words in some for word in words)
                          for some in (self._of[:known], self._of[known:]))
        sizes = known, len(self._of) - known
        # Half a text more on either side, so that a word of one text is not worth endlessly more than none.
        worth = {word: count / sizes[1] * np.log((count + 0.5) / sizes[1] / ((before[word] + 0.5) / sizes[0]))
                 for word, count in behind.items()}
        return tuple(sorted((word for word in worth if worth[word] > 0), key=lambda word: (-worth[word], word))[:most])

    def new(self, known: int) -> NDArray[np.float64]:
        """Of each text, the share of its words that none of the first `known` texts has, itself left out [texts]."""
        among = Counter(word for words in self._of[:known] for word in words)
        return np.array([
            sum(among[word] <= (place < known) for word in words) / max(1, len(words))
            for place, words in enumerate(self._of)])
