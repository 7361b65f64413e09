"""The page: sections in the order in which a reader asks, every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..output import cell, percent, size
from ..summary import Measure, ModelSummary, Summary
from . import charts

STYLE = Path(__file__).with_name("style.css")
PROFILE_COLUMNS = {
    "file_bytes": "file_bytes", "load_ms": "load_ms", "ttft_ms": "ttft_ms", "prefill_tokens_per_s": "prefill_tokens_per_s",
    "decode_tokens_per_s": "decode_tokens_per_s", "peak_rss_bytes": "peak_rss_bytes", "threads": "threads",
}
PERCENTILES = ("p50", "p90", "p99", "max")


def render(summary: Summary) -> str:
    """The whole HTML document."""
    sections = [_quality(summary), _trade_off(summary), _certificates(summary), _profiles(summary), _training(summary),
                _data(summary), _how(summary)]
    title = escape(summary.title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{_headline(summary)}\n" + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n")


def main_speed(model: ModelSummary) -> float | None:
    """Answers' speed in tokens or texts a second, whichever the profile holds."""
    profile = model.profile
    tokens = _number(profile.get("decode_tokens_per_s"))
    latency = _number(profile.get("latency_ms"))
    return tokens if tokens is not None else 1000 / latency if latency else None


def _headline(summary: Summary) -> str:
    shipped, teacher = summary.of_role("shipped"), next(iter(summary.of_role("teacher")), None)
    cards = []
    if shipped:
        best = max(shipped, key=lambda model: _value(model.metrics.get(summary.metric)))
        smallest = min(shipped, key=lambda model: model.model_bytes or 0)
        cards.append((_share(best.metrics.get(summary.metric)), f"{_words(summary.metric)}, best shipped file ({best.name})"))
        if teacher:
            cards.append((_share(teacher.metrics.get(summary.metric)), f"{_words(summary.metric)} of the teacher"))
        cards.append((size(smallest.model_bytes), f"smallest shipped file ({smallest.name})"))
        speeds = [speed for model in shipped if (speed := main_speed(model))]
        if speeds:
            unit = "tokens/s decoding" if summary.task == "generate" else "texts/s, one at a time"
            cards.append((cell(round(max(speeds))), f"{unit}, fastest file on this machine"))
        proven = [model.certified for model in shipped]
        cards.append((f"{sum(value is True for value in proven)} of {len(proven)}", "shipped files passed their certificate"))
    if summary.gates:
        held = sum(gate.passed for gate in summary.gates)
        cards.append((f"{held} of {len(summary.gates)}", "gates of the run file hold"))
    listed = "".join(f'<div class="card"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in cards)
    lead = f"Task: {summary.task}. Measured on {summary.test_rows} held-out rows; intervals are 95 %, by resampling rows."
    return f'<p class="faint">{escape(lead)}</p><div class="cards">{listed}</div>'


def _quality(summary: Summary) -> str:
    metrics = list(dict.fromkeys(name for model in summary.models for name in model.metrics))
    metrics.sort(key=lambda name: name != summary.metric)
    with_schema = any(model.constrained for model in summary.models)
    head = ["model", *map(_words, metrics)]
    if with_schema:
        head.append(f"{_words(summary.metric)}, held to the schema")
    head += ["ratio to teacher", "parameters", "bytes"]
    rows = []
    for model in summary.models:
        row = [_key(model), *(_interval(model.metrics.get(name)) for name in metrics)]
        if with_schema:
            row.append(_interval(model.constrained.get(summary.metric)))
        rows.append([*row, _interval(model.ratio_to_teacher), escape(cell(model.parameters)), escape(cell(model.model_bytes))])
    bars = [charts.Bar(model.name, model.role, m.value, m.low, m.high)
            for model in summary.models if (m := model.metrics.get(summary.metric)) and 0 <= m.value <= 1]
    figure = _figure(charts.dots(bars, f"{_words(summary.metric)} with its 95 % interval"), "")
    return f"<h2>Quality</h2>{_table(head, rows)}" + (f'<div class="charts" style="margin-top:14px">{figure}</div>' if bars else "")


def _trade_off(summary: Summary) -> str:
    points, speed_label = [], "tokens/s" if summary.task == "generate" else "texts/s"
    for model in summary.models:
        measure = model.metrics.get(summary.metric)
        if measure and model.model_bytes and 0 <= measure.value <= 1:
            points.append(charts.Point(model.name, model.role, float(model.model_bytes), measure.value, measure.low,
                                       measure.high, main_speed(model) or 0.0))
    drawn = charts.scatter(points, "bytes of the model file", _words(summary.metric), speed_label)
    if not drawn:
        return ""
    note = f"Up and to the left is better. The area of a dot is its speed in {speed_label}; float models were not timed."
    return f'<h2>Size, speed and quality</h2><div class="charts">{_figure(drawn, note)}</div>'


def _certificates(summary: Summary) -> str:
    parts = []
    for model in summary.models:
        if not model.checks:
            continue
        rows = [[escape(str(check.get("name", ""))), _verdict(check.get("passed")), escape(cell(check.get("value"))),
                 escape(cell(check.get("limit"))), escape(cell(check.get("n"))), escape(str(check.get("detail") or ""))]
                for check in model.checks]
        table = _table(["check", "verdict", "value", "limit", "n", "detail"], rows, wide=(5,))
        opened = " open" if model.certified is not True else ""
        parts.append(f"<details{opened}><summary>{_key(model)} {_verdict(model.certified)}</summary>{table}</details>")
    if not parts:
        return ""
    return ("<h2>Certificates</h2><p class=\"faint\">Every shipped file was run in its own engine and compared with the float "
            "model: tokens, template, distributions, cached decoding and the task itself.</p>" + "".join(parts))


def _profiles(summary: Summary) -> str:
    rows, token_rows = [], []
    known = [model for model in summary.models if model.profile]
    columns = [key for key in PROFILE_COLUMNS if any(_number(model.profile.get(key)) is not None for model in known)]
    for model in known:
        rows.append([_key(model), *(escape(cell(_number(model.profile.get(key)))) for key in columns)])
        spread = model.profile.get("token_ms") or model.profile.get("latency_ms")
        if isinstance(spread, dict):
            token_rows.append([_key(model), *(escape(cell(_number(spread.get(key)))) for key in PERCENTILES)])
    if not rows:
        return ""
    unit = "one token" if summary.task == "generate" else "one text"
    spread_table = f"<h3 style=\"margin-top:14px\">Milliseconds for {unit}</h3>" + _table(["model", *PERCENTILES], token_rows)
    machine = known[0].profile.get("machine")
    facts = ", ".join(f"{key}: {value}" for key, value in machine.items() if value) if isinstance(machine, dict) else ""
    return (f"<h2>Latency and memory</h2>{_table(['model', *columns], rows)}{spread_table if token_rows else ''}"
            f'<p class="faint">{escape(facts)}</p>')


def _training(summary: Summary) -> str:
    loss, rates = [], []
    for model in summary.models:
        for key, dashed in (("loss", False), ("validation_loss", True)):
            points = [(float(line["step"]), float(line[key])) for line in model.training
                      if _number(line.get(key)) is not None and _number(line.get("step")) is not None]
            if points:
                name = f"{model.name}{', validation' if dashed else ''}"
                loss.append(charts.Series(name, model.role, points, dashed))
        speed = [(float(line["step"]), float(line["tokens_per_s"])) for line in model.training
                 if _number(line.get("tokens_per_s")) is not None and _number(line.get("step")) is not None]
        if speed:
            rates.append(charts.Series(model.name, model.role, speed))
    figures = [_figure(charts.lines(loss, "optimizer step", "loss in nats per token"), "Losses of different kinds are no contest: "
                       "distillation and labels alone do not minimise the same number."),
               _figure(charts.lines(rates, "optimizer step", "real tokens per second"), "Padding does not count.")]
    drawn = [figure for figure in figures if figure]
    return f'<h2>Training</h2><div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _data(summary: Summary) -> str:
    """The check of the rows, as runtime/row_checks.py writes it."""
    splits, findings = summary.data.get("splits") or {}, summary.data.get("findings") or []
    if not splits:
        return ""
    rows = [[escape(name), *(escape(cell(split.get(key))) for key in ("rows", "exact_duplicates", "near_duplicates", "bad_rows")),
             escape(cell(len(split.get("labels") or {}) or None))] for name, split in splits.items()]
    table = _table(["split", "rows", "exact duplicates", "near duplicates", "bad rows", "labels"], rows)
    listed = [[escape(str(item.get("split"))), escape(str(item.get("level"))), escape(str(item.get("message"))),
               escape("; ".join(item.get("examples") or []))] for item in findings]
    more = ""
    if listed:
        found = _table(["split", "level", "finding", "examples"], listed, wide=(2, 3))
        more = f"<details><summary>{len(listed)} findings in the rows</summary>{found}</details>"
    return f"<h2>Data</h2>{table}{more}"


def _how(summary: Summary) -> str:
    stages = [[escape(str(stage.get("name"))), escape(cell(_number(stage.get("seconds"))))] for stage in summary.stages]
    gates = [[escape(gate.model), escape(gate.name), escape(gate.side), escape(cell(gate.limit)), escape(cell(gate.value)),
              _verdict(gate.passed)] for gate in summary.gates]
    versions = ", ".join(f"{name} {version}" for name, version in summary.made_by.items())
    parts = ["<h2>How it was made</h2>"]
    if gates:
        parts.append(_table(["model", "gate", "side", "limit", "measured", "verdict"], gates))
    if stages:
        parts.append(f"<details><summary>Stages and their seconds</summary>{_table(['stage', 'seconds'], stages)}</details>")
    if summary.run_file:
        parts.append(f"<details><summary>The run file, every default filled in</summary><pre>{escape(summary.run_file)}</pre></details>")
    return "".join(parts) + f'<p class="faint">{escape(versions)}</p>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], wide: Sequence[int] = ()) -> str:
    """A table that scrolls sideways by itself; cells come escaped, heads do not."""
    titles = "".join(f'<th{_text_class(index)}>{escape(title)}</th>' for index, title in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{_text_class(index, index in wide)}>{value}</td>" for index, value in enumerate(row)) + "</tr>"
        for row in rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'


def _text_class(index: int, wide: bool = False) -> str:
    return ' class="text wrap"' if wide else ' class="text"' if index == 0 else ""


def _figure(drawing: str, caption: str) -> str:
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{drawing}{note}</figure>" if drawing else ""


def _key(model: ModelSummary) -> str:
    return f'<span class="key role-{escape(model.role)}"></span>{escape(model.name)}'


def _verdict(passed: bool | None) -> str:
    if passed is None:
        return '<span class="faint">not run</span>'
    return '<span class="pass">passed</span>' if passed else '<span class="fail">failed</span>'


def _interval(measure: Measure | None) -> str:
    if measure is None:
        return ""
    if max(abs(measure.value), abs(measure.high)) > 2:  # perplexity and the like are no shares
        return f'{cell(measure.value)} <span class="faint">{cell(measure.low)}–{cell(measure.high)}</span>'
    return f'{percent(measure.value)} <span class="faint">{100 * measure.low:.1f}–{100 * measure.high:.1f}</span>'


def _share(measure: Measure | None) -> str:
    return percent(measure.value) if measure else "–"


def _value(measure: Measure | None) -> float:
    return measure.value if measure else 0.0


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: Any) -> float | int | None:
    """A number, or the median of a table of percentiles; None for anything else."""
    if isinstance(value, dict):
        value = value.get("p50")
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

