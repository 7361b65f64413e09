"""`edgestill profile --rate`: a server under requests that come at given rates."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...models.errors import CheckFailed, EdgestillError, UsageError
from .. import output
from . import named_models, profile_targets, sweeping

if TYPE_CHECKING:
    from ...models.artifact import Artifact
    from ...runtime.data.reader import Row
    from ...runtime.profiling.http_requests import TimedAnswer
    from ...runtime.profiling.limits import Limit
    from ...runtime.profiling.targets._base import Asked

_OTHERS = ("explains", "schema", "run_file", "junit", "markdown", "contexts", "table", "per_operator", "traced")
"""Options of other measurements."""
_OF_MODELS = ("threads", "streams")
"""Options of a model that is served here."""
_STREAMS = 4
_PATIENCE, _END_SECONDS = 120.0, 10.0
"""Seconds that an answer may take, and a server that is told to end."""
MODULE = "edgestill.runtime.server.measured"


def rates(context: click.Context, parameter: click.Parameter, value: str) -> tuple[float, ...]:
    """Rates as an option's value: 25,50,100."""
    try:
        found = tuple(float(part) for part in value.split(",")) if value else ()
    except ValueError:
        found = (0.0,)
    if any(not 0 < rate < 1e6 for rate in found) or len(set(found)) < len(found):
        raise click.BadParameter(f"{value!r}: write each rate once, in requests a second, such as 25,50,100", context,
                                 parameter)
    return found


def run(artifacts: Sequence[Path], places: Sequence[str], asked: Sequence[float], arrivals: str,
        cost_per_hour: float | None, rows: Sequence[Row] | None, prompt_tokens: int, new_tokens: int | None,
        warmup: int, repeats: int, seconds: float, threads: Sequence[int], streams: Sequence[int],
        gates: Sequence[str], out: Path | None, as_json: bool) -> None:
    """Measure a model as `serve` serves it, or the server that is the target, and tell what was found.

    UsageError for what does not go with it, CheckFailed where no rate holds the gates, and what opening the model or
    asking the server raises.
    """
    from ...models import files
    from ...runtime.loading.foreign import open_model
    from ...runtime.profiling import load, machine
    from ...runtime.profiling.limits import Limit
    from ...runtime.profiling.targets import local, server
    from ...runtime.profiling.targets._base import Asked

    if len(artifacts) > 1 or len(places) > 1:
        raise UsageError(f"--rate is of one {'model' if len(artifacts) > 1 else 'target'} at a time",
                         "measure them one after the other")
    path = artifacts[0] if artifacts else None
    target, = profile_targets.parse(places, path)
    place = target.place if target.kind is server else ""
    if not place and target.kind is not local:
        raise UsageError(f"--rate: {target.name} is no server", "serve the model there, and give its address as "
                         "--target http://…")
    sweeping.refuse(_OTHERS + (_OF_MODELS if place else ()), "--rate")
    for name, values in (("threads", threads), ("streams", streams)):
        if len(values) > 1:
            raise UsageError(f"--{name}: a server has one number of them, not {len(values)}", "give one")
    model = named_models.model(path) if path is not None else None
    artifact = open_model(model) if model is not None else None
    if artifact is not None and artifact.manifest.task.kind != "generate":
        raise UsageError(f"{model}: models that {artifact.manifest.task.kind} are not measured under load",
                         "leave --rate out")
    limits = [Limit.parse(gate, "generate") for gate in gates]
    counts = load.counts(asked, repeats if sweeping.given("repeats") else load.DEFAULT_REQUESTS, seconds, limits)
    with _server(model, place, threads[0], streams) as served:
        ask = _asker(served, artifact, Asked(model, prompt_tokens, new_tokens, prompts=rows),
                     sum(counts.values()) + warmup)
        found = load.load(ask, counts, arrivals, limits, cost_per_hour, warmup, output.note)
        status = Path(f"/proc/{served.get('pid')}/status")
        if status.is_file():
            found["server_peak_rss_bytes"] = machine.peak_resident_bytes(status)
    table = output.plain({**found, "server": served, "machine": machine.facts()})
    if out is not None:
        files.write_json(out, table)
    if as_json:
        output.result(table)
    else:
        show(table)
    _check(found, limits)


def show(table: Mapping[str, Any]) -> None:
    """Print a measurement under load for a human."""
    parts = ("p50", "p95", "p95 at most")
    rows = [[one["rate"], one["requests"], one["requests"] - one["answered"], one["achieved_per_s"],
             *(value for name in ("ttft_ms", "request_ms") for value in _of(one[name])), one["cost_per_million"],
             "" if not one["gates"] else "hold" if all(judged["passed"] for judged in one["gates"]) else "FAIL"]
            for one in table["rates"]]
    output.table(["a second", "requests", "unanswered", "answers/s", *(f"ttft_ms {part}" for part in parts),
                  *(f"request_ms {part}" for part in parts), "a million costs", "gates"], rows)
    click.echo()
    for line in table["verdict"]:
        click.echo(line)


def _of(spread: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    bound, needed = spread["upper"]["p95"], spread["needed"].get("p95")
    return spread["p50"], spread.get("p95"), f"needs {needed}" if needed else bound or "none: unanswered"


def _check(found: Mapping[str, Any], limits: Sequence[Limit]) -> None:
    if not limits or found["holds_up_to"] is not None:
        return
    from ..report.gate_files import told

    lowest = found["rates"][0]
    raise CheckFailed(f"at {lowest['rate']:g} requests a second, the lowest rate, gates do not hold: "
                      + "; ".join(told(one) for one in lowest["gates"] if not one.passed),
                      "the lines above say why; try a lower --rate")


def _asker(served: Mapping[str, Any], artifact: Artifact | None, asked: Asked,
           count: int) -> Callable[[int], TimedAnswer]:
    """What makes request number n of `count`, whose bodies are made beforehand. UsageError where there are neither
    prompts nor a model to make some for."""
    from ...runtime.profiling.http_requests import CHAT, ask
    from ...runtime.profiling.targets import server

    key = "" if "pid" in served else os.environ.get(server.KEY, "")
    bodies = server.Requests(asked, artifact, served["model"]).bodies(count)
    if asked.prompts is not None and len(asked.prompts) < count:
        output.note(f"{len(asked.prompts)} prompts for {count} requests: a server that keeps what it has read answers "
                    "sooner when a prompt comes again")
    return lambda number: ask(served["url"], bodies[number], key, CHAT, _PATIENCE)


@contextmanager
def _server(model: Path | None, place: str, threads: int, streams: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The address `place` with the one model that it names or has, or a server of `model` in a process of its own while
    the block runs: `url`, `model`, and of the latter more. Raises what a server refuses."""
    from ...runtime.files.limited_process import command, refused
    from ...runtime.profiling.targets import server

    if place:
        url, _, name = place.partition("#")
        yield {"url": url, "model": name or server.only_model(place)}
        return
    job = {"path": str(model), "threads": threads, "streams": streams[0] if streams else _STREAMS}
    with subprocess.Popen(command(MODULE), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            if not (line := process.stdout.readline()):
                raise EdgestillError(f"{model}: the server ended with code {process.wait()} before it answered",
                                     f"run edgestill serve {model} to see the failure by itself")
            if "error" in (found := json.loads(line)):
                raise refused(found)
            yield {**job, **found, "pid": process.pid}
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
