"""Answers that can no longer be right: a proof need not wait for their end."""

from __future__ import annotations

from ...runtime.data.json_answers import is_json, json_value


def hopeless(text: str, wanted: str) -> bool:
    """Whether no text that begins with `text` can be the answer `wanted`, as runtime/metrics compares answers.

    Of JSON, whose keys may come in any order, only the kind of value is known before its end.
    """
    begun, right = text.rstrip("\ufffd").lstrip(), wanted.strip()
    if not begun or right.startswith(begun.rstrip()):
        return False
    if is_json(json_value(right)):
        return right[0] in '{["' and begun[0] != right[0]
    return True
