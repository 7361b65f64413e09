"""What a model's answer means: its thoughts apart, its calls as calls; as rows have it (see messages.meaning)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...models.errors import DataError, UsageError
from .learned_tokens import training_ids
from .messages import apart as without_thoughts
from .messages import meaning

if TYPE_CHECKING:
    from ..text.codec import Codec
    from .row import Row


def apart(codec: Codec, ids: Sequence[int], text: str) -> tuple[str, str, str]:
    """Thoughts, words, and the words with their special tokens; `text` is that of the ids without them."""
    start, end = codec.thinking_marks
    raw = codec.decode(ids, False)
    inside = raw.lstrip().removeprefix(start) if raw.lstrip().startswith(start) else None
    if inside is None or (not start and end not in inside):
        return "", text, raw
    thoughts, found, rest = inside.partition(end)
    if not found:
        return thoughts.strip(), "", ""  # it was still thinking
    words = text.partition(end)[2] if end in text else rest
    if end not in text:  # the marks are special tokens: what is behind them is found by its ids
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if end in codec.decode(ids[:middle], False) else (middle + 1, high)
        words = codec.decode(ids[low:])
    return thoughts.strip(), words.lstrip("\n"), rest


def said(codec: Codec, ids: Sequence[int], text: str, row: Row) -> str:
    """The meaning of an answer to a row: the row's own where it is what a model learns of the row, token by token. A
    call that cannot be read, or of a template that writes none in a form known here, is an answer in words."""
    _, words, raw = apart(codec, ids, text)
    if words.strip() == row.answer.strip() or _as_learned(codec, ids, row):
        return row.answer
    words = without_thoughts(words)[1]
    if row.tools or (row.place in row.turns and row.messages[row.place].get("tool_calls")):
        try:
            before, calls = codec.tool_format.parse(raw)
        except (DataError, UsageError):
            return words
        if calls:
            return meaning(before, [{"name": call.name, "arguments": call.arguments} for call in calls])
    return words


def _as_learned(codec: Codec, ids: Sequence[int], row: Row) -> bool:
    """Whether an answer is the very ids that stand in the row's: they mean the same, in whatever form a template writes
    calls, and with whatever special tokens the row's own text holds."""
    if row.place not in row.turns:
        return False
    try:
        whole, start = training_ids(codec, row)
    except DataError:
        return False  # a row that this model could not have learned
    return list(ids) == whole[start:len(whole) - (whole[-1] in codec.stop_ids)]
