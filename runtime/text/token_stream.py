"""Text that appears while tokens are made: whole characters only, and no part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"


class TextStream:
    """Turns ids, one at a time, into pieces of text whose sum is the text of all ids."""

    def __init__(self, decode: Callable[[list[int]], str], lengths: dict[int, int]) -> None:
        """`lengths` keeps, from stream to stream, how many characters a token has alone."""
        self._decode, self._lengths = decode, lengths
        self._window: list[int] = []
        self._read = 0
        self._shown = 0

    def push(self, token: int) -> str:
        """The text that `token` completes; empty while it ends inside a character."""
        self._window.append(token)
        text = self._decode(self._window)
        if len(text) <= self._shown or text.endswith(_INCOMPLETE):
            return ""
        piece = text[self._shown:]
        # The last piece's ids stay in front as context: decoders treat a text's first token specially.
        self._window = self._window[self._read:]
        self._read = len(self._window)
        if self._read > 1:  # a character of several tokens
            self._shown = len(self._decode(self._window))
        else:
            shown = self._lengths.get(token)
            if shown is None:
                shown = self._lengths[token] = len(self._decode(self._window))
            self._shown = shown
        return piece

    def flush(self) -> str:
        """What is left at the end; an unfinished character comes out as U+FFFD, as in decoding all ids at once."""
        piece = self._decode(self._window)[self._shown:]
        self._window, self._read, self._shown = [], 0, 0
        return piece


class StopStrings:
    """Holds text back as long as it may be the beginning of a stop string.

    A stop string may hold special tokens, which the text of an answer leaves out.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self._shown: list[bool] = []  # of every character that is held, whether it belongs to the text
        self.hit = False
        """Whether a stop string was met; nothing comes out after it."""

    def push(self, text: str, mark: str = "") -> str:
        """The part of the text so far that is certainly before any stop string; `mark` is a special token that came
        with it."""
        if self.hit or not self._stop:
            return "" if self.hit else text
        self._held += text + mark
        self._shown += [True] * len(text) + [False] * len(mark)
        found = [index for index in (self._held.find(stop) for stop in self._stop) if index >= 0]
        if found:
            self.hit = True
            return self._out(min(found))
        return self._out(len(self._held) - max(_overlap(self._held, stop) for stop in self._stop))

    def flush(self) -> str:
        """What was held back when generation ends without the rest of a stop string."""
        return "" if self.hit else self._out(len(self._held))

    def _out(self, size: int) -> str:
        """Let go of the first `size` characters: those of the text."""
        text = "".join(letter for letter, shown in zip(self._held[:size], self._shown, strict=False) if shown)
        self._held, self._shown = self._held[size:], self._shown[size:]
        return text


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[len(text) - length:]):
            return length
    return 0
