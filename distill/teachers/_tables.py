"""The [teacher] table of a run file, or the tables of several: read and checked, nothing opened yet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ...models import kinds
from ...models.errors import DataError, EdgestillError, UsageError
from ...models.runfile import RunFile, kind_config
from ...models.strict import build, limited
from ...runtime.data.reader import Row
from ._base import Reader, Teacher
from ._cache import CachedTeacher, about
from ._prompt import Told, check, is_told, read
from ._prompted import PromptedTeacher, told_provides

TEACHERS = "distill.teachers"


@dataclass(frozen=True)
class Share:
    """What a table of [[teacher]] holds besides the keys of its kind."""

    weight: float = limited(1.0, minimum=0.0)
    """How much it counts beside the others."""
    route: list[str] = field(default_factory=list)
    """The rows that it teaches: those whose [data] route is one of these."""


@dataclass(frozen=True)
class Entry:
    """A teacher of a run file, not opened yet."""

    name: str
    """The key of its table, for messages."""
    kind: ModuleType
    config: Any
    share: float = 1.0
    """Of every loss; the shares of teachers that are mixed sum to 1."""
    route: tuple[str, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether what it says is kept on disk."""
        return getattr(self.config, "cache", None) is not None

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors that say "teacher" say which of several it is."""
        try:
            yield
        except EdgestillError as error:
            error.message = re.sub(r"^teacher(?=[.:])", lambda _: self.name, error.message)
            raise

    def provides(self, base: Path) -> frozenset[str]:
        """The parts that its signal can have, without its being opened; errors as of its kind's `open`."""
        with self.named():
            found: frozenset[str] = self.kind.provides(self.config, base)
        found = told_provides(found) if is_told(self.config) else found
        return frozenset({self.config.cache.keep}) if self.kept else found

    def told(self, run: RunFile, base: Path, train: Sequence[Row]) -> Told | None:
        """What it alone is told; errors as of _prompt.read."""
        with self.named():
            return read(self.config, run, base, train)

    def open(self, run: RunFile, splits: Mapping[str, Sequence[Row]], base: Path, device: str) -> tuple[Teacher, str]:
        """The teacher, with all that it is told, behind its cache where it has one, and the key of what it says; errors
        as of its kind's `open` and of `told`."""
        with self.named():
            teacher: Teacher = self.kind.open(self.config, base, device)
            key: str = self.kind.key(self.config, base)
        told = self.told(run, base, splits["train"])
        if told is not None:
            teacher = PromptedTeacher(cast(Reader, teacher), told, run.data.learn)
            key = hashlib.sha256(f"{key} {told.key(splits)}".encode()).hexdigest()
        if not self.kept:
            return teacher, key
        found = about(teacher, key, self.config.cache)
        return CachedTeacher(base / self.config.cache.folder, found, teacher), found.key


def entries(run: RunFile) -> list[Entry]:
    """The teachers of a run file; none without one.

    Raises UsageError for a table that its kind does not take, weights that leave nobody, routes that do not divide the
    rows, and what several teachers cannot do.
    """
    if len(run.teachers) < 2:
        found = [_entry("teacher", table, run.task.kind) for table in run.teachers]
        if run.data.route:
            raise UsageError(f"data.route: {run.data.route!r}, and there are no teachers to choose from",
                             "give each of several [[teacher]] a route, or leave it out")
        return found
    named = [f"teacher[{place}]" for place in range(len(run.teachers))]
    shares = [build(Share, {key: table[key] for key in ("weight", "route") if key in table}, name)
              for name, table in zip(named, run.teachers, strict=True)]
    _check_shares(named, shares, run)
    whole = sum(share.weight for share in shares)
    found = [_entry(name, {key: value for key, value in table.items() if key not in ("weight", "route")}, run.task.kind,
                    1.0 if share.route else share.weight / whole, tuple(share.route))
             for name, table, share in zip(named, run.teachers, shares, strict=True)]
    folders: dict[str, str] = {}
    for entry in found:
        if getattr(entry.kind, "IN_ROWS", False):
            raise UsageError(f"{entry.name}: a teacher that answers rows gives nothing that is mixed or routed",
                             "let it label the rows first, with edgestill data label, and leave it out")
        if getattr(entry.config, "tune", False):
            raise UsageError(f"{entry.name}.tune: of several teachers none is tuned on the way",
                             "tune it by edgestill tune or a run of its own, and name the folder that it writes")
        if entry.kept and (other := folders.setdefault(entry.config.cache.folder, entry.name)) != entry.name:
            raise UsageError(f"{entry.name}.cache.folder: {entry.config.cache.folder} is that of {other}",
                             "give each teacher's cache a folder of its own")
    return found


def _entry(name: str, table: Mapping[str, Any], task: str, share: float = 1.0, route: tuple[str, ...] = ()) -> Entry:
    config = kind_config(TEACHERS, table, name)
    check(config, task, name)
    return Entry(name, kinds.load(TEACHERS, table["kind"]), config, share, route)


def _check_shares(named: Sequence[str], shares: Sequence[Share], run: RunFile) -> None:
    routed = [bool(share.route) for share in shares]
    if any(routed) != bool(run.data.route):
        raise UsageError("data.route: no column is named, and teachers have routes" if any(routed) else
                         f"data.route: {run.data.route!r}, and no teacher has a route",
                         'name the column in data.route, and its values in each [[teacher]], such as route = ["de"]')
    if any(routed):
        taken: dict[str, str] = {}
        for name, share, table in zip(named, shares, run.teachers, strict=True):
            if not share.route:
                raise UsageError(f"{name}.route: is missing, and other teachers have one",
                                 "give each teacher a route, or none")
            if "weight" in table:
                raise UsageError(f"{name}.weight: {share.weight:g}, and each row has one teacher: its route's",
                                 "leave the weight out, or the routes")
            for value in share.route:
                if taken.setdefault(value, name) != name:
                    raise UsageError(f"{name}.route: {value!r} is taken by {taken[value]}, too",
                                     "a row has one teacher: leave it out of one of the two")
        return
    for name, share in zip(named, shares, strict=True):
        if not share.weight:
            raise UsageError(f"{name}.weight: 0, so it teaches nothing", "leave the teacher out")


def check_rows(found: Sequence[Entry], splits: Mapping[str, Sequence[Row]], column: str) -> None:
    """DataError for a row that no route takes, or where routes cannot be followed: plain texts are joined before they
    are learned."""
    taken = {value for entry in found for value in entry.route}
    for row in (row for rows in splits.values() for row in rows if taken):
        if row.kind == "text":
            raise DataError(f"{row.where}: a plain text, which is joined with others before it is learned, so no route "
                            "finds it", "leave data.route and the routes out: the teachers are mixed then")
        if row.route not in taken:
            raise DataError(f"{row.where}: {column} is {row.route!r}, and no teacher's route takes it",
                            f"add it to one of the routes, which take: {', '.join(sorted(taken))}")
