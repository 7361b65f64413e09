"""The one reader of rows: training, calibration and evaluation all read through here.

Rows come from JSON lines, JSON, CSV, TSV, plain text (each also as .gz or .zst), Parquet, a folder written by
`datasets`, or a data set on the hub. A bad row stops reading with its file, line, reason and remedy, unless
`skip_bad` leaves it out and lists it in a ledger.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...models import files
from ...models.errors import DataError, UsageError
from ...models.runfile import Data
from . import arrays, formats, tables
from .builders import BESIDE
from .faults import BadRow, RowFault
from .file_kinds import refuse_special
from .messages import Message
from .private import parted
from .shapes import Row, Shaper
from .targets import one_answer

__all__ = ["Message", "Row", "load_splits", "locate", "normalise", "questions", "read_rows", "records", "row_key",
           "rows_digest", "scan", "split_rows", "write_ledger"]

SPLITS = ("train", "validation", "test")
TARGETS = ("labels", "score")
"""Kinds of rows whose target is neither a text nor one label."""
_NO_COLUMNS: Mapping[str, str] = MappingProxyType({})


def read_rows(path: Path | str, columns: Mapping[str, str] = _NO_COLUMNS, skip_bad: bool = False,
              ledger: Path | None = None) -> list[Row]:
    """All rows of a file, folder or hub data set ("owner/name", "owner/name:split").

    `columns` maps our names (shapes.OUR_COLUMNS) to the file's; an empty name leaves a column out. With `skip_bad`
    the bad rows are left out and written to `ledger`, one JSON object {file, line, reason, remedy} a line.
    Raises DataError for the first bad row otherwise, for a file that cannot be read, and when no row is left;
    UsageError for an unknown key in `columns`; MissingExtra where a format needs a package.
    """
    unseen = optional(columns)
    rows, bad = _collect(path, columns, skip_bad, unseen)
    check_seen(columns, unseen)
    if skip_bad:
        write_ledger(bad, ledger)
    return rows


def scan(path: Path | str, columns: Mapping[str, str] = _NO_COLUMNS, unread: dict[str, None] | None = None,
         unseen: set[str] | None = None, route: str = "", private: Sequence[str] = ()) -> Iterator[Row | BadRow]:
    """Stream the rows of `path`, with a BadRow in place of each that cannot be used; `unread` takes the columns from
    which nothing was read, and from `unseen` (see `optional`) those that a row has are taken. `route` is that of
    [data]; `private` columns are kept apart, in Row.private.

    Raises DataError for what spoils the whole file: missing, wrong kind, damaged, a byte order mark, open quotes;
    UsageError for a private column that is to be read as another one.
    """
    named = {**{f"columns.{ours}": theirs for ours, theirs in columns.items()}, "route": route}
    ours = next((ours for ours, theirs in named.items() if theirs in private), None)
    if ours is not None:
        raise UsageError(f"data.{ours}: {named[ours]!r} is a column that a teacher alone reads",
                         "leave it out there, or out of teacher.context and data.private")
    shaper = Shaper(columns, {} if unread is None else unread, set() if unseen is None else unseen, route)
    name = str(path)
    short = Path(name).name
    for line, record in records(name):
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            rest, told = parted(record, private)
            row = shaper.row(rest, f"{short}:{line}")
            yield replace(row, private=tuple(told.items())) if told else row
        except RowFault as fault:
            yield BadRow(name, line, fault.reason, fault.remedy)


def optional(columns: Mapping[str, str]) -> set[str]:
    """Our names in a mapping whose columns need not stand in every row."""
    return {key for key, name in columns.items() if name and key in BESIDE}


def check_seen(columns: Mapping[str, str], unseen: set[str]) -> None:
    """UsageError for a mapped column that stood in no row of any file."""
    if unseen:
        key = min(unseen)
        raise UsageError(f"data.columns.{key}: no row has the column {columns[key]!r}",
                         "correct the name, or leave it out of data.columns")


def write_ledger(bad: Sequence[BadRow], ledger: Path | None) -> None:
    """List the rows that were left out in `ledger`, where one is given, and say on stderr how many there are."""
    if ledger is not None and (bad or ledger.exists()):  # an older list would tell of rows that are good now
        lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in bad]
        files.write_text(ledger, "".join(lines))
    if bad:
        first, listed = bad[0], f", all in {ledger}" if ledger else ""
        sys.stderr.write(f"{len(bad)} bad rows left out{listed}; the first is {first.file}:{first.line}: "
                         f"{first.reason}\n")


def normalise(text: str) -> str:
    """The text by which two rows count as the same: Unicode NFKC, case and runs of blanks folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def row_key(row: Row) -> str:
    """The normalised input of a row (the whole conversation before the answer), equal for duplicates."""
    return normalise(" ".join(str(message["content"]) for message in row.prompt_messages) or f"{row.text} {row.pair}")


def split_rows(rows: Sequence[Row], validation_share: float, test_share: float, seed: int = 0) -> dict[str, list[Row]]:
    """Split rows into train, validation and test; rows with the same normalised input stay together.

    Groups are taken in the order of SHA-256(seed, input), whatever their order in the file. A share above 0 gets
    at least one group, and training keeps at least one group of every label.
    Raises DataError when there are too few groups for that.
    """
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row_key(row), []).append(index)
    labels = {key: {name for index in indices for name in rows[index].named} for key, indices in groups.items()}
    left = Counter(label for found in labels.values() for label in found)
    chosen: dict[str, list[int]] = {name: [] for name in SPLITS}
    wanted = [(name, max(1, round(share * len(rows))))
              for name, share in (("test", test_share), ("validation", validation_share)) if share > 0]
    for key in sorted(groups, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest()):
        if wanted and all(left[label] > 1 for label in labels[key]):
            name, size = wanted[0]
            chosen[name] += groups[key]
            left.subtract(labels[key])
            if len(chosen[name]) >= size:
                wanted.pop(0)
        else:
            chosen["train"] += groups[key]
    if not chosen["train"] or any(not chosen[name] for name, _ in wanted):
        raise DataError(f"{len(rows)} rows with {len(groups)} different inputs are too few to split",
                        "give more rows, files of their own for validation and test, or smaller shares")
    return {name: [rows[index] for index in sorted(indices)] for name, indices in chosen.items()}


def load_splits(data: Data, base: Path, ledger: Path | None = None) -> dict[str, list[Row]]:
    """The rows of a run file's [data] table as {"train", "validation", "test"}; `base` is the run file's folder.

    A split without a file of its own is a share of the training rows. `ledger` takes the bad rows of all files
    when `data.skip_bad` is set. Raises DataError for bad rows, for splits of different kinds, for training
    rows with a single label and for labels that no training row has; UsageError without `data.train`.
    """
    if not data.train:
        raise UsageError("data.train: is required and was not given", "name the file of training rows")
    splits: dict[str, list[Row]] = {}
    bad: list[BadRow] = []
    unseen = optional(data.columns)
    for name in SPLITS:
        if getattr(data, name):
            source = locate(getattr(data, name), base / data.dir)
            splits[name], faults = _collect(source, data.columns, data.skip_bad, unseen, data.route, data.private)
            bad += faults
    check_seen(data.columns, unseen)
    if data.skip_bad:
        write_ledger(bad, ledger)
    shares = {"validation": 0.0 if data.validation else data.validation_share,
              "test": 0.0 if data.test else data.test_share}
    parts = split_rows(splits["train"], shares["validation"], shares["test"])
    result = {name: splits[name] if getattr(data, name) and name != "train" else parts[name] for name in SPLITS}
    _check_splits(data, result)
    return result


def locate(name: str, folder: Path) -> str:
    """The path of a data source below `folder`, or `name` itself where only the hub can be meant."""
    bare, split = tables.split_name(name)
    path = folder / name
    if path.exists() or (folder / bare).exists():
        return str(path)
    hub = tables.is_hub_name(bare) and not (folder / bare).parent.exists() and not _suffix(Path(bare))
    return name if hub else str(path)


def rows_digest(rows: Sequence[Row]) -> str:
    """SHA-256 of what the rows say, in their order, in hex; where they were read from does not count."""
    digest = hashlib.sha256()
    more = [item for item in fields(Row) if item.name not in ("messages", "tools", "text", "label", "where")]
    for row in rows:
        content: list[Any] = [row.messages, row.tools, row.text, row.label]
        content += [[item.name, value] for item in more if (value := getattr(row, item.name)) != item.default]
        digest.update(json.dumps(content, sort_keys=True, ensure_ascii=False).encode("utf-8") + b"\n")
    return digest.hexdigest()


def _collect(path: Path | str, columns: Mapping[str, str], skip_bad: bool, unseen: set[str], route: str = "",
             private: Sequence[str] = ()) -> tuple[list[Row], list[BadRow]]:
    rows: list[Row] = []
    bad: list[BadRow] = []
    unread: dict[str, None] = {}
    for row in scan(path, columns, unread, unseen, route, private):
        if isinstance(row, Row):
            rows.append(row)
        elif skip_bad:
            bad.append(row)
        else:
            raise row.error()
    if not rows and bad:
        raise DataError(f"{path}: all {len(bad)} rows are bad; line {bad[0].line}: {bad[0].reason}", bad[0].remedy)
    if not rows:
        raise DataError(f"{path}: the file is empty: there are no rows in it", "give a file with at least one row")
    if unread:
        sys.stderr.write(f"{path}: columns that are not read: {', '.join(unread)}\n")
    return rows, bad


def records(name: str) -> Iterator[tuple[int, formats.Record]]:
    """Stream (line or number, record) of any file, folder or hub data set; errors as of `scan`."""
    path = Path(name)
    bare, split = tables.split_name(name)
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return tables.read_parquet(path)
        if formats.format_of(path) == ".json":
            return arrays.read_json(path)
        if formats.format_of(path):
            return formats.read_records(path)
        raise DataError(f"{path}: {path.suffix or 'a name without a suffix'!r} is not a format known here",
                        f"known: {', '.join((*formats.SUFFIXES, '.parquet'))}, the text ones also as .gz and .zst")
    if path.is_dir():
        return tables.read_dataset(name, "")
    if Path(bare).is_dir() or (tables.is_hub_name(bare) and not _suffix(Path(bare))):
        return tables.read_dataset(bare, split)
    refuse_special(path)
    raise DataError(f"{path}: no such file or folder", "check the path; a data set on the hub is written owner/name")


def _suffix(path: Path) -> str:
    return ".parquet" if path.suffix.lower() == ".parquet" else formats.format_of(path)


def questions(splits: Mapping[str, Sequence[Row]], learn: str) -> dict[str, list[Row]]:
    """The splits with a test row for every turn that is learned of a conversation, as [data] learn says."""
    asked = [question for row in splits["test"] for question in row.questions] if learn == "all" else splits["test"]
    return {**{name: list(rows) for name, rows in splits.items()}, "test": list(asked)}


def _check_splits(data: Data, splits: Mapping[str, Sequence[Row]]) -> None:
    kind = splits["train"][0].kind
    labels = sorted({name for row in splits["train"] for name in row.named})
    alike = one_answer(splits["train"])
    if alike:
        raise DataError(f"{data.train}: every training row has the same label, {alike}",
                        "a classifier needs rows of at least two labels")
    for name in ("validation", "test"):
        for row in splits[name]:
            if row.kind != kind:
                raise DataError(f"{row.where}: mixed schemas: a {row.kind} row, the training rows are {kind} rows",
                                "give all splits the same columns")
            other = next((name for name in row.named if name not in labels), None)
            if other is not None:
                near = difflib.get_close_matches(other, labels, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise DataError(f"{row.where}: no training row has the label {other!r}",
                                f"{hint}correct the label, or add training rows that have it")
