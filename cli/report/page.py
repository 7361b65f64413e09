"""The page: sections in the order in which a reader asks, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from ..output import cell, is_share, percent, size
from . import charts, markup, svg
from .ranking import rank
from .summary import Measure, ModelSummary, Summary

PROFILE_COLUMNS = ("load_ms", "ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "latency_ms", "texts_per_s",
                   "peak_rss_bytes", "threads")
COUNTED = ("rows", "exact_duplicates", "near_duplicates", "bad_rows")
CURVE_POINTS = 60
"""Points of a training curve: single steps see batches of easy and of hard rows."""
PERCENTILES = ("p50", "p90", "p95", "p99", "max")


def render(summary: Summary) -> str:
    """The whole HTML document."""
    sections = [_quality(summary), _certificates(summary), _profiles(summary), _training(summary),
                _data(summary), _how(summary)]
    return markup.document(summary.title, [_headline(summary), *sections])


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
        share, main = is_share(summary.metric), summary.metric
        best = max(shipped, key=lambda model: rank(model, main))
        smallest = min(shipped, key=lambda model: model.model_bytes or 0)
        cards.append((_plain(best.metrics.get(main), share), f"{_words(main)}, best shipped file ({best.name})"))
        if teacher:
            cards.append((_plain(teacher.metrics.get(main), share), f"{_words(main)} of the teacher"))
        cards.append((size(smallest.model_bytes), f"smallest shipped file ({smallest.name})"))
        speeds = [speed for model in shipped if (speed := main_speed(model))]
        if speeds:
            unit = "tokens/s decoding" if summary.task == "generate" else "texts/s, one at a time"
            cards.append((cell(round(max(speeds))), f"{unit}, fastest file on this machine"))
        proven = [model.certified for model in shipped]
        cards.append(
            (f"{sum(value is True for value in proven)} of {len(proven)}", "shipped files passed their certificate")
        )
    if summary.gates:
        held = sum(gate.passed for gate in summary.gates)
        cards.append((f"{held} of {len(summary.gates)}", "gates of the run file hold"))
    listed = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in cards
    )
    lead = (
        f"Task: {summary.task}. Measured on {summary.test_rows} held-out rows; intervals are 95 %."
    )
    return f'<p class="faint">{escape(lead)}</p><div class="cards">{listed}</div>'


def _quality(summary: Summary) -> str:
    main = summary.metric
    others = list(dict.fromkeys(name for model in summary.models for name in model.metrics if name != main))
    held = any(model.constrained for model in summary.models)
    head = ["model", _words(main), *(["held to the schema"] if held else []), "ratio to teacher", "parameters", "size",
            *map(_words, others)]
    rows = []
    for model in summary.models:
        cells = [_key(model), _interval(model.metrics.get(main), is_share(main))]
        cells += [_interval(model.constrained.get(main), is_share(main))] if held else []
        exact = cell(model.model_bytes)
        cells += [_interval(model.ratio_to_teacher), escape(cell(model.parameters)),
                  f'<span title="{exact}">{size(model.model_bytes)}</span>']
        rows.append([*cells, *(_bare(model.metrics.get(name), is_share(name)) for name in others)])
    note = "Small figures are 95 % intervals. The size of a float model is that of its parameters in float32."
    if held:
        note += f" Held to the schema: the same {_words(main)} with decoding constrained to the task's JSON schema."
    return f'<h2>Quality</h2>{markup.table(head, rows)}<p class="faint">{escape(note)}</p>{_trade_off(summary)}'


def _trade_off(summary: Summary) -> str:
    """The same numbers as pictures: quality with intervals, and quality by size with speed as area.

    Perplexity and the like have no place on their axes, which are shares.
    """
    if not is_share(summary.metric):
        return ""
    bars, points, speed_label = [], [], "tokens/s" if summary.task == "generate" else "texts/s"
    for model in summary.models:
        measure = model.metrics.get(summary.metric)
        if measure is None or math.isnan(measure.value):
            continue
        bars.append(charts.Bar(model.name, model.role, measure.value, measure.low, measure.high))
        if model.model_bytes:
            points.append(charts.Point(model.name, model.role, float(model.model_bytes), measure.value, measure.low,
                                       measure.high, main_speed(model) or 0.0))
    quality = markup.figure(charts.dots(bars, _words(summary.metric)), "Lines are 95 % intervals.")
    trade = markup.figure(charts.scatter(points, "bytes of the model file", _words(summary.metric), speed_label),
                    f"Size, speed and quality: up and to the left is better, and the area of a dot is its speed in "
                    f"{speed_label}. Float models were not timed.")
    return f'<div class="charts">{quality}{trade}</div>' if quality or trade else ""


def _certificates(summary: Summary) -> str:
    parts = []
    for model in summary.models:
        if not model.checks:
            continue
        rows = [[escape(str(check.get("name", ""))), _verdict(check.get("passed")), escape(cell(check.get("value"))),
                 escape(cell(check.get("limit"))), escape(cell(check.get("n"))), escape(str(check.get("detail") or ""))]
                for check in model.checks]
        table = markup.table(["check", "verdict", "value", "limit", "n", "detail"], rows, wide=(5,))
        opened = " open" if model.certified is not True else ""
        parts.append(f"<details{opened}><summary>{_key(model)} {_verdict(model.certified)}</summary>"
                     f"<p>{escape(model.grade_told)}</p>{table}</details>")
    if not parts:
        return ""
    return (
        '<h2>Certificates</h2><p class="faint">Every shipped file was run in its own engine and compared with the '
        "float model: tokens, template, distributions, cached decoding and the task itself.</p>" + "".join(parts)
    )


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
    spread_table = f"<h3>Milliseconds for {unit}</h3>{markup.table(['model', *PERCENTILES], token_rows)}"
    facts = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in _scalars(known[0].profile.get("machine")))
    saved = "".join(f"<p>{escape(model.saved_told)}</p>" for model in known if model.saved)
    table = markup.table(["model", *columns], rows)
    return (f"<h2>Latency and memory</h2>{saved}{table}{spread_table if token_rows else ''}"
            f'<p class="faint">{escape(facts)}</p>')


def _training(summary: Summary) -> str:
    loss, rates = [], []
    for model in summary.models:
        curves = {key: _curve(model.training, key) for key in ("loss", "validation_loss", "tokens_per_s")}
        loss.append(charts.Series(model.name, model.role, svg.thin(curves["loss"], CURVE_POINTS)))
        loss.append(charts.Series(f"{model.name}, validation", model.role, curves["validation_loss"], dashed=True))
        rates.append(charts.Series(model.name, model.role, svg.thin(curves["tokens_per_s"], CURVE_POINTS)))
    figures = [
        markup.figure(
            charts.lines(loss, "optimizer step", "loss in nats per token"),
            "Every point is the mean of neighbouring steps. Losses of different kinds are no contest: distillation and "
            "labels alone do not minimise the same number.",
        ),
        markup.figure(charts.lines(rates, "optimizer step", "real tokens per second"), "Padding does not count."),
    ]
    drawn = [figure for figure in figures if figure]
    return f'<h2>Training</h2><div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _curve(lines: Sequence[dict[str, float]], key: str) -> list[tuple[float, float]]:
    return [(line["step"], line[key]) for line in lines if key in line and "step" in line]


def _data(summary: Summary) -> str:
    """The check of the rows, as runtime/data/checks.py writes it."""
    splits, findings = summary.data.get("splits") or {}, summary.data.get("findings") or []
    if not splits:
        return ""
    rows = [[escape(name), *(escape(cell(split.get(key))) for key in COUNTED),
             escape(cell(len(split.get("labels") or {}) or None))] for name, split in splits.items()]
    table = markup.table(["split", "rows", "exact duplicates", "near duplicates", "bad rows", "labels"], rows)
    listed = [[escape(str(item.get("split"))), escape(str(item.get("level"))), escape(str(item.get("message"))),
               escape("; ".join(item.get("examples") or []))] for item in findings]
    more = ""
    if listed:
        found = markup.table(["split", "level", "finding", "examples"], listed, wide=(2, 3))
        more = markup.folded(f"Findings in the rows: {len(listed)}", found)
    return f"<h2>Data</h2>{table}{more}"


def _how(summary: Summary) -> str:
    stages = [[escape(str(stage.get("name"))), escape(cell(_number(stage.get("seconds"))))] for stage in summary.stages]
    gates = [
        [
            escape(gate.model),
            escape(gate.name),
            escape(gate.side),
            escape(cell(gate.limit)),
            escape(gate.reason or cell(gate.value)),
            _verdict(gate.passed),
        ]
        for gate in summary.gates
    ]
    versions = ", ".join(f"{name} {version}" for name, version in summary.made_by.items())
    parts = ["<h2>How it was made</h2>"]
    if gates:
        parts.append(markup.table(["model", "gate", "side", "limit", "measured", "verdict"], gates))
    if stages:
        parts.append(markup.folded("Stages and their seconds", markup.table(["stage", "seconds"], stages)))
    if summary.run_file:
        parts.append(markup.folded("The run file, every default filled in", f"<pre>{escape(summary.run_file)}</pre>"))
    return "".join(parts) + f'<p class="faint">{escape(versions)}</p>'


def _key(model: ModelSummary) -> str:
    return f'<span class="key role-{escape(model.role)}"></span>{escape(model.name)}'


def _verdict(passed: bool | None) -> str:
    if passed is None:
        return '<span class="faint">not run</span>'
    return '<span class="pass">passed</span>' if passed else '<span class="fail">failed</span>'


def _interval(measure: Measure | None, share: bool = True) -> str:
    if measure is None:
        return ""
    if not share:
        return f'{cell(measure.value)} <span class="faint">{cell(measure.low)}–{cell(measure.high)}</span>'
    return f'{percent(measure.value)} <span class="faint">{100 * measure.low:.1f}–{100 * measure.high:.1f}</span>'


def _bare(measure: Measure | None, share: bool) -> str:
    """A value whose interval shows when one points at it."""
    if measure is None:
        return ""
    text = percent(measure.value) if share else cell(measure.value)
    return f'<span title="{cell(measure.low)} to {cell(measure.high)}">{text}</span>'


def _plain(measure: Measure | None, share: bool) -> str:
    if measure is None:
        return "–"
    return percent(measure.value) if share else cell(measure.value)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: Any) -> float | int | None:
    """A number, or the median of a table of percentiles; None for anything else."""
    if isinstance(value, dict):
        value = value.get("p50")
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _scalars(table: Any) -> list[tuple[str, Any]]:
    """The plain values of a table, and lists of numbers in few digits."""
    found = []
    for key, value in sorted(table.items()) if isinstance(table, dict) else []:
        if isinstance(value, list):
            value = " ".join(cell(item) for item in value)
        if value and not isinstance(value, dict):
            found.append((str(key), value))
    return found
