"""Sweeps: rounds over all combinations, none lost or measured twice by a killed process, disturbed ones named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from edgestill.models.errors import DataError, EdgestillError, UsageError
from edgestill.runtime.machine import remembered_threads
from edgestill.runtime.profiling import child, sweep, sweep_table
from edgestill.runtime.profiling.rounds_file import RoundsFile

Run = Callable[..., dict[str, Any]]


def look(at: float, busy: float) -> dict[str, Any]:
    return {"at_s": at, "own_s": at, "busy_s": busy, "steal_s": 0.0}


def answered(job: dict[str, Any], hog: bool = False) -> dict[str, Any]:
    """What a measured process says: a token takes 10 ms with one thread, 8 with two."""
    step = 10_000_000 if job["threads"] == 1 else 8_000_000
    times = [step * (place + 2) for place in range(4)]
    one = {"end_ns": times[-1], "token_ns": times, "prefill_ns": step, "decode_ns": [step] * 3, "prompt_tokens": 4,
           "new_tokens": 4, **{f"{part}_ns": 1 for part in ("template", "tokenize", "detokenize")}}
    made = [{**one, "streams": [one] * len(asked["together"])} if "together" in asked else one
            for asked in job["requests"]]
    return {"requests": [{**request, "window": 0} for request in made], "load_ms": 5.0, "affinity": [0], "threads": 1,
            "memory": {"peak_rss_bytes": 1000}, "looks": [look(0, 0), look(1, 2.0 if hog else 1.0)]}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    asked: list[dict[str, Any]] = []

    def run(job: dict[str, Any]) -> dict[str, Any]:
        asked.append(job)
        return answered(job)

    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setattr(remembered_threads, "_file", lambda: Path("/dev/null"))
    monkeypatch.setattr(sweep_table, "allowed_cores", lambda: 2)
    return asked


def test_all_combinations_are_measured_in_rounds(packed_llama: dict[str, Path], jobs: list[dict[str, Any]],
                                                 tmp_path: Path) -> None:
    said: list[str] = []
    found = sweep.sweep([packed_llama["gguf"]], tmp_path / "rounds", (1, 2), (8, 16), (1, 3), new_tokens=4, repeats=10,
                        say=said.append)
    cells = [(job["threads"], job["context"], job["streams"]) for job in jobs]
    assert len(cells) == 8 * sweep.ROUNDS and Counter(cells).most_common()[-1][1] == sweep.ROUNDS
    rounds = [cells[start:start + 8] for start in range(0, len(cells), 8)]
    assert all(len(set(one)) == 8 for one in rounds) and len({tuple(one) for one in rounds}) == sweep.ROUNDS
    several = next(job for job in jobs if job["streams"] == 3)
    assert len(several["requests"]) == 2 and all(len(one["together"]) == 3 for one in several["requests"])
    prompts = {tuple(one["ids"]) for group in several["requests"] for one in group["together"]}
    assert len(prompts) == 6 and {len(ids) for ids in prompts} == {several["context"] - 4}
    assert [(cell["threads"], cell["context"], cell["streams"]) for cell in found["cells"]] == sorted(set(cells))
    alone = found["cells"][0]["clean"]
    assert alone["decode_tokens_per_s"] == {"p50": 100, "lower": 100, "upper": 100, "values": [100] * 5}
    assert found["cells"][1]["as_met"]["tokens_per_s"]["p50"] == pytest.approx(3 * alone["tokens_per_s"]["p50"])
    assert alone["tokens_per_s"]["p50"] == 80 and alone["ttft_ms"]["p50"] == 20
    assert found["threads"] == {str(packed_llama["gguf"]): {"chosen": 2, "per_s": {
        "1": pytest.approx(100), "2": pytest.approx(125)}}}
    assert found["verdict"] == [f"{packed_llama['gguf']}: 2 threads from now on"]
    assert len(said) == sweep.ROUNDS - 1 and "round 1 of 5: about" in said[0]


KILLED = """
import os, sys, pathlib
from unittest import mock
from edgestill.runtime.profiling import rounds_file, sweep
from tests.runtime.test_sweep import answered
place, model, lines, log = sys.argv[1:]
made, die = [], lambda: os.kill(os.getpid(), 9)
def run(job):
    made.append(1)
    if place == "measuring" and len(made) == 4: die()
    return answered(job)
write = rounds_file.RoundsFile._write
def written(self, entry):
    if place == "writing" and len(made) == 4:
        os.write(self._file.fileno(), b'{"cell": {"model": "a')
        die()
    write(self, entry)
    if "round" in entry:
        open(log, "a").write(f"{entry['round']} {entry['cell']['threads']}\\n")
    if place == "written" and len(made) == 4: die()
with mock.patch.object(sweep, "run", run), mock.patch.object(rounds_file.RoundsFile, "_write", written):
    sweep.sweep([pathlib.Path(model)], pathlib.Path(lines), (1, 2), (8,), new_tokens=4)
"""


def test_a_sweep_killed_three_times_measures_every_round_once(packed_llama: dict[str, Path], tmp_path: Path) -> None:
    lines, log = tmp_path / "rounds", tmp_path / "log"
    root = Path(__file__).parents[2]
    for place in ("measuring", "writing", "written"):
        done = subprocess.run([sys.executable, "-c", KILLED, place, str(packed_llama["gguf"]), str(lines), str(log)],
                              cwd=root, capture_output=True, text=True, check=False)
        assert done.returncode == -9, done.stderr
    kept = [json.loads(line) for line in lines.read_bytes().splitlines()[1:] if line.endswith(b"}")]
    assert len(kept) == 3 + 3 + 4 == len(log.read_text().splitlines()) == len(set(log.read_text().splitlines()))


def test_the_same_call_goes_on_and_another_is_refused(packed_llama: dict[str, Path], jobs: list[dict[str, Any]],
                                                      tmp_path: Path) -> None:
    lines, model = tmp_path / "rounds", packed_llama["gguf"]
    first = sweep.sweep([model], lines, (1,), (8,), new_tokens=4)
    whole = lines.read_bytes()
    lines.write_bytes(whole[:-9])  # the last line is torn
    said: list[str] = []
    again = sweep.sweep([model], lines, (1,), (8,), new_tokens=4, say=said.append)
    assert len(jobs) == 6 and "4 of 5 rounds are there already" in said[0] and again["cells"] == first["cells"]
    assert len(lines.read_bytes().splitlines()) == 6
    with pytest.raises(UsageError, match="was begun with other cells, new_tokens"):
        sweep.sweep([model], lines, (1,), (8,), new_tokens=3, streams=(2,))
    with RoundsFile(tmp_path / "other", {}), pytest.raises(EdgestillError, match="another process is measuring"):
        RoundsFile(tmp_path / "other", {})
    lines.write_text("no sweep\n")
    with pytest.raises(DataError, match="no sweep's"):
        sweep.sweep([model], lines, (1,), (8,), new_tokens=4)


def test_a_program_that_begins_half_way_is_named_and_left_out(packed_llama: dict[str, Path], tmp_path: Path,
                                                              jobs: list[dict[str, Any]],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    def run(job: dict[str, Any]) -> dict[str, Any]:
        jobs.append(job)
        late = len(jobs) > 6
        monkeypatch.setattr(sweep.OtherPrograms, "__enter__",  # type: ignore[attr-defined]
                            lambda self: setattr(self, "busiest", {"hog (7)": 0.98} if len(jobs) >= 6 else {}) or self)
        monkeypatch.setattr(sweep.OtherPrograms, "__exit__", lambda *given: None)  # type: ignore[attr-defined]
        found = answered(job, hog=late)
        if late:
            for request in found["requests"]:
                request["token_ns"] = [3 * time for time in request["token_ns"]]
        return found

    monkeypatch.setattr(sweep, "run", run)
    found = sweep.sweep([packed_llama["gguf"]], tmp_path / "rounds", (1, 2), (8,), new_tokens=4)
    for cell in found["cells"]:
        assert (cell["rounds"], cell["disturbed_rounds"], cell["causes"]) == (5, 2, {"others": 2})
        assert cell["programs"] == {"hog (7)": 0.98}
        assert len(cell["as_met"]["ttft_ms"]["values"]) == 5 and len(cell["clean"]["ttft_ms"]["values"]) == 3
        assert max(cell["clean"]["ttft_ms"]["values"]) < max(cell["as_met"]["ttft_ms"]["values"])
    assert "4 of 10 rounds were disturbed, by other programs (4); busy meanwhile: hog (7)" in found["verdict"][-1]


def test_threads_that_were_never_undisturbed_are_not_remembered(packed_llama: dict[str, Path], tmp_path: Path,
                                                                 jobs: list[dict[str, Any]],
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "run", lambda job: answered(job, hog=job["threads"] == 2))
    monkeypatch.setattr(sweep_table, "remember", lambda *given: pytest.fail("remembered"))
    found = sweep.sweep([packed_llama["gguf"]], tmp_path / "rounds", (1, 2), (8,), new_tokens=4)
    assert found["threads"][str(packed_llama["gguf"])]["chosen"] is None
    assert "no number of threads is remembered" in found["verdict"][0]


@pytest.mark.parametrize(("asked", "match"), [
    ({"contexts": (300,)}, "a context of 300 tokens, the model's limit is 256"),
    ({"contexts": (64,)}, "no room for a prompt and 64 new tokens")])
def test_what_cannot_be_swept_is_refused_before(asked: dict[str, Any], match: str, packed_llama: dict[str, Path],
                                               tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=match):
        sweep.sweep([packed_llama["gguf"]], tmp_path / "rounds", (1,), **asked)
    assert not (tmp_path / "rounds").exists()


def test_what_answers_one_text_at_a_time_has_no_streams(packed_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="classify answer one text at a time, not 2"):
        sweep.sweep([packed_bert], tmp_path / "rounds", (1,), (8,), (1, 2))


def test_streams_are_asked_at_the_same_time(packed_llama: dict[str, Path]) -> None:
    ids = [{"ids": [7, 8, 9 + one], "text": "a"} for one in range(2)]
    found = child.run({"path": str(packed_llama["gguf"]), "check_hashes": False, "threads": 1, "context": 32,
                       "streams": 2, "requests": [{"together": ids}] * 2, "ask": {"new_tokens": 20},
                       "serve": {"warmup": 1, "seconds": 0.0}})
    for group in found["requests"]:
        assert [one["new_tokens"] for one in group["streams"]] == [20, 20]
        assert all(len(one["token_ns"]) == 20 == len(one["decode_ns"]) + 1 for one in group["streams"])
        assert max(one["end_ns"] for one in group["streams"]) <= group["end_ns"]
        assert group["end_ns"] < sum(one["end_ns"] for one in group["streams"])
