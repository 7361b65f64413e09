"""The page about profiles: one file, every text escaped, numbers where they belong; CSV; sparklines."""

from __future__ import annotations

import csv
import io
import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from edgestill.cli import main, sparkline
from edgestill.cli.report import profile_charts, profile_page
from edgestill.cli.report.profile_charts import Model, Panel, Times

from ..simulated_runs import device, sweep
from .test_report import HOSTILE, parse

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def profiles() -> dict[str, dict[str, Any]]:
    return {"pi": device(1, 14.0, 70), "desktop": device(2, 4.0, 70, hot=False)}


@pytest.fixture
def saved(profiles: dict[str, dict[str, Any]], tmp_path: Path) -> list[str]:
    """JSON files of two profiles and a sweep."""
    for name, table in (profiles | {"sweep": sweep()}).items():
        (tmp_path / f"{name}.json").write_text(json.dumps(table))
    return [str(tmp_path / f"{name}.json") for name in ("pi", "desktop", "sweep")]


def test_several_devices_and_a_sweep_stand_on_one_page(saved: list[str], tmp_path: Path, capsys: Capture) -> None:
    assert main.call(["report", *saved, "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    parse(page)
    for heading in ("Measured", "How long it takes", "Beside each other", "Over time", "Sweep sweep", "Machines"):
        assert f"<h2>{heading}</h2>" in page
    assert "disturbed by clock, others" in page and page.count('class="disturbed"') == 12 * 4, "in every strip"
    assert "°C of the hottest sensor" in page and "cores that others used" in page and "MHz" in page
    assert "140 requests, 12 of them disturbed" in page and "http" not in page and "<script" not in page
    assert page.count('class="cell') == 11 and page.count('class="cell most"') == 1


def test_every_text_is_escaped(profiles: dict[str, dict[str, Any]]) -> None:
    hostile = deepcopy(profiles["pi"]) | {"verdict": [HOSTILE], "machine": {HOSTILE: HOSTILE, "list": [HOSTILE]}}
    for one in hostile["raw"]["requests"]:
        one["disturbed"] = [HOSTILE]
    odd = sweep()
    for one in odd["cells"]:
        one["model"] = HOSTILE
    front = {"metric": HOSTILE, "gates": [], "best": HOSTILE, "points": [
        {"name": HOSTILE, "p95_ms": float(ms), "quality": ms / 9, "file_bytes": 1.0, "front": True} for ms in (1, 2)]}
    odd["verdict"] = [HOSTILE]
    page = profile_page.render(HOSTILE, {HOSTILE: hostile}, {HOSTILE: odd}, {"frontier": front})
    parse(page)
    assert "<script" not in page and page.count("&lt;script") > 10


def test_a_curve_ends_where_the_values_do_and_marks_the_p95_and_its_bound() -> None:
    drawn = profile_charts.cumulative([Times("a", [float(one) for one in range(1, 101)], 99.0)], "ms")
    assert "a: half 51 ms, 95 % 95 ms, surely 99 ms" in drawn and "a: p95 95 ms" in drawn
    curve = [tuple(map(float, pair.split(","))) for pair in
             (re.search(r'class="curve" points="([^"]+)"', drawn) or [""])[1].split()]
    assert [y for _, y in curve] == sorted((y for _, y in curve), reverse=True), "a share never falls"
    (x,) = (float(found) for found in re.findall(r'cx="([\d.]+)"', drawn))
    ends = [float(found) for found in re.findall(r'class="whisker" x1="[\d.]+" y1="[\d.]+" x2="([\d.]+)"', drawn)]
    assert curve[0][0] < x < ends[0] <= curve[-1][0] + 1
    assert "surely" not in profile_charts.cumulative([Times("a", [1.0, 2.0])], "ms")
    assert profile_charts.cumulative([Times("a", [])], "ms") == ""


def test_a_timeline_has_a_strip_for_what_is_known_alone() -> None:
    line = [(0.0, 10.0), (5.0, 20.0), (10.0, 10.0)]
    drawn = profile_charts.timeline([Panel("ms", line, [(0.0, 9.0, 11.0), (10.0, 9.0, 11.0)]), Panel("°C", [])],
                                    [(2.0, 4.0)], 10.0)
    assert drawn.count('class="disturbed"') == 1 and "°C" not in drawn and 'class="band"' in drawn
    assert profile_charts.timeline([Panel("ms", [])], [], 10.0) == ""


def test_the_front_is_joined_and_the_beaten_are_pale() -> None:
    models = [Model("fast", 10.0, 0.8, 5e7, True, 0), Model("exact", 40.0, 0.9, 1e8, True, 1),
              Model("beaten", 50.0, 0.7, 1e8, False, 2)]
    drawn = profile_charts.frontier(models, "p95, ms", "accuracy", True)
    assert drawn.count("beaten") == 3 and "up and to the left is better" in drawn, "class, title and name"
    joined = (re.search(r'class="frontier" points="([^"]+)"', drawn) or [""])[1].split()
    assert len(joined) == 2 and float(joined[0].split(",")[0]) < float(joined[1].split(",")[0])
    assert profile_charts.frontier(models[:1], "ms", "accuracy", True) == ""


def test_a_run_stands_below_its_machines_roof(profiles: dict[str, dict[str, Any]]) -> None:
    roof = {"read_bytes_per_s": 1e10, "multiply_adds_per_s": 1e11, "words": [],
            "prefill": {"achieved_ms": 40.0, "roof_ms": 20.0, "multiply_adds": 2e9, "bytes": 1e8},
            "decode": {"achieved_ms": 20.0, "roof_ms": 10.0, "multiply_adds": 1e8, "bytes": 1e8}}
    page = profile_page.render("x", {"pi": profiles["pi"] | {"roofline": roof}, "desktop": profiles["desktop"]}, {})
    parse(page)
    assert page.count("50 % of the roof") == 4 and page.count("What this machine allows") == 1, "title and name of each"
    drawn = profile_charts.roofline([profile_charts.Work("step", 1.0, 5e9)], 1e10, 1e11)
    (ends,) = re.findall(r'class="whisker" x1="[\d.]+" y1="([\d.]+)" x2="[\d.]+" y2="([\d.]+)"', drawn)
    assert float(ends[1]) < float(ends[0]), "the roof lies above"
    assert profile_charts.roofline([], 1e10, 1e11) == ""


def test_names_are_cut_at_their_beginning() -> None:
    assert profile_charts.short("gguf-Q4_0") == "gguf-Q4_0"
    assert profile_charts.short("out/home/packed/gguf-Q4_0") == "…/packed/gguf-Q4_0"


def test_requests_are_written_as_csv(saved: list[str], profiles: dict[str, dict[str, Any]], tmp_path: Path,
                                     capsys: Capture) -> None:
    out = tmp_path / "requests.csv"
    assert main.call(["report", *saved, "-o", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(out)
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == 140 and {row["run"] for row in rows} == {"pi", "desktop"}
    first = profiles["pi"]["raw"]["requests"][0]
    assert float(rows[0]["whole_ms"]) == first["end_ns"] / 1e6 and float(rows[0]["start_s"]) == 0
    assert float(rows[0]["token_ms"]) == pytest.approx(
        (first["token_ns"][-1] - first["token_ns"][0]) / 23e6) and rows[31]["disturbed"] == "others clock"


@pytest.mark.parametrize(("items", "out", "message"), [
    (["pi.json"], None, "a file of their own"), (["pi.json"], "page.pdf", "a file of their own"),
    (["other.json"], "page.html", "no profile and no sweep"), (["sweep.json"], "page.csv", "sweeps alone"),
    (["one", "two"], "page.html", "2 folders")])
def test_what_no_page_can_be_made_of_is_refused(items: list[str], out: str | None, message: str, saved: list[str],
                                                tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "other.json").write_text("{}")
    told = ["-o", str(tmp_path / out)] if out else []
    assert main.call(["report", *(str(tmp_path / item) for item in items), *told]) == 2
    assert message in capsys.readouterr().err


def test_a_sparkline_goes_from_the_least_to_the_most() -> None:
    assert sparkline.sparkline([1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇█"
    assert sparkline.sparkline([0.0] * 50 + [9.0] * 50, 4) == "▁▁██" and sparkline.sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline.sparkline([1.0]) == ""
