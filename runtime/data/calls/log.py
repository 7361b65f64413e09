"""The records of log files, each of which becomes part of a row or is counted with the reason why not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....models import kinds
from ....models.errors import DataError
from ..faults import BadRow, RowFault
from ..reader import records
from ..shapes import Shaper
from .common import Call
from .conversation import Question, answer, question
from .exchange import NO_ANSWER, Exchange, Place, Unusable, table

LOGS, PLAINEST = "runtime.data.logs", "openai"
"""Where the kinds are; the one that is asked last, since other kinds' records have a request or a response, too."""
UNKNOWN = "a record of no kind known here"
NO_REQUEST = "an answer without its request"
TWICE = "its {} stands more than once among the {}"


@dataclass
class Log:
    """What was found in log files. `records` is the number of `calls`, of `joined` and of all places in `left_out`."""

    records: int = 0
    calls: list[Call] = field(default_factory=list)
    joined: int = 0
    """Records that are the request of a call whose answer is another record."""
    left_out: dict[str, list[Place]] = field(default_factory=dict)
    """Reason → records of which no row was made."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Records of each kind of log."""
    tokens: tuple[int, int] = (0, 0)
    """Read and written, of all calls whose log says so, those that are left out included."""
    metered: int = 0
    """Calls whose log says how many tokens they took."""
    cost: float = 0.0
    """In US dollars."""
    priced: int = 0
    """Calls whose log says what they cost."""
    names: int = 0
    """Names of participants, which are in no row."""

    def leave(self, place: Place, reason: str) -> None:
        """Count a record of which no row is made."""
        self.left_out.setdefault(reason, []).append(place)


def read_logs(paths: Sequence[Path]) -> Log:
    """Read log files of whatever kinds and formats, also several that belong together.

    Raises DataError for a file that cannot be read, and where none of the records gives a row.
    """
    log = Log()
    shaper = Shaper({}, {}, set())
    known = {name: kinds.load(LOGS, name) for name in sorted(kinds.names(LOGS), key=PLAINEST.__eq__)}
    sides: list[Exchange] = []
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: no such file", "name the log's files, each by its path")
        for line, record in records(str(path)):
            log.records += 1
            place = Place(path.name, line)
            if isinstance(record, BadRow):
                log.leave(place, _plain(record.reason))
                continue
            name = next((name for name, kind in known.items() if kind.matches(record)), "")
            if not name:
                log.leave(place, UNKNOWN)
                continue
            log.kinds[name] += 1
            found: Exchange = known[name].exchange(place, record)
            if found.key:
                sides.append(found)
            else:
                _take(log, found, shaper)
    for whole in _joined(log, sides):
        _take(log, whole, shaper)
    if not log.calls:
        most = max(log.left_out, key=lambda reason: len(log.left_out[reason]), default="")
        reason = f": {len(log.left_out[most])} of {log.records}: {most}" if most else ", it is empty"
        raise DataError(f"{paths[0]}: no call in it that could be learned from{reason}",
                        f"kinds of logs that are read: {', '.join(known)}; docs/data.md shows their records")
    return log


def _take(log: Log, exchange: Exchange, shaper: Shaper) -> None:
    """Make a row of a call, or count why not; what it cost counts in both cases."""
    if exchange.tokens is not None:
        log.metered += 1
        log.tokens = (log.tokens[0] + exchange.tokens[0], log.tokens[1] + exchange.tokens[1])
    if exchange.cost is not None:
        log.priced += 1
        log.cost += exchange.cost
    try:
        if exchange.failure:
            raise Unusable(exchange.failure)
        said = answer(exchange.response)
        asked = question(table(exchange.request))
        record = _record(asked, said)
        row = shaper.row(record, str(exchange.place))
    except Unusable as fault:
        log.leave(exchange.place, fault.reason)
    except RowFault as fault:
        log.leave(exchange.place, _plain(fault.reason))
    else:
        log.names += asked.names
        log.calls.append(Call(exchange.place, record, row, asked.schema))


def _record(asked: Question, said: Mapping[str, Any]) -> dict[str, Any]:
    """A row in the form of chats. What the assistant said before is read and not learned: it was answered, and
    logged, by a call of its own, or the client wrote it as an example."""
    before = [{**one, "weight": 0} if one["role"] == "assistant" else one for one in asked.messages]
    return {"messages": [*before, dict(said)], **({"tools": list(asked.tools)} if asked.tools else {})}


def _joined(log: Log, sides: Sequence[Exchange]) -> Iterator[Exchange]:
    """Requests and answers that stand in records of their own, in the order of the answers; the rest is counted."""
    requests = [side for side in sides if side.request is not None]
    answers = [side for side in sides if side.request is None]
    asked, answered = (Counter(side.key for side in found) for found in (requests, answers))
    by_key = {side.key: side for side in requests}
    used = set()
    for side in answers:
        if asked[side.key] > 1 or answered[side.key] > 1:
            log.leave(side.place, TWICE.format("id", "requests" if asked[side.key] > 1 else "answers"))
        elif side.key not in by_key:
            log.leave(side.place, NO_REQUEST)
        else:
            used.add(side.key)
            log.joined += 1
            yield Exchange(side.place, by_key[side.key].request, side.response, side.failure, side.usage, side.cost)
    for side in requests:
        if side.key not in used:
            several = asked[side.key] > 1 or answered[side.key] > 1
            log.leave(side.place, TWICE.format("id", "requests" if asked[side.key] > 1 else "answers")
                      if several else NO_ANSWER)


def _plain(reason: str) -> str:
    """A fault of a row without what is its own alone, so that the same faults count together."""
    return re.sub(r"\d+", "…", re.sub(r"'[^']*'", "…", reason))
