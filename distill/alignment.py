"""Which of a teacher's tokens or labels stands for each of a student's: in what is given to it, and in what it says."""

from __future__ import annotations

from collections.abc import Sequence

from ..models.errors import UsageError
from ..runtime.text.codec import Codec


def of_tokens(student: Codec, teacher: Codec) -> list[int]:
    """The teacher's id of each of the student's tokens.

    Raises UsageError when the student has tokens that the teacher does not know.
    """
    ours = student.tokenizer.get_vocab(with_added_tokens=True)
    theirs = teacher.tokenizer.get_vocab(with_added_tokens=True)
    unknown = [token for token in ours if token not in theirs]
    if unknown:
        raise UsageError(
            f"the teacher's tokenizer lacks {len(unknown)} of the student's {len(ours)} tokens, such as {unknown[0]!r}",
            "teacher and student must be of one family, or one trimmed from the other; a text classifier need not be")
    if all(theirs[token] == index for token, index in ours.items()):
        return list(range(max(ours.values()) + 1))
    ordered = sorted(ours, key=ours.__getitem__)
    if [ours[token] for token in ordered] != list(range(len(ordered))):
        raise UsageError("the student's tokenizer leaves ids unused: its tokens cannot be matched with the teacher's",
                         "use the teacher's own tokenizer for the student")
    return [theirs[token] for token in ordered]


def of_labels(student: Sequence[str], teacher: Sequence[str]) -> list[int]:
    """The place among the teacher's labels of each of the student's; UsageError when the teacher lacks one."""
    missing = [label for label in student if label not in teacher]
    if missing:
        raise UsageError(f"the teacher does not know the label {missing[0]!r} ({len(missing)} of {len(student)} are "
                         "missing)", "set teacher.tune = true to fine-tune it on the labels first")
    return [list(teacher).index(label) for label in student]
