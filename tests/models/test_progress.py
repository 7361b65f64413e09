"""Where long work stands: a line a minute, the time left, and nothing when nobody looks."""

from __future__ import annotations

import threading
import time

import pytest
from edgestill.models import progress
from edgestill.models.progress import Status


@pytest.fixture(autouse=True)
def nothing_goes_on() -> None:
    progress.forget()


def test_the_time_left_follows_from_the_pace_since_the_task_began() -> None:
    status = Status("tune", done=30, total=90, text="loss 1.2", started=100.0, start=10)
    assert status.seconds_left(now=140.0) == pytest.approx(60 * 40 / 20)
    assert status.line(now=140.0) == "tune: 30 of 90, loss 1.2, 40 s so far, about 2 min left"
    assert Status("tune", 10, 90, "", 100.0, 10).seconds_left(140.0) is None, "nothing is done yet"
    assert Status("load", 0, 0, "", 100.0, 0).line(now=100.0 + 7500) == "load: 2 h 5 min so far"


def test_another_task_and_a_smaller_count_begin_anew() -> None:
    progress.at("tune", 5, 10)
    first = progress.status()
    progress.at("tune", 6, 10)
    second = progress.status()
    assert first is not None and second is not None
    assert (second.started, second.start) == (first.started, 5)
    for task, done in (("tune", 2), ("export", 2)):
        progress.at(task, done, 10)
        found = progress.status()
        assert found is not None and found.start == done


def test_lines_are_told_while_the_block_runs_and_no_longer() -> None:
    lines: list[str] = []
    enough = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        enough.set()

    with progress.told(say, every=0.005):
        progress.at("tune", 1, 2)
        with progress.told(lambda line: pytest.fail("told twice"), every=0.001):
            assert enough.wait(10)
    assert lines[0].startswith("tune: 1 of 2")
    assert progress.status() is None
    count = len(lines)
    time.sleep(0.02)
    assert len(lines) == count


def test_a_failure_inside_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError, match="broken"), progress.told(lambda line: None):
        raise ValueError("broken")
    with progress.told(lambda line: None, every=0.001):  # would be refused were the first one not given back
        progress.at("next")
        assert progress.status() is not None
