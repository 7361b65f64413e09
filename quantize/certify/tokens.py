"""The same texts give the same token ids as the float model's tokenizer, and the ids the same texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from ...models.errors import ArtifactError
from ...runtime.text import Codec
from ..certificate import Check
from ..gguf_tokenizer import differences
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
        checks += _in_file(subject, plain, own)
    return checks


def _in_file(subject: Subject, plain: list[list[int]], own: list[str]) -> list[Check]:
    """llama.cpp's ids of the same texts. Those that llama.cpp has no rule for are left out, and counted by class."""
    reference, codec, encode = subject.reference, subject.codec, subject.inner.tokenize
    texts = reference.fixtures.texts
    excused = _known_differences(codec)
    generates = subject.artifact.manifest.task.kind == "generate"
    left_out: Counter[str] = Counter()
    wrong, back, kept = [], [], 0
    for index, text in enumerate(texts):
        names = excused(text)
        left_out.update(names)
        if not names:
            kept += 1
            if encode(text) != plain[index] or encode(text, True) != reference.special_ids[index].tolist():
                wrong.append(text)
        if not generates:
            continue
        shown = subject.inner.text_of(plain[index]).decode("utf-8", "replace")
        # SentencePiece's blank before a text belongs to the first piece; decoders drop it.
        if shown not in (reference.decoded(index), f" {reference.decoded(index)}"):
            back.append(text)
    note = "; ".join(f"{count} texts left out: {name}" for name, count in left_out.items())
    checks = [_verdict("token_ids_in_file", wrong, kept, note)]
    if generates:
        checks.append(_verdict("decoded_text_in_file", back, len(texts)))
    own = [text for text in own if not excused(text)]
    if own:
        wrong = [text for text in own if encode(text) != codec.encode(text)]
        checks.append(_verdict("token_ids_rows_in_file", wrong, len(own)))
    return checks


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


def _verdict(name: str, wrong: list[str], n: int, note: str = "") -> Check:
    detail = f"{len(wrong)} of {n} texts differ, the first is {wrong[0][:60]!r}" if wrong else note
    return Check(name, not wrong, "tokenizer", float(len(wrong)), 0.0, n, detail)
