"""What a chat template writes between the messages of a talk, found by rendering talks of marked contents.

Most templates write, before each message, a text that depends on its role and the role before it alone. Such a
template is known whole from a few renderings, and can be written in another template language.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

from ...models.errors import DataError
from ...runtime.text.codec import Codec

TALKS = ("u", "uau", "su", "suauau")
ROLES = {"s": "system", "u": "user", "a": "assistant"}
PLAIN = ("Lorem0", "ipsum1", "dolor2", "sit3", "amet4", "elit5")
ODD = ("  {{ two }}\nlines  ", '"quoted" \\n', "<b>", "ünï", "1\t2", "…")


@dataclass(frozen=True)
class Turns:
    """`between[before, role]` stands before a message of `role`; both are empty at the beginning and the end."""

    between: dict[tuple[str, str], str]
    trims: bool
    """The template cuts white space around contents."""

    def join(self, messages: Sequence[tuple[str, str]]) -> str:
        """The prompt of (role, content) pairs, with the opening of the next answer."""
        before, text = "", ""
        for role, content in messages:
            text += self.between[before, role] + (content.strip() if self.trims else content)
            before = role
        return text + self.between[before, ""]


def of(codec: Codec) -> Turns:
    """The turns of `codec`'s chat template; DataError saying why when it does not write turns of this kind."""
    if codec.template and "strftime_now" in codec.template:
        raise DataError("the template writes the date of the day", "use a program that renders it")
    plain = copy(codec)
    plain.system = ""  # it would be put before the talks that begin without one
    talks = [[ROLES[letter] for letter in talk] for talk in TALKS]
    try:
        _render(plain, talks[2], PLAIN)
    except DataError:
        talks = [talk for talk in talks if "system" not in talk]
    between: dict[tuple[str, str], str] = {}
    for talk in talks:
        rest = _render(plain, talk, PLAIN)
        for before, role, content in zip(["", *talk], [*talk, ""], [*PLAIN[:len(talk)], ""], strict=True):
            text, found, rest = rest.partition(content) if content else (rest, "end", "")
            if not found or between.setdefault((before, role), text) != text:
                raise DataError("the template writes more than one text before each message",
                                "use a program that renders it")
    for trims in (False, True):
        turns = Turns(between, trims)
        if all(turns.join(list(zip(talk, ODD, strict=False))) == _render(plain, talk, ODD) for talk in talks):
            return turns
    raise DataError("the template changes the contents of messages", "use a program that renders it")


def _render(codec: Codec, roles: Sequence[str], contents: Sequence[str]) -> str:
    return codec.prompt([{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)])
