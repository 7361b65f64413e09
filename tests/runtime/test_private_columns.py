"""Columns that a teacher alone reads are kept apart from the first reader on."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgestill.cli import inputs
from edgestill.models import runfile
from edgestill.models.errors import DataError, UsageError
from edgestill.models.runfile import Data
from edgestill.runtime.data.checks import check_data
from edgestill.runtime.data.reader import load_splits, rows_digest

from .test_rows import jsonl

ROWS = [{"prompt": f"ask {number}", "completion": f"say {number}", "context": f"seen {number}", "more": {"a": number}}
        for number in range(3)]
NO_SHARES = {"validation_share": 0.0, "test_share": 0.0}


def test_a_private_column_stands_beside_the_row_and_nowhere_else(tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    jsonl(tmp_path / "rows.jsonl", [*ROWS, ROWS[0] | {"context": None}])
    data = Data(train="rows.jsonl", private=["context", "more"], **NO_SHARES)
    rows = load_splits(data, tmp_path)["train"]
    assert rows[1].private == (("context", "seen 1"), ("more", '{"a":1}')) and rows[3].private[0] == ("context", "")
    assert [str(message["content"]) for message in rows[1].messages] == ["ask 1", "say 1"]
    assert "columns that are not read" not in capsys.readouterr().err
    assert not check_data(data, tmp_path).failed
    without = load_splits(Data(train="rows.jsonl", **NO_SHARES), tmp_path)["train"]
    assert without[1].question == "ask 1\n\nseen 1" and without[1].private == ()
    assert rows_digest(rows) != rows_digest([*rows[:1], *rows[2:], rows[1]])


def test_the_context_of_the_teacher_is_private_for_every_verb(tmp_path: Path) -> None:
    jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "run.toml").write_text("[data]\ntrain = 'rows.jsonl'\ntest = 'rows.jsonl'\nvalidation_share = 0\n"
                                       "[teacher]\nkind = 'local'\nmodel = 'm'\ncontext = 'context'\n")
    assert runfile.read(tmp_path / "run.toml").data.private == ["context"]
    assert [row.question for row in inputs.read_rows(tmp_path / "run.toml")] == ["ask 0", "ask 1", "ask 2"]


def test_a_row_without_it_and_a_column_that_is_read_as_well_are_refused(tmp_path: Path) -> None:
    jsonl(tmp_path / "rows.jsonl", [*ROWS, {"prompt": "a", "completion": "b"}])
    with pytest.raises(DataError, match="rows.jsonl:4: the column 'context', which the teacher alone"):
        load_splits(Data(train="rows.jsonl", private=["context"], **NO_SHARES), tmp_path)
    columns = {"prompt": "prompt", "completion": "completion", "input": "context"}
    with pytest.raises(UsageError, match="data.columns.input: 'context' is a column that a teacher alone reads"):
        load_splits(Data(train="rows.jsonl", columns=columns, private=["context"], **NO_SHARES), tmp_path)
