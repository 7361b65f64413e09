"""From rows without answers to rows with answers: a check of the teacher, then the votes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...models import progress
from ...models.errors import CheckFailed
from ...runtime.data.reader import row_key
from .asking import NOT_ASKED, Asker
from .items import Item
from .ledger import Ledger
from .plan import Plan, plan_of
from .prompt import digest, examples_of, key_of, prompt_of
from .reply import Reader, agreement, elected, same
from .report import Agreement, Labelled, LeftOut, Report, Vote
from .settings import Settings
from .teacher import Teacher


class Labelling:
    """One labelling: `plan` says what it will do, `run` does it."""

    def __init__(self, items: Sequence[Item], settings: Settings, ledger: Path) -> None:
        """Raises UsageError for an address that rows must not be sent to, for a key that cannot be sent, for a schema
        that is none, and for a limit of money without a known price; MissingExtra where a package is missing."""
        self._items, self._settings = items, settings
        self._teacher = Teacher(settings, ledger)
        self._reader = Reader(settings.labels, settings.schema, [
            settings.key, settings.system, *(str(message["content"]) for message in examples_of(settings)
                                             if message["role"] != "assistant")])  # answers may well be the same
        self._open = [place for place, item in enumerate(items) if settings.all or not item.answer]
        shown = {row_key(row) for row in settings.examples}  # with its answer, which measures nothing
        fresh = [place for place, item in enumerate(items) if row_key(item.row) not in shown]
        own = [place for place in fresh if items[place].answer]
        self._sample = sorted(own or fresh, key=lambda place: digest(row_key(items[place].row)))[:settings.check]

    @property
    def _checks(self) -> list[tuple[Item, int]]:
        """At least twice each: a teacher that disagrees with itself is of no use."""
        votes = max(self._settings.votes, 2)
        return [(self._items[place], vote) for place in self._sample for vote in range(votes)]

    @property
    def _questions(self) -> list[tuple[Item, int]]:
        return [(self._items[place], vote) for place in self._open for vote in range(self._settings.votes)]

    def plan(self) -> Plan:
        """What is to be asked and what it will cost; nothing is asked here and nothing written."""
        settings = self._settings
        takes, answers = self._teacher.known()
        prompts = {id(item): prompt_of(item, settings) for item, _ in (*self._checks, *self._questions)}
        keys = {key_of(prompts[id(item)], settings, takes.response_format, vote): item
                for item, vote in (*self._checks, *self._questions)}
        left = [item for key, item in keys.items() if key not in answers]
        return plan_of(self._items, prompts, left, len(keys) - len(left), settings, self._teacher.price)

    def run(self) -> Labelled:
        """Ask, and count the votes. Raises CheckFailed when the teacher gives no answer that can be used, or agrees too
        little with the rows' own answers or with itself, and what ends the asking before that is known. A budget that
        is spent later, or a teacher that goes down, ends it early, as `Labelled.stopped` says."""
        return asyncio.run(self._run())

    async def _run(self) -> Labelled:
        async with self._teacher.opened(self._reader) as (asker, ledger):
            await asker.ask(_shown("check of the teacher", self._checks))
            if asker.stopped and self._checks:
                raise asker.stopped
            checked = self._agreement(asker)
            await asker.ask(_shown("labels", self._questions))
            return self._labelled(asker, ledger, checked)

    def _agreement(self, asker: Asker) -> Agreement | None:
        """CheckFailed where it is below the limit, and where no reply could be used."""
        if not self._sample:
            return None
        settings, right, whole = self._settings, 0, 0.0
        items = [self._items[place] for place in self._sample]
        if all(asker.reply(*question) is None for question in self._checks):
            reasons = Counter(asker.reason(*question) for question in self._checks)
            raise CheckFailed(
                f"the teacher gave no answer that can be used to {len(items)} rows: {reasons.most_common(1)[0][0]}",
                "give it room (--answer-tokens), tell it more (--system, --examples), or take another model")
        for item in items:
            votes = [asker.reply(item, vote) for vote in range(max(settings.votes, 2))]
            whole += agreement([None if vote is None else vote.text for vote in votes])
            counted = [vote for vote in votes[:settings.votes] if vote is not None]
            right += bool(counted) and same(elected(counted)[0].text, item.answer)
        own = right / len(items) if items[0].answer else None
        found = Agreement(len(items), own, whole / len(items))
        for name, share in (("the rows' own answers", found.with_rows), ("itself", found.with_itself)):
            if share is not None and share < settings.min_agreement:
                raise CheckFailed(
                    f"the teacher agrees with {name} in {100 * share:.1f} % of {len(items)} rows, and the limit is "
                    f"{100 * settings.min_agreement:g} %", "tell it more (--system, --examples), take a larger model, "
                    "or lower --min-agreement: what it answered stands in the ledger and is not asked again")
        return found

    def _labelled(self, asker: Asker, ledger: Ledger, checked: Agreement | None) -> Labelled:
        rows, votes, left_out = [], [], []
        for item in self._items:
            if item.answer and not self._settings.all:
                rows.append(dict(item.record))
                continue
            found = [asker.reply(item, vote) for vote in range(self._settings.votes)]
            reasons = [asker.reason(item, vote) for vote, reply in enumerate(found) if reply is None]
            counted = [reply for reply in found if reply is not None]
            if NOT_ASKED in reasons or not counted:
                left_out.append(LeftOut(item.line, NOT_ASKED if NOT_ASKED in reasons else reasons[0]))
                continue
            best, agreeing = elected(counted)
            rows.append(item.answered(best.text, best.message))
            votes.append(Vote(item.line, len(counted), agreeing, best.logprob))
        return Labelled(rows, votes, left_out, Report.of(self._settings, self._items, ledger, asker.takes, checked,
                                                         self._teacher.price, left_out), asker.stopped)


def _shown(task: str, questions: list[tuple[Item, int]]) -> Iterator[tuple[Item, int]]:
    """The questions, while it is said how far they are."""
    for done, question in enumerate(questions):
        progress.at(task, done, len(questions))
        yield question
