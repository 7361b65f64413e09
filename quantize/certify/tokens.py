"""The same texts give the same token ids as the float model's tokenizer, and the ids the same texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...runtime.text import Codec
from ..certificate import Check
from ..subject import Subject

TASKS = ("generate", "classify", "embed")
CAUSE = "tokenizer"


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
        # Where a tokenizer loses part of a text (a normalizer that folds blanks, say), GGUF has no rule for that
        # loss; such texts are left out, and counted. Byte-level tokenizers lose nothing, so none is left out.
        encode = subject.inner.tokenize
        kept = [index for index, text in enumerate(texts) if _comes_back(codec, text)]
        wrong = [texts[index] for index in kept if encode(texts[index]) != plain[index]
                 or encode(texts[index], True) != reference.special_ids[index].tolist()]
        left_out = f"{len(texts) - len(kept)} texts left out that the tokenizer itself cannot give back"
        checks.append(_verdict("token_ids_in_file", wrong, len(kept), left_out if len(kept) < len(texts) else ""))
        own = [text for text in own if _comes_back(codec, text)]
        if own:
            wrong = [text for text in own if encode(text) != codec.encode(text)]
            checks.append(_verdict("token_ids_rows_in_file", wrong, len(own)))
    return checks


def _comes_back(codec: Codec, text: str) -> bool:
    """Whether the tokenizer gives back every part of a text between special tokens as it was."""
    special = [re.escape(token.content) for token in codec.tokenizer.get_added_tokens_decoder().values()]
    parts = re.split("|".join(sorted(special, key=len, reverse=True)), text) if special else [text]
    return all(codec.decode(codec.encode(part), skip_special_tokens=False) == part for part in parts if part)


def _row_texts(subject: Subject) -> Iterable[str]:
    for row in (*subject.rows, *subject.test_rows):
        for text in (row.text, *(message.get("content") for message in row.messages)):
            if isinstance(text, str) and text:
                yield text


def _verdict(name: str, wrong: list[str], n: int, note: str = "") -> Check:
    detail = f"{len(wrong)} of {n} texts differ, the first is {wrong[0][:60]!r}" if wrong else note
    return Check(name, not wrong, "tokenizer", float(len(wrong)), 0.0, n, detail)
