"""`edgestill profile` over several combinations: what it writes and says, and what does not go with it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import edgestill.runtime.profiling.sweep
import pytest
from edgestill.cli import main

Capture = pytest.CaptureFixture[str]
ASKED: list[tuple[Any, ...]] = []


def number(value: float, bounds: bool = True) -> dict[str, Any]:
    return {"p50": value, "lower": value - 1 if bounds else None, "upper": value + 1 if bounds else None,
            "values": [value]}


def cell(threads: int, causes: dict[str, int], clean: bool = True) -> dict[str, Any]:
    numbers = {name: number(10 * threads) for name in ("ttft_ms", "decode_tokens_per_s", "tokens_per_s")}
    numbers["peak_rss_bytes"] = number(5, bounds=False)
    return {"model": "m", "threads": threads, "context": 64, "streams": 1, "rounds": 5, "causes": causes,
            "disturbed_rounds": 2 * bool(causes), "programs": {"hog (7)": 0.98} if causes else {}, "as_met": numbers,
            "clean": numbers if clean else {}}


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def sweep(*asked: Any) -> dict[str, Any]:
        ASKED.append(asked)
        return {"kind": "sweep", "models": {"m": {"task": "generate"}}, "verdict": ["m: 2 threads from now on"],
                "cells": [cell(1, {}), cell(2, {"others": 2}), cell(4, {"heat": 2}, clean=False)]}

    ASKED.clear()
    monkeypatch.setattr(edgestill.runtime.profiling.sweep, "sweep", sweep)


def test_a_sweep_is_written_as_json_and_csv_and_told(tmp_path: Path, capsys: Capture) -> None:
    out, table = tmp_path / "sweep.json", tmp_path / "sweep.csv"
    assert main.call(["profile", "m", "n", "--threads", "1,2,4", "--context", "64,256", "--streams", "1,4",
                      "--new-tokens", "8", "--repeats", "20", "-o", str(out), "--csv", str(table)]) == 0
    assert ASKED[0][:-2] == ([Path("m"), Path("n")], tmp_path / "sweep.json.rounds.jsonl", [1, 2, 4], [64, 256], [1, 4],
                             8, 2, 20)
    assert ASKED[0][-1] == ["m", "n"]
    told = capsys.readouterr().out
    assert "20 [19, 21]" in told and "2 of 5: other programs (hog (7) 0.98)" in told and "5 bytes" in told
    assert "2 threads from now on" in told
    assert "2 of 5: heat (hog (7) 0.98), so all count" in told
    assert len(json.loads(out.read_text())["cells"]) == 3
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 5 * 4 and rows[0] == {"model": "m", "threads": "1", "context": "64", "streams": "1", "view":
                                              "as_met", "number": "ttft_ms", "p50": "10", "lower": "9", "upper": "11",
                                              "rounds": "1"}


def test_one_axis_alone_is_a_sweep_over_the_prompt_that_a_profile_takes(tmp_path: Path) -> None:
    assert main.call(["profile", "m", "--threads", "1,2", "--prompt-tokens", "20", "-o", str(tmp_path / "s")]) == 0
    assert ASKED[0][2:6] == ([1, 2], [84], [1], 64)
    assert main.call(["profile", "m", "--streams", "2", "-o", str(tmp_path / "s")]) == 0
    assert ASKED[1][2:5] == ([], [192], [2])


@pytest.mark.parametrize(("words", "told"), [
    (["--threads", "1,0"], "'1,0': write numbers from 1 on"), (["--context", "x"], "'x': write numbers"),
    (["--streams", "2,2"], "a number is given twice"), (["--streams", "0"], "'0': write numbers"),
    (["--threads", "1,2"], "a sweep keeps every round as it goes"), (["m", "-o", "x"], "an artifact is given twice"),
    (["--threads", "1,2", "--gate", "ttft_ms<=1", "-o", "x"], "--gate does not go with a sweep"),
    (["--context", "9", "--prompt-tokens", "3", "-o", "x"], "--prompt-tokens does not go with a sweep"),
    (["--threads", "1,2", "--target", "http://localhost:1", "-o", "x"], "//localhost:1: cannot be swept"),
    (["--threads", "1,2", "--target", "local", "--target", "ssh://x", "-o", "x"], "one machine, and 2 are named"),
    (["--csv", "x"], "--csv does not go with a profile of one model")])
def test_what_cannot_be_swept_is_refused(words: list[str], told: str, capsys: Capture) -> None:
    assert main.call(["profile", "m", *words]) == 2
    assert told in capsys.readouterr().err and not ASKED
