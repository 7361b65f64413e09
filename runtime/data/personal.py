"""What in texts looks like it belongs to a person: counted, and never shown or changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

EMAIL, PHONE, CARD, KEY = KINDS = ("e-mail addresses", "phone numbers", "card numbers", "API keys")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_CARD = re.compile(r"(?<![\d.])[2-6](?:[ -]?\d){12,18}(?![\d.])")
_KEY = re.compile(r"(?<!\w)(?:sk|pk|rk)-[\w-]{20,200}|(?<!\w)(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)|(?<!\w)gh[pousr]_\w{36,}")
_PHONE = re.compile(r"""(?<![\w.])(?:
    (?:\+|00)[1-9]\d{0,3}[ ().-]{0,2}\d(?:[ ()./-]{0,2}\d){5,12}  # with the country's code
  | \(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}  # North America's
  | \(?0\d{1,4}\)?[ /-]\d{2,4}(?:[ -]?\d{2,4}){1,3}  # with a trunk code
    )(?![\w.]?\d)""", re.VERBOSE)


def kinds_in(texts: Iterable[str]) -> Iterator[str]:
    """The kind of every finding, one of KINDS each time."""
    for text in texts:
        yield from (EMAIL for _ in _EMAIL.finditer(text))
        yield from (KEY for _ in _KEY.finditer(text))
        cards = [found for found in _CARD.finditer(text) if luhn(found[0])]
        yield from (CARD for _ in cards)
        inside = [found.span() for found in cards]
        yield from (PHONE for found in _PHONE.finditer(text)
                    if not any(start <= found.start() < end for start, end in inside))


def luhn(number: str) -> bool:
    """Whether the last digit of a number is the check digit that cards have (ISO/IEC 7812)."""
    digits = [int(digit) for digit in number if digit.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0
