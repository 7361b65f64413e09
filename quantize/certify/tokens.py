"""The same texts give the same token ids as the float model's tokenizer, and the ids the same texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..certificate import Check
from ..subject import Subject

TASKS = ("generate", "classify")


def check(subject: Subject) -> list[Check]:
    """The artifact's tokenizer files; and for a GGUF the tokenizer inside the file, as llama.cpp reads it."""
    reference, codec = subject.reference, subject.codec
    texts = reference.fixtures.texts
    plain = [ids.tolist() for ids in reference.text_ids]
    wrong = [text for text, ids, special in zip(texts, plain, reference.special_ids, strict=True)
             if codec.encode(text) != ids or codec.encode(text, add_special_tokens=True) != special.tolist()]
    back = [text for index, text in enumerate(texts)
            if codec.tokenizer.decode(plain[index], skip_special_tokens=False) != reference.decoded(index)]
    checks = [_verdict("token_ids", wrong, len(texts)), _verdict("decoded_text", back, len(texts))]
    own = list(_row_texts(subject))
    if subject.float_model is not None and own:
        tokenizer = subject.float_model.tokenizer
        wrong = [text for text in own if codec.encode(text) != tokenizer.encode(text, add_special_tokens=False)]
        checks.append(_verdict("token_ids_rows", wrong, len(own)))
    if subject.inner is not None:
        # Where a tokenizer loses part of a text (a normalizer that folds blanks, say), GGUF has no rule for that
        # loss; such texts are left out, and counted. Byte-level tokenizers lose nothing, so none is left out.
        kept = [index for index, text in enumerate(texts) if reference.decoded(index).removeprefix(" ") == text.removeprefix(" ")]
        encode = subject.inner.tokenize
        wrong = [texts[index] for index in kept if encode(texts[index]) != plain[index]]
        wrong += [texts[index] for index in kept if index not in wrong
                  and encode(texts[index], True) != reference.special_ids[index].tolist()]
        left_out = f"{len(texts) - len(kept)} texts left out that the tokenizer itself cannot give back"
        checks.append(_verdict("token_ids_in_file", wrong, len(kept), left_out if len(kept) < len(texts) else ""))
        if own:
            checks.append(_verdict("token_ids_rows_in_file", _differing(own, codec.encode, encode, codec.decode), len(own)))
    return checks


def _differing(texts: Iterable[str], expected: Callable[[str], list[int]], found: Callable[[str], list[int]],
               decode: Callable[..., str]) -> list[str]:
    wrong = []
    for text in texts:
        ids = expected(text)
        if found(text) != ids and decode(ids, skip_special_tokens=False).removeprefix(" ") == text.removeprefix(" "):
            wrong.append(text)
    return wrong


def _row_texts(subject: Subject) -> Iterable[str]:
    for row in (*subject.rows, *subject.test_rows):
        for text in (row.text, *(message.get("content") for message in row.messages)):
            if isinstance(text, str) and text:
                yield text


def _verdict(name: str, wrong: list[str], n: int, note: str = "") -> Check:
    detail = f"{len(wrong)} of {n} texts differ, the first is {wrong[0][:60]!r}" if wrong else note
    return Check(name, not wrong, "tokenizer", float(len(wrong)), 0.0, n, detail)
