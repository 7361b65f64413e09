"""Other people's programs that are asked for the answers our own runtime gives: one file per program.

A client names itself as its makers do (`NAME`), the format it reads (`FORMAT`, a key of models.scheme.TYPES) and how it
is installed (`INSTALL`). `version()` is None where it is not installed, and loads nothing. `answers(artifact, chats,
tokens)` gives the folder as it is to the program, in a process of its own, and returns what it said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Chat = Sequence[dict[str, str]]
SECONDS = 600.0
"""Most time that one program has for all chats."""


@dataclass(frozen=True)
class Said:
    """One {prompt, ids, text} a chat: the prompt's ids, the greedy answer's, and the rendered chat where the program
    tells it; or why there is none."""

    chats: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""
