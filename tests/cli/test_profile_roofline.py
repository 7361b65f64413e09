"""`edgestill profile --roofline`: what it adds to a profile, and where it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main
from edgestill.cli.commands import profile_targets
from edgestill.models.errors import UsageError
from edgestill.runtime.profiling import machine_rates, model_shape
from edgestill.runtime.profiling.targets import local

from ..runtime.test_roofline import RATES, SHAPE, VARIANT, profile

Capture = pytest.CaptureFixture[str]
MEASURED: list[Any] = []


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(place: str, asked: Any, say: Any) -> dict[str, Any]:
        MEASURED.append(asked)
        return {**profile(600.0, 13.0), "threads": 2, "raw": {"per_s_by_threads": {}}, "verdict": ["all was well"],
                "sustained": None}

    def rates(threads: int, seconds: float) -> Any:
        MEASURED.append((threads, seconds))
        return RATES

    def shape(path: Path) -> Any:
        if path.name == "unpacked":
            return SHAPE, None
        if path.name == "encoder":
            raise UsageError("the bert family is an encoder")
        return SHAPE, VARIANT

    MEASURED.clear()
    monkeypatch.setattr(local, "profile", measured)
    monkeypatch.setattr(machine_rates, "measure_rates", rates)
    monkeypatch.setattr(model_shape, "read", shape)
    monkeypatch.setattr(profile_targets, "task", lambda path: pytest.fail("the model is not opened"))


def test_the_machine_is_measured_after_the_model_and_the_verdict_says_more(tmp_path: Path, monkeypatch: Any,
                                                                         capsys: Capture) -> None:
    monkeypatch.setattr(profile_targets, "task", lambda path: "generate")
    out = tmp_path / "profile.json"
    assert main.call(["profile", "m", "--roofline", "--json", "-o", str(out)]) == 0
    assert MEASURED[1] == (2, 20.0)
    found = json.loads(out.read_text())
    assert found["roofline"]["decode"]["held_by"] == "weights" and found["verdict"][0] == "all was well"
    assert "fewer bits or a smaller model would help" in found["verdict"][2]
    assert "what this machine can do" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "told"), [
    (["unpacked"], "unpacked: is not packed"), (["encoder"], "is an encoder"),
    (["m", "--target", "http://localhost:1"], "--roofline is of models on this machine"),
    (["m", "--per-op"], "--roofline does not go with --per-op"),
    (["m", "--rate", "5"], "--roofline does not go with --rate"),
    (["m", "--threads", "1,2", "-o", "x"], "--roofline does not go with a sweep")])
def test_where_it_is_refused_nothing_is_measured(words: list[str], told: str, capsys: Capture) -> None:
    assert main.call(["profile", *words, "--roofline"]) == 2
    assert told in capsys.readouterr().err and not MEASURED
