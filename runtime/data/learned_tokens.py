"""What a row teaches: for each turn of the assistant's the prompt it will be asked with, and the ids that follow.

What a template writes between a prompt and the words of an answer ("<think>\n\n</think>\n\n") belongs to the template:
where an answer has no reasoning it stands at the end of the prompt, in training as in use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...models.errors import DataError
from ..text.chat_template import THINKING, continued
from . import lost_parts

if TYPE_CHECKING:
    from ..text.codec import Codec
    from .shapes import Row

LEARN = ("all", "last")
_MARK = "edgestill-words"


@dataclass(frozen=True)
class Learned:
    """Ids of one forward pass, and which of them are learned."""

    ids: list[int]
    spans: list[tuple[int, int]]
    """Half-open ranges of `ids`, in their order."""


def prompt_ids(codec: Codec, row: Row) -> list[int]:
    """The ids before a row's answer, with the opening of an answer with reasoning or without, as the row's is; of a
    plain text, the whole."""
    if not row.messages:
        return codec.plain_ids(row.text)
    with _named(row):
        return codec.prompt_ids(row.prompt_messages, row.tools, direct=not row.reasoning)


def training_ids(codec: Codec, row: Row) -> tuple[list[int], int]:
    """The ids of a row up to the end of its answer, the token that ends the turn included, and where the answer begins.

    `prompt_ids` are their prefix. Plain text is learned whole: from 0 on, or from 1 behind a begin-of-sequence token.
    Raises DataError, which names the row, when the template refuses it, the prompt is no prefix of the whole row, or
    something stands behind the end of the turn.
    """
    with _named(row):
        if not row.messages:
            ids = codec.plain_ids(row.text)
            return _finished(codec, ids), int(codec.bos_id is not None and ids[:1] == [codec.bos_id])
        if not row.turns:
            raise DataError("none of its messages is to be learned, so there is nothing to learn",
                            "end the row with an assistant message whose weight is not 0")
        return _turn(codec, row, row.turns[-1])


def sequences(codec: Codec, row: Row, learn: str = "all") -> list[Learned]:
    """What a model learns of a row: every assistant's turn ("all") or the answer alone ("last"), each behind the prompt
    that it will be asked with. Errors as in `training_ids`, and DataError for a part of the row that does not reach the
    ids."""
    if not row.messages:
        ids, start = training_ids(codec, row)
        return [Learned(ids, [(start, len(ids))])]
    found: list[Learned] = []
    with _named(row):
        learned = row.turns if learn == "all" else row.turns[-1:]
        for place in learned:
            ids, start = _turn(codec, row, place)
            span = (start, len(ids))
            if found and ids[:len(found[-1].ids)] == found[-1].ids:
                found[-1] = Learned(ids, [*found[-1].spans, span])
            else:  # the template writes an earlier turn otherwise than the last one
                found.append(Learned(ids, [span]))
        missing = lost_parts.missing(codec, row, [one.ids for one in found], learned)
        if missing:
            raise DataError(missing[0], "give the student a template that writes it ([student] template, such as "
                                        "\"chatml\" for tools), take a model that has one, or take it out of the rows")
    return found


def settled(codec: Codec, rows: Iterable[Row]) -> dict[str, Any]:
    """The options of the template with which rows are learned and the model is used afterwards: thinking is off where
    no row has any reasoning and the template says so before an answer without."""
    chats = [row for row in rows if row.turns]
    if not chats or any(row.reasons for row in chats):
        return codec.options
    try:
        return {**codec.options, **options_of(codec, chats[0])}
    except DataError:
        return codec.options  # said, with its row, where the rows are tokenized


def _rejoined(codec: Codec, row: Row, before: str, whole: str) -> str:
    """The prompt and the answer of a template that writes a conversation's earlier part otherwise once it is answered;
    empty where the two do not go together: they must be alike from the user's last words on."""
    asked = [*row.prompt_messages, {"role": "assistant", "content": _MARK}]
    head, found, _ = codec.render(asked, row.tools, False).partition(_MARK)
    tails = [text.rpartition(row.question.strip()) for text in (before, head)]
    alike = found and all(tail[1] for tail in tails) and tails[0][2] == tails[1][2]
    return before + whole[len(head):] if alike and whole.startswith(head) else ""


def options_of(codec: Codec, row: Row) -> dict[str, Any]:
    """The options beside the codec's own with which a row is asked: thinking is off where its answer shows none, if the
    template tells the two apart and nothing else was said."""
    if THINKING in codec.options or row.reasoning or codec.template is None:
        return {}
    before = codec.render(row.prompt_messages, row.tools)
    return {THINKING: False} if codec.opening(row.prompt_messages, row.tools, before) else {}


@contextmanager
def _named(row: Row) -> Iterator[None]:
    """Name the row in what is said of it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{row.where or 'row'}: {error.message}", error.hint) from error


def _turn(codec: Codec, row: Row, place: int) -> tuple[list[int], int]:
    """The ids up to the end of the assistant's turn at `place`, and where it begins."""
    row = replace(row, messages=row.messages[:place + 1])
    if place == 0:
        raise DataError("messages[0] is the assistant's: nothing stands before it that a model could be asked",
                        'begin with the system or the user, or leave the message unlearned: "weight": 0')
    if codec.options.get(THINKING) is False and row.reasoning:
        raise DataError(f"messages[{place}] has reasoning, and template_options.{THINKING} is false",
                        "take the reasoning out of the rows, or leave the option out")
    before = codec.prompt(row.prompt_messages, row.tools, direct=not row.reasoning)
    if codec.template is None:
        whole = before + str(row.messages[-1].get("content") or "")
        ids = codec.plain_ids(whole)
        prompt = codec.plain_ids(before)
    else:
        whole = codec.render(row.messages, row.tools, add_generation_prompt=False)
        ids, prompt = codec.encode(whole), codec.encode(before)
    if not whole.startswith(before):
        found = continued(codec.render(row.prompt_messages, row.tools), whole, row.reasoning) or ""
        whole = found if found.startswith(before) else _rejoined(codec, row, before, whole)
        ids = codec.encode(whole)
    if not whole:
        raise DataError("the chat template does not render the prompt as the beginning of the whole conversation",
                        "this template cannot be trained on as it is: correct the template")
    if ids[:len(prompt)] != prompt:
        # A token spans the border. The model is prompted without it, so it is trained without it too.
        joined = prompt + codec.encode(whole[len(before):])
        if codec.decode(joined, False) != codec.decode(ids, False):
            raise DataError("the prompt's ids are not the beginning of the whole row's ids, and the tokenizer cannot "
                            "encode the completion by itself",
                            "end the prompt or start the completion with a line end or a special token")
        ids = joined
    for index in range(len(prompt), len(ids)):
        if ids[index] in codec.stop_ids:
            behind = codec.decode([token for token in ids[index:] if token not in codec.stop_ids]).strip()
            if behind:
                raise DataError(f"messages[{place}] holds {codec.decode(ids[index:index + 1], False)!r}, at which the "
                                f"model stops: {behind[:60]!r} behind it could not be learned",
                                "take that token out of the message")
            return ids[:index + 1], len(prompt)
    return ids if codec.eos_id is None else [*ids, codec.eos_id], len(prompt)


def _finished(codec: Codec, ids: list[int]) -> list[int]:
    """A plain text's ids, the end of sequence behind them unless its last words are one: a chat that was rendered
    before holds an end for every turn."""
    rest = len(ids)
    while rest and not codec.decode(ids[rest - 1:rest], False).strip():
        rest -= 1
    ended = rest > 0 and ids[rest - 1] in codec.stop_ids
    return ids if ended or codec.eos_id is None else [*ids, codec.eos_id]
