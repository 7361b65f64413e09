"""The same texts give the same token ids as the float model's tokenizer, and the ids the same texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from ....models.errors import ArtifactError, DataError
from ....runtime.text.codec import Codec
from ...gguf.tokenizer.write import differences
from ..certificate import Check, rounded
from ..packed_file import Subject
from . import _vocabulary

TASKS = ("generate", "classify", "embed")
CAUSE = "tokenizer"
MOST_LEFT_OUT = 0.5
"""Largest share of the corpus that llama.cpp may be known to tokenize otherwise.

The corpus is made of hard cases: of sound files, those that keep no blanks apart, or have no tokens but Latin letters,
leave out up to 45 % of it, all others up to 30 %, and most nothing."""
MOST_ROWS_LEFT_OUT = 0.1
"""The same of the user's own texts, of which one may always be left out: they are what the file is for."""


def check(subject: Subject) -> list[Check]:
    """The artifact's tokenizer files; and for a GGUF the tokenizer inside the file, as llama.cpp reads it."""
    reference, codec = subject.reference, subject.codec
    texts = reference.fixtures.texts
    plain = [ids.tolist() for ids in reference.text_ids]
    wrong = [text for text, ids, special in zip(texts, plain, reference.special_ids, strict=True)
             if codec.encode(text) != ids or codec.encode(text, add_special_tokens=True) != special.tolist()]
    back = [text for index, text in enumerate(texts)
            if codec.decode(plain[index], skip_special_tokens=False) != reference.decoded(index)]
    checks = [_verdict("token_ids", wrong, len(texts)), _verdict("decoded_text", back, len(texts))]
    own = list(_row_texts(subject))
    if subject.float_model is not None and own:
        tokenizer = subject.float_model.tokenizer
        wrong = [text for text in own if codec.encode(text) != tokenizer.encode(text, add_special_tokens=False)]
        checks.append(_verdict("token_ids_rows", wrong, len(own)))
    if subject.inner is not None:
        checks += _in_file(subject, plain, own)
    return checks + _vocabulary.checks(subject)


def _in_file(subject: Subject, plain: list[list[int]], own: list[str]) -> list[Check]:
    """llama.cpp's ids of the same texts. Those that llama.cpp has no rule for are left out, counted by class, and may
    only be so many."""
    reference, codec, encode = subject.reference, subject.codec, subject.inner.tokenize
    texts = reference.fixtures.texts
    excused = _known_differences(codec)
    generates = subject.artifact.manifest.task.kind == "generate"
    left_out: Counter[str] = Counter()
    wrong, back, kept = [], [], 0
    for index, text in enumerate(texts):
        names = excused(text)
        if not names:
            kept += 1
            if encode(text) != plain[index] or encode(text, True) != reference.special_ids[index].tolist():
                wrong.append(text)
        elif turn := _turn(codec, text, excused):
            kept += 1
            if encode(turn) != codec.encode(turn):
                wrong.append(turn)
        else:
            left_out.update(names)
        if not generates:
            continue
        shown = subject.inner.text_of(plain[index]).decode("utf-8", "replace")
        # SentencePiece's blank before a text belongs to the first piece; decoders drop it.
        if shown not in (reference.decoded(index), f" {reference.decoded(index)}"):
            back.append(text)
    checks = [_verdict("token_ids_in_file", wrong, kept, _counted(left_out)),
              _left_out("left_out_in_file", left_out, len(texts) - kept, len(texts), MOST_LEFT_OUT)]
    if generates:
        checks.append(_verdict("decoded_text_in_file", back, len(texts)))
    if own:
        checks += _rows_in_file(codec, encode, own, excused)
    return checks


def _rows_in_file(codec: Codec, encode: Callable[[str], list[int]], own: list[str],
                  excused: Callable[[str], list[str]]) -> list[Check]:
    """The same of the user's own texts, nearly all of which must be compared."""
    left_out: Counter[str] = Counter()
    compared = []
    for text in own:
        names = excused(text)
        if turn := _turn(codec, text, excused) if names else text:
            compared.append(turn)
        else:
            left_out.update(names)
    wrong = [text for text in compared if encode(text) != codec.encode(text)]
    return [_verdict("token_ids_rows_in_file", wrong, len(compared), _counted(left_out)),
            _left_out("left_out_rows_in_file", left_out, len(own) - len(compared), len(own),
                      max(MOST_ROWS_LEFT_OUT, 1 / len(own)))]


def _turn(codec: Codec, text: str, excused: Callable[[str], list[str]]) -> str:
    """The text as a user's turn, where a chat model meets it; empty where it is tokenized otherwise even there."""
    if codec.template is None:
        return ""
    try:
        turn = codec.render([{"role": "user", "content": text}])
    except DataError:
        return ""  # a template for other conversations than chats
    return "" if text not in turn or excused(turn) else turn


def _known_differences(codec: Codec) -> Callable[[str], list[str]]:
    try:
        return differences(codec)
    except ArtifactError:
        return lambda text: []  # someone's GGUF of a tokenizer that none is written for here: nothing is excused


def _row_texts(subject: Subject) -> Iterable[str]:
    for row in (*subject.rows, *subject.test_rows):
        for text in (row.text, *(message.get("content") for message in row.messages)):
            if isinstance(text, str) and text:
                yield text


def _counted(left_out: Counter[str]) -> str:
    return "; ".join(f"{count} texts left out: {name}" for name, count in left_out.items())


def _left_out(name: str, left_out: Counter[str], count: int, n: int, limit: float) -> Check:
    """Whether enough texts were compared; `value` is the share of those that were not."""
    share, passed = count / max(n, 1), count <= limit * n
    told = f"{count} of {n} texts are left out, more than {limit:.0%}: " if not passed else ""
    return Check(name, passed, CAUSE, rounded(share), limit, n, told + _counted(left_out))


def _verdict(name: str, wrong: list[str], n: int, note: str = "") -> Check:
    detail = f"{len(wrong)} of {n} texts differ, the first is {wrong[0][:60]!r}" if wrong else note
    return Check(name, not wrong, "tokenizer", float(len(wrong)), 0.0, n, detail)
