"""A page about profiles and sweeps of one or several models or devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ..output import cell, size
from . import markup, profile_charts
from .profile_charts import Model, Panel, Times, role

Table = Mapping[str, Any]
_BUCKETS = 100
"""Of a timeline."""
_TIMELINES = 4
"""Runs whose course is drawn; the others' is in their files."""
_NUMBERS = {"ttft_ms": "first token, ms", "request_ms": "whole answer, ms", "latency_ms": "one text, ms",
            "decode_tokens_per_s": "tokens/s", "prefill_tokens_per_s": "prompt tokens/s", "texts_per_s": "texts/s"}


def render(title: str, profiles: Mapping[str, Table], sweeps: Mapping[str, Table],
           compared: Mapping[str, Any] | None = None) -> str:
    """The whole document; `profiles` and `sweeps` by their names, `compared` what `compare` finds of the profiles."""
    known = list(profiles.items())
    return markup.document(title, [_lead(known), _overview(known), _distributions(known), _frontier(compared),
                                 _courses(known), _roofs(known),
                                 *(_sweep(name, sweep) for name, sweep in sweeps.items()), _machines(known)])


def _lead(known: Sequence[tuple[str, Table]]) -> str:
    if not known:
        return ""
    counts = sum(len(_requests(profile)) for _, profile in known)
    hit = sum(bool(one.get("disturbed")) for _, profile in known for one in _requests(profile))
    return (f'<p class="faint">{counts:,} requests, {hit:,} of them disturbed by something else on the machine. '
            "“Surely up to” is the upper 95 % bound of the p95, whatever the distribution.</p>")


def _overview(known: Sequence[tuple[str, Table]]) -> str:
    if not known:
        return ""
    names = [name for name in _NUMBERS if any(_view(profile).get(name) for _, profile in known)]
    rows = []
    for index, (name, profile) in enumerate(known):
        view = _view(profile)
        cells = [_number(view.get(number)) for number in names]
        rows.append([_key(index, name), *cells, escape(size(profile.get("peak_rss_bytes"))),
                     escape(size(profile.get("file_bytes"))), escape(cell(profile.get("threads")))])
    verdicts = "".join(f"<p>{_key(index, name)}: {escape('; '.join(map(str, profile['verdict'])))}</p>"
                       for index, (name, profile) in enumerate(known) if profile.get("verdict"))
    head = ["run", *(_NUMBERS[name] for name in names), "peak RAM", "file", "threads"]
    return (f"<h2>Measured</h2>{markup.table(head, rows)}"
            '<p class="faint">Medians; small figures are the p95 and, in brackets, its bound.</p>' + verdicts)


def _distributions(known: Sequence[tuple[str, Table]]) -> str:
    figures = []
    for number, label, caption in (
            ("request_ms", "ms of a whole answer", "From the prompt to the last token."),
            ("latency_ms", "ms of one text", "From the text to its labels or vector."),
            ("ttft_ms", "ms to the first token", "What a user waits for before anything shows."),
            ("token_ms", "ms between tokens", "Every gap between two tokens of every answer.")):
        runs = [Times(name, _values(profile, number), _bound(profile, number)) for name, profile in known]
        if any(run.values for run in runs):
            figures.append(markup.figure(profile_charts.cumulative(runs, label), caption))
    drawn = "".join(figures)
    return f'<h2>How long it takes</h2><div class="charts">{drawn}</div>' if drawn else ""


def _frontier(compared: Mapping[str, Any] | None) -> str:
    front = (compared or {}).get("frontier")
    if not front:
        return ""
    exact = bool(front["metric"]) and all(point["quality"] is not None for point in front["points"])
    key = "quality" if exact else "peak_rss_bytes"
    points = [(index, point) for index, point in enumerate(front["points"])
              if point["p95_ms"] and point[key] is not None]
    models = [Model(point["name"], point["p95_ms"], point[key], point["file_bytes"] or 1.0, point["front"], index)
              for index, point in points]
    share = all(0 <= model.y <= 1 for model in models)
    drawn = profile_charts.frontier(models, "p95, ms", front["metric"] if exact else "peak RAM", exact,
                                    ("share" if share else "number") if exact else "bytes")
    best = f" Best{' that keeps the gates' if front['gates'] else ''}: {front['best']}." if front["best"] else ""
    caption = f"Filled: nobody beats it in everything. The area of a dot is the file's size.{best}"
    return f"<h2>Beside each other</h2>{_single(drawn, caption)}"


def _courses(known: Sequence[tuple[str, Table]]) -> str:
    drawn = "".join(_course(index, *one) for index, one in enumerate(known[:_TIMELINES]))
    left = [name for name, _ in known[_TIMELINES:]]
    more = f'<p class="faint">Not drawn: {escape(", ".join(left))}.</p>' if left else ""
    return f'<h2>Over time</h2><div class="charts">{drawn}</div>{more}' if drawn else ""


def _course(index: int, name: str, profile: Table) -> str:
    """Times, heat, clock and others' load over the run, and when something disturbed it."""
    requests, looks = _requests(profile), (profile.get("raw") or {}).get("looks") or []
    timed = [one for one in requests if "start_ns" in one]
    if len(timed) < 2:
        return ""
    began = timed[0]["start_ns"] / 1e9
    end = (timed[-1]["start_ns"] + timed[-1]["end_ns"]) / 1e9 - began
    panels = [_times(timed, began), *_states([look for look in looks if look["at_s"] >= began - 0.5], began)]
    hit = [(one["start_ns"] / 1e9 - began, (one["start_ns"] + one["end_ns"]) / 1e9 - began) for one in timed
           if one.get("disturbed")]
    causes = sorted({str(cause) for one in timed for cause in one.get("disturbed") or ()})
    caption = f"{name}: the line is the median, the band holds 80 %." + (
        f" Shaded: disturbed by {', '.join(causes)}." if causes else "")
    return markup.figure(profile_charts.timeline(panels, hit, end, index), caption)


def _times(timed: Sequence[Table], began: float) -> Panel:
    """Gaps between tokens, or whole texts, in buckets of time."""
    points: list[tuple[float, float]] = []
    for one in timed:
        start, tokens = one["start_ns"] / 1e9 - began, one.get("token_ns") or []
        if len(tokens) > 1:
            points += [(start + after / 1e9, (after - before) / 1e6)
                       for before, after in zip(tokens, tokens[1:], strict=False)]
        elif "token_ns" not in one:
            points.append((start, one["end_ns"] / 1e6))
    wide = max((at for at, _ in points), default=0.0) / _BUCKETS or 1.0
    buckets: dict[int, list[float]] = {}
    for at, value in points:
        buckets.setdefault(int(at / wide), []).append(value)
    line, band = [], []
    for place, values in sorted(buckets.items()):
        ordered, at = sorted(values), (place + 0.5) * wide
        line.append((at, ordered[len(ordered) // 2]))
        band.append((at, ordered[int(0.1 * (len(ordered) - 1))], ordered[int(0.9 * (len(ordered) - 1))]))
    return Panel("ms between tokens" if "token_ns" in timed[0] else "ms of one text", line, band)


def _states(looks: Sequence[Table], began: float) -> list[Panel]:
    """What the machine told of itself between the requests."""
    heat = [(look["at_s"] - began, max(look["celsius"].values())) for look in looks if look.get("celsius")]
    clock = [(look["at_s"] - began, look["mhz"]) for look in looks if "mhz" in look]
    others = [(after["at_s"] - began, max(0.0, after["busy_s"] - before["busy_s"] - after["own_s"] + before["own_s"])
               / (after["at_s"] - before["at_s"])) for before, after in zip(looks, looks[1:], strict=False)
              if "busy_s" in before and "busy_s" in after and after["at_s"] - before["at_s"] >= 0.1]
    named = (("°C of the hottest sensor", heat, 0.0), ("MHz", clock, 0.0), ("cores that others used", others, 1.0))
    return [Panel(label, [(max(0.0, at), value) for at, value in points], reaches=reaches)
            for label, points, reaches in named if len(points) > 1]


def _roofs(known: Sequence[tuple[str, Table]]) -> str:
    """Of runs that were held against their machine (profile --roofline): how far below its roof each pass stayed."""
    figures = []
    for index, (name, profile) in enumerate(known):
        roof = profile.get("roofline")
        if not roof:
            continue
        works = [profile_charts.Work(f"{label}, {100 * one['roof_ms'] / one['achieved_ms']:.0f} % of the roof",
                                     one["multiply_adds"] / one["bytes"],
                                     1000 * one["multiply_adds"] / one["achieved_ms"])
                 for key, label in (("prefill", "prompt"), ("decode", "step")) if (one := roof.get(key))]
        drawn = profile_charts.roofline(works, roof["read_bytes_per_s"], roof["multiply_adds_per_s"], index)
        figures.append(markup.figure(drawn, f"{name}: dashed, what memory and the fastest product alone allow."))
    return f'<h2>What this machine allows</h2><div class="charts">{"".join(figures)}</div>' if figures else ""


def _sweep(name: str, sweep: Table) -> str:
    """A heat map for each model and number of streams."""
    cells = sweep.get("cells") or []
    figures = []
    for model, streams in dict.fromkeys((one["model"], one["streams"]) for one in cells):
        mine = [one for one in cells if (one["model"], one["streams"]) == (model, streams)]
        numbers = [one.get("clean") or one.get("as_met") or {} for one in mine]
        what = next((key for key in ("tokens_per_s", "decode_tokens_per_s", "texts_per_s")
                     if any(key in found for found in numbers)), None)
        if what is None:
            continue
        threads, contexts = (sorted({one[key] for one in mine}) for key in ("threads", "context"))
        speeds = {(one["threads"], one["context"]): found[what]["p50"]
                  for one, found in zip(mine, numbers, strict=True) if what in found}
        drawn = profile_charts.heat_map(
            [str(count) for count in threads], [f"{count:,}" for count in contexts],
            [[speeds.get((count, context)) for context in contexts] for count in threads], "threads",
            "tokens of context", what.replace("_", " "))
        at_once = f", {streams} answers at a time" if streams > 1 else ""
        told = what.replace("_per_s", " per second").replace("_", " ")
        figures.append(markup.figure(drawn, f"{model}{at_once}: {told}."))
    verdict = "".join(f"<p>{escape(str(line))}</p>" for line in sweep.get("verdict") or ())
    return f'<h2>Sweep {escape(name)}</h2><div class="charts">{"".join(figures)}</div>{verdict}' if figures else ""


def _machines(known: Sequence[tuple[str, Table]]) -> str:
    """What each run ran on, folded away."""
    parts = []
    for index, (name, profile) in enumerate(known):
        facts = profile.get("machine") or {}
        rows = [[escape(str(key).replace("_", " ")), escape(_fact(value))] for key, value in sorted(facts.items())
                if value not in (None, "", [], {})]
        if rows:
            table = markup.table(["", ""], rows, (1,))
            parts.append(f"<details><summary>{_key(index, name)}</summary>{table}</details>")
    return f"<h2>Machines</h2>{''.join(parts)}" if parts else ""


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return cell(value) if isinstance(value, int) else str(value)


def _view(profile: Table) -> Mapping[str, Any]:
    """Every number as it was met; of files without views their own numbers."""
    found: Mapping[str, Any] = (profile.get("views") or {}).get("as_met") or profile
    return found


def _requests(profile: Table) -> list[Table]:
    return (profile.get("raw") or {}).get("requests") or []


def _values(profile: Table, number: str) -> list[float]:
    requests = _requests(profile)
    generates = any("token_ns" in one for one in requests)
    if number in ("request_ms", "latency_ms"):
        return [one["end_ns"] / 1e6 for one in requests] if generates is (number == "request_ms") else []
    if not generates:
        return []
    if number == "ttft_ms":
        return [one["token_ns"][0] / 1e6 for one in requests if one["token_ns"]]
    return [(after - before) / 1e6 for one in requests
            for before, after in zip(one["token_ns"], one["token_ns"][1:], strict=False) if after > before]


def _bound(profile: Table, number: str) -> float | None:
    spread = _view(profile).get(number)
    return spread["upper"]["p95"] if isinstance(spread, Mapping) and "upper" in spread else None


def _number(value: Any) -> str:
    """A median, with p95 and its bound where there are any."""
    if not isinstance(value, Mapping):
        return escape(cell(value)) if isinstance(value, (int, float)) else ""
    more = ""
    if "p95" in value:
        upper = (value.get("upper") or {}).get("p95")
        more = f' <span class="faint">{cell(value["p95"])}{f" ({cell(upper)})" if upper is not None else ""}</span>'
    return f'{escape(cell(value["p50"]))}{more}'


def _single(drawing: str, caption: str) -> str:
    return f'<div class="charts">{markup.figure(drawing, caption)}</div>' if drawing else ""


def _key(index: int, name: str) -> str:
    return f'<span class="key role-{role(index)}"></span>{escape(name)}'
