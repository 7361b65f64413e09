"""From a few rows, or from documents, to new rows: calls in rounds, until there are enough or it leads nowhere."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from ...models import progress
from ...models.errors import CheckFailed, EdgestillError
from ...runtime.data.calls.conversation import spoken
from ...runtime.data.json_answers import json_value
from ..labelling import plan as planning
from ..labelling.asking import NOT_ASKED, Asker
from ..labelling.ledger import Ledger
from ..labelling.prompt import BYTES_PER_TOKEN, key_of, prompt_of
from ..labelling.reply import Reader
from ..labelling.settings import Settings
from ..labelling.teacher import Teacher
from .calls import Call, lanes_of, reply_schema
from .report import Generated, report_of
from .sieve import Candidate, Sieve
from .wanted import Wanted

ROUND = 16
"""Calls, whose rows are judged before more are made."""
WINDOW, FEWEST = 40, 20
"""Rows at the end of which most may not be repetitions, and how many that must be to say so."""
_READ = {"type": "object", "properties": {"rows": {"type": "array", "minItems": 1}}, "required": ["rows"]}
"""What is asked of a whole reply; each row in it is then judged by itself."""


@dataclass(frozen=True)
class Plan(planning.Calls):
    """Numbers of new rows that are about to be made."""

    rows: int
    seeds: int
    passages: int
    labels: int
    most: int
    """Calls, when many rows cannot be used."""

    def lines(self) -> list[str]:
        """The plan for a terminal."""
        origin = " and ".join([f"{self.seeds} seeds"] * bool(self.seeds) + [
            f"{self.passages} passages of documents"] * bool(self.passages))
        balance = f", as many for each of {self.labels} labels" if self.labels else ""
        return self.told(origin, [f"new rows: {self.rows}{balance}, from {origin}"],
                         [f"no more than {self.most} questions are asked, where many rows are left out"])


class Generating:
    """Makes new rows: `plan` says what it will do, `run` does it."""

    def __init__(self, wanted: Wanted, settings: Settings, ledger: Path) -> None:
        """`settings.system`: what the task is, for the teacher alone. Raises what Teacher and Wanted.check do, and
        UsageError for a schema that is none."""
        wanted.check()
        self._wanted, self._settings = wanted, replace(settings, schema=reply_schema(wanted), labels=(), examples=())
        self._teacher = Teacher(self._settings, ledger)
        self._sieve = Sieve(wanted)
        self._lanes = lanes_of(wanted)

    def plan(self) -> Plan:
        """What is to be asked and what it will cost; nothing is asked here and nothing written."""
        wanted, settings = self._wanted, self._settings
        takes, answers = self._teacher.known()
        due = [call for lane in self._lanes for call in lane.due()]
        prompts = [(prompt_of(call.item, settings), call.number) for call in due]
        left = [prompt for prompt, number in prompts
                if key_of(prompt, settings, takes.response_format, number) not in answers]
        known = [len(f"{row.question}{row.answer}".encode()) for row in wanted.seeds]
        each = settings.answer_tokens if not known else min(settings.answer_tokens, wanted.per_call * (
            round(sum(known) / len(known) / BYTES_PER_TOKEN) + 12) + 8)
        places = [*((row.where, [*spoken(row.messages), row.text]) for row in wanted.seeds),
                  *((passage.place, [passage.text]) for passage in wanted.passages)]
        return Plan(
            rows=wanted.rows, seeds=len(wanted.seeds), passages=len(wanted.passages), labels=len(wanted.labels),
            most=sum(lane.most for lane in self._lanes),
            **planning.calls(left, len(due) - len(left), each, settings, self._teacher.price, places,
                             [("what the task is", [settings.system])]))

    def run(self) -> Generated:
        """Ask, judge, and ask for what is missing. Raises CheckFailed when no reply of the first round can be used, and
        what ends the asking before there is any. What ends it later stands in `Generated.stopped`."""
        return asyncio.run(self._run())

    async def _run(self) -> Generated:
        settings, judged, unanswered = self._settings, list[Candidate](), list[tuple[Call, str]]()
        recent = deque[bool](maxlen=WINDOW)
        stopped: EdgestillError | None = None
        async with self._teacher.opened(Reader((), _READ, [settings.key, settings.system])) as (asker, ledger):
            while stopped is None and (calls := self._round()):
                await asker.ask((call.item, call.number) for call in calls)
                found, silent = _taken(asker, calls, self._sieve)
                judged, unanswered = [*judged, *found], [*unanswered, *silent]
                self._count(found)
                recent.extend(one.repeats for one in found if one.repeats or not one.reason)
                progress.at("new rows", sum(lane.kept for lane in self._lanes), self._wanted.rows)
                stopped = asker.stopped or self._led_nowhere(recent, judged, unanswered)
                if stopped and not judged:
                    raise stopped
            return self._made(judged, unanswered, asker, ledger, stopped)

    def _round(self) -> list[Call]:
        """The next calls, of all lanes in turn."""
        due = [call for calls in zip_longest(*(lane.due() for lane in self._lanes)) for call in calls if call]
        for lane in self._lanes:
            lane.asked += sum(call.label == lane.label for call in due[:ROUND])
        return due[:ROUND]

    def _count(self, found: list[Candidate]) -> None:
        for lane in self._lanes:
            lane.kept += sum(not one.reason and one.call.label == lane.label for one in found)

    def _led_nowhere(self, recent: deque[bool], judged: list[Candidate],
                     unanswered: list[tuple[Call, str]]) -> EdgestillError | None:
        """Why no more is asked, though there are too few rows; None where it may go on."""
        kept = f"{sum(min(lane.kept, lane.rows) for lane in self._lanes)} of {self._wanted.rows} rows were kept"
        if not judged:
            reason = Counter(reason for _, reason in unanswered).most_common(1)[0][0]
            return CheckFailed(f"the teacher gave no reply that can be used to {len(unanswered)} calls: {reason}",
                               "give it room (--answer-tokens), ask for fewer rows at a time (--per-call), or take "
                               "another model")
        if not any(lane.kept < lane.rows for lane in self._lanes):
            return None
        if len(recent) >= FEWEST and 2 * sum(recent) > len(recent):
            return CheckFailed(
                f"{kept}, and then no more was asked: {sum(recent)} of the last {len(recent)} repeat others",
                "give more seeds or documents, unlike each other, a higher --temperature, or another teacher")
        if not any(lane.due() for lane in self._lanes):
            reasons = Counter([one.reason for one in judged if one.reason] + [reason for _, reason in unanswered])
            return CheckFailed(
                f"{kept}, and then no more was asked: the most calls are made; most often left out: "
                f"{reasons.most_common(1)[0][0]}", "look at the rows that were left out, then tell the teacher more "
                "(--task), give other seeds or documents, or take another model")
        return None

    def _made(self, judged: list[Candidate], unanswered: list[tuple[Call, str]], asker: Asker, ledger: Ledger,
              stopped: EdgestillError | None) -> Generated:
        rows, left_out, places = [], [], {lane.label: lane.rows for lane in self._lanes}
        for one in judged:
            reason = one.reason or ("" if places[one.call.label] else "more than were wanted")
            if reason:
                left_out.append({"call": one.call.item.row.where, "reason": reason, "row": one.record})
            else:
                places[one.call.label] -= 1
                rows.append(one.record)
        report = report_of(self._settings, ledger, asker.takes, self._teacher.price, self._wanted, rows, left_out,
                           sum(one.repeats for one in judged), Counter(reason for _, reason in unanswered))
        silent: list[dict[str, Any]] = [{"call": call.item.row.where, "reason": reason} for call, reason in unanswered]
        return Generated(rows, [*left_out, *silent], report, stopped)


def _taken(asker: Asker, calls: list[Call], sieve: Sieve) -> tuple[list[Candidate], list[tuple[Call, str]]]:
    """The rows of the replies to calls, judged, and the calls without one, each with its reason."""
    replies = [(call, asker.reply(call.item, call.number)) for call in calls]
    written = [[(call, value) for value in json_value(reply.text)["rows"]] for call, reply in replies if reply]
    silent = [(call, asker.reason(call.item, call.number)) for call, reply in replies if reply is None]
    return sieve.judged(list(chain(*written))), [one for one in silent if one[1] != NOT_ASKED]
