"""Every call and what came of it, in a file that only grows: a crash loses no answer that was paid for."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

from ...models import files
from ...models.errors import DataError, EdgestillError

ASKED, ANSWERED, UNUSABLE, FAILED, SETTLED = "asked", "answered", "unusable", "failed", "settled"


class Ledger:
    """JSON lines of mode 0600, each on disk before what follows from it is done. A call is `asked` before it is made,
    and then `answered`, `unusable` (billed, and no answer for a row) or `failed`; one without an end was in flight when
    its process ended. Questions stand in it by their key alone.
    """

    def __init__(self, path: Path, cost: Callable[[int, int], Decimal] = lambda read, written: Decimal(0)) -> None:
        """Open a ledger, or begin one; `cost`: of a call with so many tokens read and written. Raises EdgestillError
        where another process has it open, DataError for a line that is none of a ledger's."""
        self.path = path
        self.answers: dict[str, dict[str, Any]] = {}
        """By key: message, logprob."""
        self.unusable: dict[str, list[dict[str, Any]]] = {}
        """By key: replies with their reason and the longest answer that was asked for."""
        self.settled: dict[str, dict[str, Any]] = {}
        self.calls: Counter[str] = Counter()
        """By what came of them."""
        self.read = self.written = 0
        """Tokens of the calls that were billed, or may have been: of those without a usage, and of those that are or
        were in flight, the most there can have been."""
        self.cost = Decimal(0)
        """What they come to."""
        self._cost = cost
        self._open: dict[int, tuple[int, int]] = {}
        self._next = 0
        self._lines = self._synced = 0
        self._syncing = asyncio.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(handle, "r+b", buffering=0)
        try:
            files.lock(self._file)
        except OSError:
            self._file.close()
            raise EdgestillError(f"{path}: another process is labelling with it",
                                 "wait for it to end, or choose another -o/--out") from None
        os.chmod(path, 0o600)
        self._read()
        self.lost = len(self._open)
        """Calls that were in flight when an earlier process ended: paid for, perhaps, and asked again."""

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.close()

    async def ask(self, key: str, where: str, tokens: tuple[int, int]) -> int:
        """Note a call before it is made, with the most tokens that it can take; its number."""
        number = self._next
        await self._write({"event": ASKED, "call": number, "key": key, "row": where, "tokens": list(tokens)})
        return number

    async def close(self, number: int, event: str, key: str, tokens: tuple[int, int] | None, **more: Any) -> None:
        """Note what came of a call; `tokens`: (0, 0) where it was not billed, None where that is not known."""
        await self._write({"event": event, "call": number, "key": key, "tokens": tokens and list(tokens), **more})

    async def settle(self, key: str, found: Mapping[str, Any]) -> None:
        """Keep what an endpoint was found to take."""
        await self._write({"event": SETTLED, "key": key, "found": dict(found)})

    async def _write(self, entry: dict[str, Any]) -> None:
        """Count an entry at once, and come back when it is on disk; those who wait together share one fsync."""
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self._take(entry)
        self._lines += 1
        mine = self._lines
        async with self._syncing:
            if self._synced < mine:
                reached = self._lines
                await asyncio.to_thread(os.fsync, self._file.fileno())
                self._synced = reached

    def _read(self) -> None:
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        for place, line in enumerate(content[:whole].splitlines(), 1):
            try:
                self._take(json.loads(line))
            except (ValueError, LookupError, TypeError):
                raise DataError(f"{self.path}:{place}: no line of a ledger",
                                "restore the file, or choose another -o/--out and pay anew") from None
        if whole < len(content):  # torn off by a crash: what it would have said was never acted on
            os.ftruncate(self._file.fileno(), whole)
        else:
            files.sync_folder(self.path.parent)

    def _take(self, entry: dict[str, Any]) -> None:
        event, key = entry["event"], entry["key"]
        if event == SETTLED:
            self.settled[key] = entry["found"]
            return
        number = entry["call"]
        most = self._open.pop(number, (0, 0))
        read, written = entry["tokens"] or most
        self.read += read - most[0]
        self.written += written - most[1]
        self.cost += self._cost(read, written) - self._cost(*most)
        if event == ASKED:
            self._open[number] = (read, written)
            self._next = number + 1
            return
        self.calls[event] += 1
        if event == ANSWERED:
            self.answers[key] = entry
        elif event == UNUSABLE:
            self.unusable.setdefault(key, []).append(entry)
        elif event != FAILED:
            raise ValueError(event)
