"""`edgestill profile --per-op`: the tables, the trace, and what does not go with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import edgestill.runtime.profiling.operators
import pytest
from edgestill.cli import main

Capture = pytest.CaptureFixture[str]
ASKED: list[tuple[Any, ...]] = []


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def operators(*asked: Any) -> dict[str, Any]:
        ASKED.append(asked)
        parts = [{"operator": "MUL_MAT", "calls": 2.0, "ms": 0.75, "share": 0.75},
                 {"operator": "ROPE", "calls": 1.0, "ms": 0.25, "share": 0.25}]
        phase = {"undisturbed_ms": 0.9, "watched_ms": 1.5, "operators": parts,
                 "parts": [{**part, "name": "blk-*"} for part in parts]}
        return {"kind": "operators", "model": "m", "scheme": "gguf:Q4_0", "threads": 2, "passes": ["prompt", "step"],
                "phases": {"prompt": phase, "step": phase},
                "spans": [[0, "ROPE", "q-0", 5, 7], [1, "ROPE", "q-0", 9, 2]]}

    ASKED.clear()
    monkeypatch.setattr(edgestill.runtime.profiling.operators, "operators", operators)


def test_operators_are_told_and_written(tmp_path: Path, capsys: Capture) -> None:
    out, traced = tmp_path / "operators.json", tmp_path / "trace.json"
    assert main.call(["profile", "m", "--per-op", "--threads", "2", "--prompt-tokens", "9", "-o", str(out), "--trace",
                      str(traced)]) == 0
    assert ASKED.pop() == (Path("m"), 9, 16, 2)
    told = capsys.readouterr().out
    assert "a step: of all layers together" in told and "blk-*" in told and "75.0 %" in told
    assert "a prompt takes 0.9 ms; while it is watched 1.5 ms, its operators 1 ms of them" in told
    assert "computes every operator apart" in told
    assert json.loads(out.read_text())["phases"]["step"]["watched_ms"] == 1.5
    assert {event["ph"] for event in json.loads(traced.read_text())["traceEvents"]} == {"M", "X"}


@pytest.mark.parametrize(("words", "told"), [
    (["--per-op", "--repeats", "3"], "--requests does not go with --per-op"),
    (["--per-op", "--gate", "ttft_ms<=1"], "--gate does not go with --per-op"),
    (["--per-op", "--threads", "1,2"], "--per-op does not go with a sweep"),
    (["--trace", "x"], "--trace does not go with a profile of one model")])
def test_what_does_not_go_with_it_is_refused(words: list[str], told: str, capsys: Capture) -> None:
    assert main.call(["profile", "m", *words]) == 2
    assert told in capsys.readouterr().err and not ASKED
