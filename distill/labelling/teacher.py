"""One teacher with its ledger and its budget, whatever it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

from ...models.errors import UsageError
from .asking import Asker
from .budget import Budget
from .endpoint import Endpoint, Takes
from .ledger import Ledger
from .prices import price_of
from .prompt import endpoint_key
from .reply import Reader
from .settings import Settings


class Teacher:
    """Whom to ask, at which price, with what was asked before."""

    def __init__(self, settings: Settings, ledger: Path) -> None:
        """Raises UsageError for an address that rows must not be sent to, for a key that cannot be sent, and for a
        limit of money without a known price; MissingExtra where a package is missing."""
        settings.address()
        if not settings.key.isascii() or set(settings.key) & {*map(chr, range(33)), "\x7f"}:
            raise UsageError("the teacher's key holds a blank, a line end or a character that no header carries",
                             "set its variable again, to the key alone")
        self.settings, self._path = settings, ledger
        self.price = price_of(settings.url, settings.model, settings.price)
        if self.price is None and settings.max_cost is not None:
            raise UsageError(f"{settings.model}: no price is known for it there, and --max-cost needs one",
                             "give it, in US dollars for a million tokens read and written: --price 0.15/0.6")

    def known(self) -> tuple[Takes, set[str]]:
        """What the ledger says: what the endpoint takes, and the keys of the questions that are answered."""
        if not self._path.exists():
            return Takes(), set()
        with Ledger(self._path) as ledger:
            return Takes(**ledger.settled.get(endpoint_key(self.settings), {})), set(ledger.answers)

    @asynccontextmanager
    async def opened(self, reader: Reader) -> AsyncIterator[tuple[Asker, Ledger]]:
        """Ask it in the block, with replies as `reader` reads them."""
        cost = self.price.call if self.price else lambda read, written: Decimal(0)
        with Ledger(self._path, cost) as ledger:
            async with Endpoint(self.settings) as endpoint:
                budget = Budget(ledger, cost, self.settings.max_cost, self.settings.max_tokens)
                yield Asker(self.settings, endpoint, ledger, budget, reader), ledger
