"""The report: one file without outside references, everything escaped, charts that hold what they are given."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from edgestill.cli import main
from edgestill.cli.output import plain
from edgestill.cli.report import charts, render, svg
from edgestill.cli.report.summary import GateResult, Measure, ModelSummary, Summary, read_summary
from edgestill.models import files
from edgestill.models.errors import EdgestillError

VOID = {"meta", "br"}
HOSTILE = '<script>alert("x")</script>&\'"'


def sample(hostile: bool = False) -> Summary:
    """A summary as a run writes it, with six models; `hostile` puts markup into every text."""
    name = HOSTILE if hostile else ""
    spread = {"p50": 1.2, "p90": 1.5, "p99": 2.25, "max": 9.0}

    def quality(value: float, margin: float = 0.012) -> dict[str, Measure]:
        return {"exact_match": Measure(value, value - margin, min(1.0, value + margin), 600),
                "json_validity": Measure(min(1.0, value + 0.02), value, 1.0, 600)}

    def shipped(target: str, value: float, size: int, speed: float) -> ModelSummary:
        machine = {"processor": f"Some CPU{name}", "cores": 2}
        return ModelSummary(
            target + name,
            "shipped",
            quality(value),
            quality(value + 0.002),
            Measure(value / 0.982, 0.97, 1.005, 600),
            2_100_000,
            size,
            {
                "decode_tokens_per_s": speed,
                "ttft_ms": 8.5,
                "load_ms": 60.0,
                "prefill_tokens_per_s": 9000.0,
                "peak_rss_bytes": 74_000_000,
                "file_bytes": size,
                "threads": 2,
                "token_ms": spread,
                "machine": machine,
            },
            [
                {"name": f"kl_nats{name}", "passed": True, "value": 0.012, "limit": 0.25, "n": 10000, "detail": name},
                {
                    "name": "template",
                    "passed": None,
                    "value": None,
                    "limit": None,
                    "n": 0,
                    "detail": "not run: no template",
                },
            ],
        )

    curve = [{"step": float(step), "loss": 2.5 * math.exp(-step / 90) + 0.05, "tokens_per_s": 9000.0 + 10 * (step % 7)}
             for step in range(1, 401)]
    curve += [
        {"step": float(step), "validation_loss": 2.3 * math.exp(-step / 90) + 0.08} for step in range(40, 401, 40)
    ]
    return Summary(
        title=f"A voice assistant for the home{name}",
        task="generate",
        metric="exact_match",
        test_rows=600,
        models=[
            ModelSummary("nearest training row (TF-IDF)", "baseline", quality(0.224)),
            ModelSummary("teacher", "teacher", quality(0.982), quality(0.985), None, 6_800_000, 27_200_000),
            ModelSummary(
                "student on labels alone, float",
                "labels",
                quality(0.931),
                {},
                Measure(0.948, 0.93, 0.965, 600),
                2_100_000,
                8_400_000,
                training=curve,
            ),
            ModelSummary(
                "student, float",
                "student",
                quality(0.978),
                {},
                Measure(0.996, 0.985, 1.006, 600),
                2_100_000,
                8_400_000,
                training=curve,
            ),
            shipped("gguf:Q4_0", 0.971, 1_500_000, 3100.0),
            shipped("onnx:int8", 0.977, 2_600_000, 1500.0),
        ],
        data={
            "splits": {f"test{name}": {"rows": 600, "exact_duplicates": 0, "near_duplicates": 3, "bad_rows": 0}},
            "findings": [{"level": "warning", "split": "test", "message": f"3 pairs{name}", "examples": [f"a{name}"]}],
        },
        gates=[GateResult(f"gguf:Q4_0{name}", "exact_match", 0.971, 0.95, True)],
        stages=[{"name": f"check the data{name}", "seconds": 1.5}],
        run_file=f'[task]\nkind = "generate" {name}\n',
        made_by={"edgestill": f"0.1.0{name}", "torch": "2.13.0"},
    )


class Structure(HTMLParser):
    """Checks that tags nest, and collects them with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def parse(page: str) -> Structure:
    """The structure of a page whose tags all nest."""
    structure = Structure()
    structure.feed(page)
    structure.close()
    assert structure.open == []
    return structure


def test_the_page_is_one_file_without_outside_references() -> None:
    page = render(sample())
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page
    for tag, attributes in parse(page).tags:
        assert tag not in ("script", "link", "img", "iframe", "object", "embed")
        assert not {"src", "href", "onload", "onclick"} & set(attributes)


def test_everything_is_escaped() -> None:
    page = render(sample(hostile=True))
    assert "<script" not in page and "alert(\"x\")" not in page
    assert page.count("&lt;script&gt;") > 15
    parse(page)


def test_the_page_answers_what_was_made_and_how_good_it_is() -> None:
    page = render(sample())
    for text in (
        "Quality",
        "Size, speed and quality: up",
        "Certificates",
        "Latency and memory",
        "Training",
        "Data",
        "How it was made",
        "97.1 %",
        "nearest training row",
        "kl_nats",
        "not run",
        "3,100",
        "98.9 %",
        'name="viewport"',
        "prefers-color-scheme: dark",
    ):
        assert text in page, text
    assert page.count("<svg") == 4


def test_a_page_about_little_is_whole_too() -> None:
    bare = Summary(title="t", task="classify", metric="accuracy", models=[
        ModelSummary("student, float", "student", {"accuracy": Measure(1.0, 1.0, 1.0, 3)}, model_bytes=10)])
    structure = parse(render(bare))
    assert "svg" in [tag for tag, _ in structure.tags]
    parse(render(Summary(title="t", task="generate", metric="perplexity")))


def test_a_failed_check_stands_open_on_the_page() -> None:
    failed = ModelSummary(
        "gguf:Q4_0", "shipped", checks=[{"name": "template", "passed": False, "detail": "other text"}]
    )
    page = render(Summary(title="t", task="generate", metric="exact_match", models=[failed]))
    assert "<details open>" in page and "failed" in page and "0 of 1" in page


@pytest.mark.parametrize(("low", "high", "logarithmic", "ticks"), [
    (0.0, 1.0, False, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    (0.91, 0.99, False, [0.92, 0.94, 0.96, 0.98]),
    (1e6, 3e7, True, [1e6, 2e6, 5e6, 1e7, 2e7]),
])
def test_axes_have_round_ticks_inside(low: float, high: float, logarithmic: bool, ticks: list[float]) -> None:
    axis = svg.Axis(low, high, 0.0, 100.0, logarithmic)
    assert axis.ticks() == pytest.approx(ticks)
    assert axis.at(low) == 0.0 and axis.at(high) == 100.0 and axis.at(high * 2) == 100.0


def test_an_axis_of_one_value_and_an_impossible_one() -> None:
    assert svg.Axis(5.0, 5.0, 0.0, 100.0).at(5.0) == 50.0
    assert svg.Axis(5.0, 5.0, 0.0, 100.0, logarithmic=True).at(5.0) == pytest.approx(50.0)
    with pytest.raises(ValueError, match="begins above 0"):
        svg.Axis(0.0, 1.0, 0.0, 100.0, logarithmic=True)


def test_drawings_stay_inside_their_box() -> None:
    points = [
        charts.Point("a", "shipped", 1e6, 0.97, 0.96, 0.98, 3000.0),
        charts.Point("b", "teacher", 3e7, 0.98, 0.97, 0.99, 0.0),
    ]
    series = [charts.Series("loss", "student", [(float(i), 100.0 if i == 0 else 1 / i) for i in range(1000)])]
    for drawing in (charts.scatter(points, "bytes", "quality", "tokens/s"), charts.lines(series, "step", "loss"),
                    charts.dots([charts.Bar("a", "shipped", 1.0, 1.0, 1.0)], "quality")):
        height = float(re.search(r'viewBox="0 0 460 (\d+)"', drawing).group(1))  # type: ignore[union-attr]
        assert all(-1 <= float(x) <= 461 for x in re.findall(r' c?x[12]?="(-?[\d.]+)"', drawing))
        assert all(-1 <= float(y) <= height + 1 for y in re.findall(r' c?y[12]?="(-?[\d.]+)"', drawing))
        assert "nan" not in drawing and "inf" not in drawing
    assert charts.scatter([], "", "", "") == charts.dots([], "") == charts.lines([], "", "") == ""
    assert charts.lines([charts.Series("loss", "student", [(0.0, math.nan)])], "step", "loss") == ""
    assert len(svg.thin([(float(i), 1.0) for i in range(1000)])) <= 300


def test_report_writes_the_page_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files.write_json(tmp_path / "summary.json", plain(sample()))
    assert read_summary(tmp_path) == sample()
    assert main.call(["report", str(tmp_path), "-o", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == render(sample())
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(EdgestillError, match="no valid JSON"):
        read_summary(tmp_path)


@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it(width: int, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs chromium")
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(render(sample()), encoding="utf-8")
    subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                    f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", f"--window-size={width},3000",
                    page.as_uri()], check=True, capture_output=True, timeout=120)
    assert picture.stat().st_size > 20_000
