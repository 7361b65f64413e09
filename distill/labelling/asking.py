"""Questions to the teacher: each asked until there is an answer that can be used, and every call written down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from ...models.errors import EdgestillError, MissingExtra
from ...runtime.data.calls.conversation import CUT_OFF
from ...runtime.data.calls.exchange import Unusable
from ...runtime.data.reader import row_key
from .budget import Budget
from .endpoint import Endpoint, Failure, Takes, TeacherError
from .items import Item
from .ledger import ANSWERED, FAILED, UNUSABLE, Ledger
from .prompt import endpoint_key, form_bytes, key_of, prompt_of
from .reply import Reader, Reply, tokens_of

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

    from .settings import Settings

NOT_ASKED = "not asked"
REPLIES = 4
"""That cannot be used, after which a question is given up, in all runs together; one that was cut off is enough."""
TRIES = 8
"""Calls without a reply in succession, after which it is given up in this run."""
LONGEST_PAUSE = 60.0
"""Seconds between two calls for one question, where the server does not say how long."""
IN_SUCCESSION = 5
"""Questions given up one after the other, after which the teacher is taken to be down."""


class Asker:
    """Asks questions of one teacher, several at a time."""

    def __init__(self, settings: Settings, endpoint: Endpoint, ledger: Ledger, budget: Budget, reader: Reader) -> None:
        """MissingExtra without stamina or aiolimiter."""
        try:
            import stamina
            from aiolimiter import AsyncLimiter
        except ModuleNotFoundError as error:
            raise MissingExtra(str(error.name), "label") from None
        stamina.instrumentation.set_on_retry_hooks(())  # retries stand in the ledger, and structlog prints to stdout
        self._retries = stamina.retry_context
        self._settings, self._endpoint, self._ledger, self._budget, self._reader = (
            settings, endpoint, ledger, budget, reader)
        self._limiter: AsyncLimiter | None = AsyncLimiter(1, 60 / settings.rate) if settings.rate else None
        found = ledger.settled.get(endpoint_key(settings))
        self.takes = Takes(**(found or {}))
        self._settled = self._worded = found is not None
        self._asking: set[str] = set()
        self._resume = 0.0
        self._missed = 0
        self.stopped: EdgestillError | None = None
        """Why no more is asked: the budget, or a teacher that is down or refuses."""
        self.failed: dict[str, str] = {}
        """By key: why this run has no reply."""

    def key(self, item: Item, vote: int) -> str:
        """Of a question, see key_of."""
        return key_of(prompt_of(item, self._settings), self._settings, self.takes.response_format, vote)

    def reply(self, item: Item, vote: int) -> Reply | None:
        """The answer, where there is one."""
        found = self._ledger.answers.get(self.key(item, vote))
        return Reply(found["message"], found["logprob"]) if found else None

    def reason(self, item: Item, vote: int) -> str:
        """Why there is none."""
        key = self.key(item, vote)
        return self._given_up(key) or self.failed.get(key, NOT_ASKED)

    async def ask(self, questions: Iterable[tuple[Item, int]]) -> None:
        """Ask rows, each with the number of a vote, until all have answers or are given up, or `stopped` says why not.
        What stands in the ledger is not asked again."""
        left = iter(questions)
        if not self._settled:
            for question in left:
                await self._one(*question)
                if self._settled or self.stopped:
                    break
        await asyncio.gather(*(self._work(left) for _ in range(self._settings.concurrency)))

    async def _work(self, left: Iterator[tuple[Item, int]]) -> None:
        for question in left:
            if self.stopped:
                return
            await self._one(*question)

    async def _one(self, item: Item, vote: int) -> None:
        key = self.key(item, vote)
        if key in self._asking:
            return  # a row that says the same is being asked
        self._asking.add(key)
        try:
            while not self.stopped and key not in self._ledger.answers and not self._given_up(key):
                with contextlib.suppress(Unusable):  # it stands in the ledger
                    await self._tried(item, key)
                self._missed = 0
        except Failure as failure:
            fewer = self.takes.fewer(failure.refuses) if failure.refuses is not None and not self._settled else None
            if fewer is not None:
                self.takes = fewer
                self._asking.discard(key)
                await self._one(item, vote)
                return
            if not self._settled:
                self.takes = Takes()  # it was not these that were refused
            self._give_up(key, failure)
        except EdgestillError as error:
            self.stopped = error
        finally:
            self._asking.discard(key)

    def _give_up(self, key: str, failure: Failure) -> None:
        self.failed[key] = f"no reply: {failure.reason}"
        self._missed += failure.again or not (self._settled or failure.refuses is None)  # None: it is of this row
        if failure.ends or self._missed >= IN_SUCCESSION:
            self.stopped = self.stopped or TeacherError(
                f"the teacher gives no answers: {failure.reason}",
                failure.ends or "look whether it is up, then run the same command again: no answer is lost")

    def _given_up(self, key: str) -> str:
        """The reason why a question is not asked again; empty where it is. An answer that was cut off may be longer
        under another limit, and under the same one costs as much for nothing."""
        reasons = [entry["reason"] for entry in self._ledger.unusable.get(key, ())
                   if entry["reason"] != CUT_OFF or entry["longest"] >= self._settings.answer_tokens]
        if CUT_OFF in reasons:
            return CUT_OFF
        return reasons[-1] if len(reasons) >= REPLIES else ""

    async def _tried(self, item: Item, key: str) -> None:
        """A reply; Unusable or Failure when there is none to use, BudgetSpent where it cannot be paid."""
        async for attempt in self._retries(on=self._again, attempts=TRIES, timeout=None, wait_initial=0.5,
                                           wait_max=LONGEST_PAUSE):
            with attempt:
                await self._call(item, key)

    def _again(self, error: Exception) -> bool | float:
        if not isinstance(error, Failure) or not error.again or self.stopped:
            return False
        if error.wait is not None:  # it holds for all that are to be asked
            self._resume = max(self._resume, asyncio.get_running_loop().time() + error.wait)
        return True if error.wait is None else error.wait

    async def _call(self, item: Item, key: str) -> None:
        await asyncio.sleep(self._resume - asyncio.get_running_loop().time())
        if self._limiter is not None:
            await self._limiter.acquire()
        prompt = prompt_of(item, self._settings)
        most = (prompt.most_tokens + form_bytes(self._settings, self.takes.response_format),
                self._settings.answer_tokens)
        async with self._budget.room(*most):
            if self.stopped:  # while this waited
                raise self.stopped
            number = await self._ledger.ask(key, item.row.where, most)
            try:
                response = await self._endpoint.call(prompt, self.takes)
            except Failure as failure:
                await self._ledger.close(number, FAILED, key, None if failure.billed else (0, 0), reason=failure.reason)
                raise
            if not self._settled:
                await self._settle(self.takes)
            tokens = tokens_of(response)
            try:
                reply = self._reader.read(response, tuple(item.private.values()), item.row.tools,
                                          row_key(item.row))
            except Unusable as fault:
                await self._ledger.close(number, UNUSABLE, key, tokens, reason=fault.reason,
                                   longest=self._settings.answer_tokens)
                raise
            await self._ledger.close(number, ANSWERED, key, tokens, message=reply.message, logprob=reply.logprob)
            if not self._worded and reply.message["content"]:  # calls of tools have no log-probabilities anywhere
                self._worded = True
                if self.takes.logprobs and reply.logprob is None:
                    await self._settle(replace(self.takes, logprobs=False))

    async def _settle(self, takes: Takes) -> None:
        """Keep what the endpoint takes: known after the first reply, and of log-probabilities after the first answer in
        words."""
        self._settled, self.takes = True, takes
        await self._ledger.settle(endpoint_key(self._settings), asdict(takes))
