"""What verbs take as input: rows of a run file's split or of a data file."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..models.errors import DataError, UsageError

if TYPE_CHECKING:
    from ..models.runfile import RunFile
    from ..models.task import Task
    from ..runtime.data.reader import Row
    from ..runtime.encoders.encoder import Text


def read_columns(pairs: Sequence[str]) -> dict[str, str]:
    """`ours=theirs` options as a mapping; UsageError for one without an equals sign."""
    columns = {}
    for pair in pairs:
        ours, separator, theirs = pair.partition("=")
        if not separator or not ours or not theirs:
            raise UsageError(f"--column {pair!r}: not of the form ours=theirs", "for example --column prompt=question")
        columns[ours] = theirs
    return columns


LEDGER = Path("bad-rows.jsonl")
"""Where verbs without an output folder list the rows that --skip-bad left out."""


def read_rows(path: Path, pairs: Sequence[str] = (), overrides: Sequence[str] = (), split: str = "test",
              skip_bad: bool = False) -> list[Row]:
    """The rows of a data file, or of one split of the run file `path`; as test rows every turn of a conversation."""
    from ..runtime.data.reader import load_splits, questions
    from ..runtime.data.reader import read_rows as read

    if path.suffix == ".toml":
        from ..models import runfile

        if pairs:
            raise UsageError(
                "--column: not used with a run file", "write it as [data] columns, or --set data.columns=…"
            )
        data = runfile.read(path, [*overrides, *skipping(skip_bad)]).data
        return questions(load_splits(data, path.parent, LEDGER), data.learn)[split]
    if overrides:
        raise UsageError(f"--set: {path} is no run file", "give a run file (.toml), or leave --set out")
    rows = read(path, columns=read_columns(pairs), skip_bad=skip_bad, ledger=LEDGER)
    return questions({split: rows, "test": rows}, "all")[split]


def skipping(skip_bad: bool) -> list[str]:
    """--skip-bad as an override of a run file."""
    return ["data.skip_bad=true"] if skip_bad else []


def read_texts(texts: Sequence[str], pairs: Sequence[str] = (), second: str | None = None) -> list[Text]:
    """Texts as given; `-` alone means one a line from stdin, the name of a .txt file alone one a line of it, of another
    data file its texts, pairs of texts or questions. `second` makes a pair of each; UsageError where they are pairs."""
    found = _read_texts(texts, pairs)
    if second is None:
        return found
    if not all(isinstance(text, str) for text in found):
        raise UsageError(f"--pair: {texts[0]} holds pairs of texts already", "leave it out")
    return [(str(text), second) for text in found]


def single(texts: Sequence[Text]) -> list[str]:
    """The texts; UsageError where one is a pair, for verbs that read one text at a time."""
    if not all(isinstance(text, str) for text in texts):
        raise UsageError("the file holds pairs of texts, which classifiers alone read together",
                         "give a file with one column of texts")
    return [str(text) for text in texts]


def _read_texts(texts: Sequence[str], pairs: Sequence[str]) -> list[Text]:
    path = Path(texts[0])
    if texts == ("-",):
        return _lines(sys.stdin.read(), "stdin")
    if len(texts) == 1 and path.suffix and os.path.isfile(path):  # a long text is no error here, as it is in pathlib
        if path.suffix == ".txt":
            try:
                return _lines(path.read_text(encoding="utf-8-sig"), str(path))  # a mark is no part of the first text
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: not UTF-8 at byte {error.start}: {error.reason}",
                                "save it as UTF-8") from None
        return [row.texts if row.text else row.question for row in read_rows(path, pairs)]
    return list(texts)


def _lines(text: str, name: str) -> list[Text]:
    found: list[Text] = [line for line in text.split("\n") if line.strip()]
    if not found:
        raise UsageError(f"{name}: no text", "write one text a line")
    return found


def read_run(path: Path, test: Path | None, pairs: Sequence[str], overrides: Sequence[str]) -> tuple[RunFile, Path]:
    """A run file, or one made of data files alone, and the folder its paths are relative to."""
    from ..models import runfile

    if path.suffix != ".toml":
        if overrides:
            raise UsageError(f"--set: {path} is no run file", "give a run file (.toml), or leave --set out")
        data = runfile.Data(train=str(path), test=str(test or ""), columns=read_columns(pairs), validation_share=0.0,
                            test_share=0.0)
        return runfile.RunFile(data=data), Path()
    if pairs or test:
        raise UsageError(
            "--column and --test: not used with a run file", "write them into its [data] table, or use --set"
        )
    return runfile.read(path, overrides), path.parent


def read_task(path: Path, overrides: Sequence[str] = ()) -> Task | None:
    """The task of a run file with its schema's path made whole; None for a data file."""
    if path.suffix != ".toml":
        return None
    from dataclasses import replace

    from ..models import runfile

    task = runfile.read(path, overrides).task
    return replace(task, schema=str((path.parent / task.schema).resolve())) if task.schema else task
