"""`edgestill compare` of saved profiles: who is faster, what nobody beats, the best that keeps the gates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgestill.cli import main
from edgestill.cli.report.summary import Measure, ModelSummary, Summary
from edgestill.models import files
from edgestill.runtime.profiling.views import view

from ..simulated_runs import run

Capture = pytest.CaptureFixture[str]
Saved = Callable[..., str]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    """Write a profile of 80 requests whose answers take `slowdown` times as long."""
    drawn = np.random.default_rng(2)

    def write(name: str, slowdown: float = 1.0, rss: float = 2e8, **more: Any) -> str:
        table = run(drawn, np.ones(80), "plain", slowdown)
        met = view(table["raw"]["requests"])
        table |= {"views": {"as_met": met, "clean": met}, "request_ms": met["request_ms"], "peak_rss_bytes": rss,
                  "ttft_ms": met["ttft_ms"]["p50"], "file_bytes": rss / 2} | more
        (tmp_path / name).write_text(json.dumps(table))
        return str(tmp_path / name)
    return write


def evaluation(path: Path, value: float, metric: str = "exact_match") -> str:
    path.write_text(json.dumps({"rows_sha256": "0" * 64, "metrics": {metric: {"value": value}}}))
    return str(path)


def test_of_two_it_says_which_is_faster_or_that_it_cannot_tell(saved: Saved, capsys: Capture) -> None:
    first, slow, same = saved("a.json"), saved("slow.json", 1.2), saved("same.json", 1.01, threads=4)
    assert main.call(["compare", first, slow]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "slow.json beside" in out and " 80 slower token_ms" in out and "nobody beats" not in out
    assert main.call(["compare", slow, first, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    ratio = next(one for one in found["ratios"][first] if one["number"] == "ttft_ms")
    assert ratio["told"] == "faster" and ratio["low"] < ratio["value"] < ratio["high"] < 0.9
    assert main.call(["compare", first, same]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "cannot tell: two runs of one model differ as much" in out and "not measured alike: threads: 2 and 4" in out


def test_of_more_it_says_what_nobody_beats_and_the_best_that_keeps_the_gates(
        saved: Saved, tmp_path: Path, capsys: Capture) -> None:
    models = [saved("big.json", 2.0, 8e8), saved("small.json", 1.0, 2e8), saved("worse.json", 1.5, 3e8)]
    told = [item for path, value in zip(models, (0.95, 0.9, 0.85), strict=True)
            for item in ("--quality", evaluation(Path(path).with_suffix(".eval.json"), value))]
    assert main.call(["compare", *models, *told, "--json"]) == 0
    front = json.loads(capsys.readouterr().out)["frontier"]
    assert [point["front"] for point in front["points"]] == [True, True, False]
    assert (front["metric"], front["best"]) == ("exact_match", models[0])
    assert front["points"][0]["p95_ms_at_most"] >= front["points"][0]["p95_ms"] > 350
    gates = ["--gate", "peak_rss_bytes<=5e8", "--gate", "exact_match>=0.88"]
    assert main.call(["compare", *models, *told, *gates]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"the best by exact_match that keeps the gates: {models[1]}" in out
    assert "peak_rss_bytes <= 5e+08: 3e+08 (60.0%) too much" in out and "exact_match>=0.88: 0.85" in out
    assert main.call(["compare", *models, *told, "--gate", "request_ms.p95<=1"]) == 3
    assert "no model keeps every gate" in capsys.readouterr().err
    assert main.call(["compare", *models]) == 0
    assert f"the lowest p95: {models[1]}" in " ".join(capsys.readouterr().out.split())


def test_a_runs_folder_stands_for_the_files_that_it_ships(saved: Saved, tmp_path: Path, capsys: Capture) -> None:
    profiles = [json.loads(Path(saved(f"{name}.json", slow)).read_text()) for name, slow in (("x", 1.0), ("y", 1.4))]
    models = [ModelSummary(name, "shipped", {"accuracy": Measure(value, value, value, 50)}, model_bytes=size,
                           profile=profile) for (name, value, size), profile in
              zip((("gguf:Q4_0", 0.9, 90), ("onnx:int8", 0.8, 160)), profiles, strict=True)]
    teacher = ModelSummary("teacher", "teacher", {"accuracy": Measure(1.0, 1.0, 1.0, 50)})
    files.write_json(tmp_path / "run" / "summary.json", asdict(
        Summary("home", "generate", "accuracy", models=[teacher, *models])))
    assert main.call(["compare", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["name"] for point in found["frontier"]["points"]] == ["gguf:Q4_0", "onnx:int8"]
    assert found["frontier"]["best"] == "gguf:Q4_0" and found["frontier"]["points"][1]["quality"] == 0.8


def test_targets_of_one_file_are_compared_with_each_other(saved: Saved, tmp_path: Path, capsys: Capture) -> None:
    profiles = {name: json.loads(Path(saved(f"{name}.json", slow)).read_text()) for name, slow in (("pi", 3.0),
                                                                                                    ("local", 1.0))}
    both = tmp_path / "both.json"
    both.write_text(json.dumps({"targets": profiles}))
    assert main.call(["compare", str(both), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["first"] == f"{both}: pi" and found["ratios"][f"{both}: local"][0]["told"] == "faster"
    assert main.call(["report", str(both), "-o", str(tmp_path / "page.html")]) == 0
    assert "both: local" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(("more", "message"), [
    (["--gate", "exact_match<=0.5"], "of exact_match higher is better"),
    (["--gate", "tftt_ms<=5"], "tftt_ms is not measured"),
    (["--quality", "one.json"], "1 evaluations of 2 profiles"),
])
def test_what_cannot_be_asked_is_refused(more: list[str], message: str, saved: Saved, tmp_path: Path,
                                         capsys: Capture) -> None:
    models = [saved("a.json"), saved("b.json")]
    good = [item for path in models for item in ("--quality", evaluation(Path(path).with_suffix(".e.json"), 0.9))]
    assert main.call(["compare", *models, *(more if more[0] == "--quality" else [*good, *more])]) == 2
    assert message in capsys.readouterr().err


def test_evaluations_and_profiles_of_different_kinds_are_refused(saved: Saved, tmp_path: Path, capsys: Capture) -> None:
    first, other = saved("a.json"), saved("b.json", kind="classify")
    assert main.call(["compare", first, other]) == 2
    assert "models that classify and generate" in capsys.readouterr().err
    second = saved("c.json")
    pair = ["--quality", evaluation(tmp_path / "e", 0.9), "--quality", evaluation(tmp_path / "f", 0.9, "perplexity")]
    assert main.call(["compare", first, second, *pair]) == 2
    assert "measured by exact_match and perplexity" in capsys.readouterr().err
    assert main.call(["compare", first, second, "--quality", first, "--quality", second]) == 2
    assert "no evaluation" in capsys.readouterr().err
    assert main.call(["compare", "x", "y", "--gate", "ttft_ms<=5"]) == 2
    assert "are of saved profiles" in capsys.readouterr().err
