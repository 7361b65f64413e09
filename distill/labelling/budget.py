"""A limit of money and tokens that calls cannot pass: each holds the most that it can take before it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal

from ...models.errors import CheckFailed
from .ledger import Ledger


class BudgetSpent(CheckFailed):
    """What is left does not pay for another call."""


class Budget:
    """Lets calls begin while what was spent, with the most that those in flight can take, stays below the limits."""

    def __init__(self, ledger: Ledger, cost: Callable[[int, int], Decimal], max_cost: float | None,
                 max_tokens: int | None) -> None:
        """`cost`: US dollars of a call with so many tokens read and written."""
        self._ledger, self._cost = ledger, cost
        self._max_cost = None if max_cost is None else Decimal(str(max_cost))
        self._max_tokens = max_tokens
        self._flying = 0
        self._landed = asyncio.Condition()

    @asynccontextmanager
    async def room(self, read: int, written: int) -> AsyncIterator[None]:
        """Hold `read` and `written` tokens while a call is made; the block writes it down before all else. Waits for
        calls in flight, which may turn out smaller than feared; raises BudgetSpent where there is no room without them.
        """
        async with self._landed:
            while self._lacks(read, written):
                if not self._flying:
                    raise BudgetSpent(f"the budget of {self._limits()} leaves no room for another call: "
                                      f"{self._spent()} spent", "run the same command with a larger budget to go on")
                await self._landed.wait()
            self._flying += 1
        try:
            yield
        finally:
            async with self._landed:
                self._flying -= 1
                self._landed.notify_all()

    def _lacks(self, read: int, written: int) -> bool:
        tokens = self._ledger.read + self._ledger.written + read + written
        return (self._max_tokens is not None and tokens > self._max_tokens) or (
            self._max_cost is not None and self._ledger.cost + self._cost(read, written) > self._max_cost)

    def _limits(self) -> str:
        money = [] if self._max_cost is None else [f"{self._max_cost} US dollars"]
        return " and ".join(money + ([] if self._max_tokens is None else [f"{self._max_tokens:,} tokens"]))

    def _spent(self) -> str:
        money = [] if self._max_cost is None else [f"{self._ledger.cost:.4f} US dollars"]
        return " and ".join([*money, f"{self._ledger.read + self._ledger.written:,} tokens"])
