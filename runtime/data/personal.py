"""What in texts looks like it belongs to a person: counted, or its kind put in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

EMAIL, PHONE, CARD, IBAN, KEY = KINDS = (
    "e-mail addresses", "phone numbers", "card numbers", "bank accounts (IBAN)", "API keys")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")
_CARD = re.compile(r"(?<![\d.])[2-6](?:[ -]?\d){12,18}(?![\d.])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_KEY = re.compile(r"(?<!\w)(?:sk|pk|rk)-[\w-]{20,200}|(?<!\w)(?:AKIA|ASIA)[A-Z0-9]{16}(?!\w)|(?<!\w)gh[pousr]_\w{36,}")
_PHONE = re.compile(r"""(?<![\w.])(?:
    (?:\+|00)[1-9]\d{0,3}[ ().-]{0,2}\d(?:[ ()./-]{0,2}\d){5,12}  # with the country's code
  | \(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}  # North America's
  | \(?0\d{1,4}\)?[ /-]\d{2,4}(?:[ -]?\d{2,4}){1,3}  # with a trunk code
    )(?![\w.]?\d)""", re.VERBOSE)


def kinds_in(texts: Iterable[str]) -> Iterator[str]:
    """The kind of every finding, one of KINDS each time."""
    for text in texts:
        yield from (kind for _, _, kind in _findings(text))


def redacted(text: str) -> str:
    """The text with the kind of every finding in its place, such as [phone numbers]."""
    end, parts = 0, []
    for first, last, kind in sorted(_findings(text)):
        if first >= end:
            parts += [text[end:first], f"[{kind}]"]
        end = max(end, last)
    return "".join(parts) + text[end:]


def _findings(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and kind of each."""
    for kind, pattern in ((EMAIL, _EMAIL), (KEY, _KEY)):
        yield from ((*match.span(), kind) for match in pattern.finditer(text))
    inside: list[tuple[int, int]] = []  # digits of an account are no card's, nor either's a phone's
    for kind, pattern, holds in ((IBAN, _IBAN, iban), (CARD, _CARD, luhn), (PHONE, _PHONE, bool)):
        found = [match.span() for match in pattern.finditer(text) if holds(match[0])
                 and not any(start <= match.start() < end for start, end in inside)]
        yield from ((*span, kind) for span in found)
        inside += found


def luhn(number: str) -> bool:
    """Whether the last digit of a number is the check digit that cards have (ISO/IEC 7812)."""
    digits = [int(digit) for digit in number if digit.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def iban(number: str) -> bool:
    """Whether the third and fourth characters of a bank account are its check digits (ISO 13616)."""
    plain = number.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1
