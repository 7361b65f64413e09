"""What reaches the ids of rows: their lengths, the parts that a template leaves out, and what is learned of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...models.errors import DataError
from .learned_tokens import sequences, training_ids
from .row import Row

if TYPE_CHECKING:
    from ..text.codec import Codec


@dataclass(frozen=True)
class Counted:
    """What was found out about the rows of a split."""

    tokens: list[int] = field(default_factory=list)
    """Of each row that can be learned, its longest sequence."""
    long: list[Row] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Why a row cannot be learned, with its place."""
    silent: list[Row] = field(default_factory=list)
    """Rows in which nothing is to be learned."""


def count(rows: Sequence[Row], codec: Codec, limit: int, learn: str) -> Counted:
    """Tokenize the rows as training does; `limit` above 0 is the most tokens of one."""
    found = Counted()
    for row in rows:
        try:
            lengths = ([len(one.ids) for one in sequences(codec, row, learn)] if row.messages
                       else [len(training_ids(codec, row)[0])])
        except DataError as error:
            found.lost.append(str(error.message))
            continue
        if not lengths:
            found.silent.append(row)
            continue
        found.tokens.append(max(lengths))
        if 0 < limit < max(lengths):
            found.long.append(row)
    return found


def shown(row: Row, codec: Codec, learn: str) -> list[dict[str, Any]]:
    """The sequences of a row as they are learned: {"row", "sequence", "tokens", "parts"}, where each part is
    {"text", "learned", "tokens"}, special tokens written out. One of a row of which nothing is learned."""
    if row.classified:
        ids = codec.encoding(row.text, pair=row.pair or None).ids
        part = {"text": codec.decode(ids, False), "learned": False, "tokens": len(ids)}
        return [{"row": row.where, "sequence": 0, "tokens": len(ids), row.kind: row.answer, "parts": [part]}]
    found = sequences(codec, row, learn)
    lines = []
    for number, one in enumerate(found):
        edges = sorted({0, len(one.ids), *(edge for span in one.spans for edge in span)})
        starts = {start for start, _ in one.spans}
        parts = [{"text": codec.decode(one.ids[start:end], False), "learned": start in starts, "tokens": end - start}
                 for start, end in zip(edges, edges[1:], strict=False)]
        lines.append({"row": row.where, "sequence": number, "tokens": len(one.ids), "parts": parts})
    if not found:
        ids = codec.encode(codec.render(row.messages, row.tools, False))
        part = {"text": codec.decode(ids, False), "learned": False, "tokens": len(ids)}
        lines.append({"row": row.where, "sequence": 0, "tokens": len(ids), "parts": [part]})
    return lines
