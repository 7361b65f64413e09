"""What calls cost: as genai-prices knows it on a day, or as the user says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from importlib.metadata import version

from ...models.errors import MissingExtra, UsageError

MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """US dollars of calls."""

    source: str
    """Who says so, and when."""
    call: Callable[[int, int], Decimal]
    """Of one with so many tokens read and written."""


def price_of(url: str, model: str, given: str) -> Price | None:
    """The price of a model at an address, or as `given`; None where nobody knows it. UsageError for no price."""
    if given:
        return _given(given)
    try:
        from genai_prices import Usage, calc_price
    except ModuleNotFoundError:
        raise MissingExtra("genai-prices", "label") from None
    today = datetime.now(UTC)
    for where in (url, None):  # a proxy sells what others make
        def call(read: int, written: int, where: str | None = where) -> Decimal:
            found: Decimal = calc_price(
                Usage(input_tokens=read, output_tokens=written), model, genai_request_timestamp=today,
                provider_api_url=where).total_price
            return found

        try:
            call(1, 1)
        except LookupError:
            continue
        return Price(f"genai-prices {version('genai-prices')} for {today:%Y-%m-%d}", call)
    return None


def _given(text: str) -> Price:
    try:
        read, written = map(Decimal, text.split("/"))
        if not (read >= 0 and written >= 0 and (read + written).is_finite()):
            raise ValueError
    except (ValueError, InvalidOperation):
        raise UsageError(f"--price {text}: not two numbers of US dollars", "for example --price 0.15/0.6") from None
    return Price(f"--price {text}", lambda tokens_in, tokens_out: (read * tokens_in + written * tokens_out) / MILLION)
