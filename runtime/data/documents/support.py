"""Whether what is said of a passage stands in it, by its letters: numbers, names, quoted values, and most long words.

This is no proof of an answer. One that turns the passage's own words around passes, and one that is right may fail, as
"twelve" does for 12. It finds what a model adds of its own knowledge, which is what goes wrong most.
"""

from __future__ import annotations

import re

from ..reader import normalise

_NUMBER = re.compile(r"\d+(?:[.,'\u00a0\u202f]\d+)*")
_WORD = re.compile(r"[^\W\d_][\w]*")
_START = re.compile(r"(?:^|[.!?:;]\s+|\n\s*(?:[-*•]\s+)?|[\"'“”‘«(\[]\s*)(?=[^\W\d_])")
_QUOTED = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|«([^»\n]+)»|„([^“”\n]+)[“”]|`([^`\n]+)`|"
                     r"(?<!\w)['‘]([^'’\n]+)['’](?!\w)")
_SAME = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-", "\u00ad": None})
_OPENERS = frozenset(re.findall(r"\w+", """
    a about after all also although an and any are as at be because before both but by can could do does each either
    every few first for from given has have he her here his how if in instead is it its many may more most must my
    neither no nobody none not nothing of on once one only or other our over see set several she should since so
    some such than that the their then there these they this those through to two under unless until use used using
    was we were what when where whether which while who whose why will with within without would yes yet you your"""))
"""Words that begin sentences in English and name nothing."""
_STEM = 4
"""Letters at the beginning of a longer word by which its other forms are known."""


def unsupported(passage: str, question: str, answer: str) -> str:
    """What of a question and its answer does not stand in the passage, and why that matters; empty where all does."""
    plain = _plain(passage)
    numbers = set(_numbers(passage))
    words = set(re.findall(r"\w+", plain))
    asked = set(re.findall(r"\w+", _plain(question)))
    for said, asks in ((question, True), (answer, False)):
        for found in _QUOTED.finditer(said):
            if _plain(next(filter(None, found.groups()))) not in plain:
                return "quotes what is not in the passage"
        if not set(_numbers(said)) <= numbers:
            return "a number that is not in the passage"
        starts = {found.end() for found in _START.finditer(said)}
        for found in _WORD.finditer(said):
            word = _plain(found[0])
            if found[0] == found[0].lower() or _known(word, words):
                continue
            opens = found.start() in starts and found[0][1:] == found[0][1:].lower()
            if not (opens and (asks or word in _OPENERS or word in asked)):
                return "a name that is not in the passage"
    long = [word[:_STEM] for word in re.findall(r"\w+", _plain(answer)) if len(word) > _STEM and word not in _OPENERS]
    if 2 * sum(stem in plain for stem in long) < len(long):
        return "words that are mostly not in the passage"
    return ""


def _known(word: str, words: set[str]) -> bool:
    """Whether a word stands among others, also where one of them has the ending of a plural or a genitive."""
    return word in words or f"{word}s" in words or word.removesuffix("s") in words


def _plain(text: str) -> str:
    return normalise(text.translate(_SAME))


def _numbers(text: str) -> list[str]:
    """The numbers in a text, without the marks between thousands."""
    return [re.sub(r"(?<=\d)[,'\u00a0\u202f](?=\d{3}(?!\d))", "", found[0]) for found in _NUMBER.finditer(text)]
