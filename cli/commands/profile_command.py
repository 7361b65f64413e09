"""`edgestill profile`: latency, throughput and memory of one artifact, and whether it keeps what it is to promise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .. import inputs, options, output, quiet
from . import (
    named_models,
    operator_times,
    profile_gates,
    profile_roofline,
    profile_targets,
    profiled,
    sweeping,
    under_load,
)


@click.command(
    "profile",
    epilog=options.example(
        "edgestill profile out/gguf-Q4_0",
        "edgestill profile out/gguf-Q4_0 --prompts rows.jsonl --gate 'ttft_ms.p95<=300' --junit gates.xml",
        "edgestill profile out/onnx-int4 --prompt-tokens 64 --repeats 30 -o profile.json",
        "edgestill profile out/gguf-Q4_0 out/onnx-int4 --threads 1,2 --context 256,1024 --streams 1,4 -o sweep.json",
        "edgestill profile out/gguf-Q4_0 --rate 5,10,20 --gate 'ttft_ms.p95<=300' --cost-per-hour 0.50",
        "edgestill profile model.gguf --target local --target pi5=ssh://pi@pi5.local --gate 'pi5:ttft_ms.p95<=900'",
    ),
)
@click.argument("artifacts", metavar="[ARTIFACT]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--target", "places", multiple=True, default=("local",), metavar="[NAME=]ADDRESS",
              help=profile_targets.HELP)
@click.option("--prompts", type=click.Path(path_type=Path), metavar="ROWS",
              help="Ask the prompts of this data file, or of a run file's test rows, as they are.")
@click.option("--prompt-tokens", type=click.IntRange(1), default=128, show_default=True,
              help="Without --prompts: tokens of the prompt.")
@click.option("--new-tokens", type=click.IntRange(1), metavar="N",
              help="Tokens decoded in each repeat (64); with --prompts the most, by default the task's own limit.")
@click.option("--schema", type=click.Path(path_type=Path), metavar="FILE",
              help="JSON schema file that the answers satisfy; default: the task's own.")
@click.option("--warmup", type=click.IntRange(0), default=2, show_default=True, help="Repeats that do not count.")
@click.option("--repeats", "--requests", "repeats", type=click.IntRange(1), default=10, show_default=True,
              help="Requests that count; more are made where a gate's bound takes more.")
@click.option("--sustained", default="0", callback=profiled.seconds, metavar="TIME",
              help="Go on for so long, such as 10m: what is left of the speed, and when it fell.")
@click.option("--threads", callback=sweeping.counts, default="0", metavar="N[,N...]",
              help="CPU threads, several for a sweep; 0 measures how many are fastest.")
@click.option("--context", "contexts", callback=sweeping.counts, default="", metavar="N[,N...]",
              help="Sweep: tokens of a prompt and its answer together.")
@click.option("--streams", callback=sweeping.counts, default="", metavar="N[,N...]",
              help="Sweep: requests that are answered at the same time; load: how many the server answers so.")
@click.option("--csv", "table", type=click.Path(path_type=Path), metavar="FILE", help="Also write a sweep as CSV.")
@click.option("--per-op", "per_operator", is_flag=True, help="Time each operator instead, as the engine itself does.")
@click.option("--trace", "traced", type=click.Path(path_type=Path), metavar="FILE",
              help="Operators: also write them for Perfetto (ui.perfetto.dev) or chrome://tracing.")
@click.option("--rate", "rates", callback=under_load.rates, default="", metavar="N[,N...]",
              help="Load: requests a second, sent whether or not earlier ones were answered, to the model as serve "
              "serves it or to --target http://….")
@click.option("--arrivals", type=click.Choice(("poisson", "fixed")), default="poisson", show_default=True,
              help="Load: when they come.")
@click.option("--cost-per-hour", type=click.FloatRange(0, min_open=True), metavar="MONEY",
              help="Load: what the machine costs, for the cost of a million calls.")
@click.option("--roofline", "explains", is_flag=True,
              help="Also measure for 20 seconds what this machine can do, and say what holds the model back.")
@click.option("--gate", "gates", multiple=True, metavar="GATE",
              help="A limit with 95 % certainty, such as 'ttft_ms.p95<=300', of one target 'NAME:ttft_ms.p95<=300'; "
              "may be repeated. Exit code 3 if it fails.")
@click.option("--gates", "run_file", type=click.Path(path_type=Path), metavar="RUN.TOML",
              help="Take the limits on numbers of the profile in a run file's [gates] and [gates.device.NAME], too.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the gates as JUnit XML.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the gates as Markdown, for a pull request.")
@click.option("--html", "page", type=click.Path(path_type=Path), metavar="FILE",
              help="Write a page with pictures of the times, and of the machine meanwhile.")
@options.out_file("Also write the profile with its raw values to this JSON file.")
@options.columns
@options.skip_bad
@options.as_json
@options.verbose
def command(artifacts: tuple[Path, ...], places: tuple[str, ...], prompts: Path | None, prompt_tokens: int,
            new_tokens: int | None, schema: Path | None, warmup: int, repeats: int, sustained: float,
            threads: tuple[int, ...], contexts: tuple[int, ...], streams: tuple[int, ...], table: Path | None,
            per_operator: bool, traced: Path | None, rates: tuple[float, ...], arrivals: str,
            cost_per_hour: float | None, explains: bool, gates: tuple[str, ...], run_file: Path | None,
            junit: Path | None, markdown: Path | None, page: Path | None, out: Path | None, columns: tuple[str, ...],
            skip_bad: bool, as_json: bool) -> None:
    """Measure latency, throughput and memory, here or on other machines.

    Without --threads it first measures how many of them run the model fastest, and every verb takes them from then on.
    Memory and load time are those of fresh processes. `edgestill compare` takes the files that -o writes.

    Several models, numbers of threads, contexts or streams are a sweep: each combination in five rounds over all of
    them, kept in a file beside -o, or where ssh measures them, so that the same call goes on after a crash. --per-op
    tells where the time goes, --rate how a server bears requests that come on their own.
    """
    if rates:
        sweeping.refuse(("page",), "--rate")
        rows = inputs.read_rows(prompts, columns, skip_bad=skip_bad) if prompts else None
        under_load.run(artifacts, places, rates, arrivals, cost_per_hour, rows, prompt_tokens, new_tokens, warmup,
                       repeats, sustained, threads, streams, gates, out, as_json)
        return
    sweeping.refuse(("arrivals", "cost_per_hour"), "a profile without --rate")
    if len(artifacts) > 1 or len(threads) > 1 or contexts or streams:
        sweeping.refuse(("per_operator", "traced", "page"), "a sweep")
        sweeping.run(artifacts, places, threads, contexts, streams, prompt_tokens, new_tokens, warmup, repeats, out,
                     table, as_json)
        return
    artifact = artifacts[0] if artifacts else None
    targets = profile_targets.parse(places, artifact)
    if per_operator:
        sweeping.refuse(("places", "page"), "--per-op")
        assert artifact is not None  # this machine needs one
        operator_times.run(artifact, prompt_tokens, new_tokens, threads[0], out, traced, as_json)
        return
    sweeping.refuse(("table", "traced"), "a profile of one model")
    path = named_models.model(artifact) if artifact is not None else None
    known = profile_roofline.read(path, targets) if explains else None
    names = [target.name for target in targets]
    limits = profile_gates.read(profile_targets.task(path), gates, run_file, bool(junit or markdown), names)
    rows = inputs.read_rows(prompts, columns, skip_bad=skip_bad) if prompts else None
    with quiet.stdout_kept_clean():
        found, failed = profile_targets.measure(
            targets, {name: [limit.name for limit in some] for name, some in limits.items()}, model=path,
            prompt_tokens=prompt_tokens, new_tokens=new_tokens, warmup=warmup, repeats=repeats, threads=threads[0],
            prompts=rows, seconds=sustained, options=profiled.answer_options(schema))
        if known is not None:
            for told in found.values():
                profile_roofline.explain(told, *known)
    titles = {name: profile_targets.title(artifact, name) for name in found}
    if found:
        _write(found, titles, len(targets), out, page)
    judged = {name: profile_gates.judge(limits[name], told) for name, told in found.items()}
    profile_gates.write({titles[name]: some for name, some in judged.items()},
                        {titles[name]: told for name, told in found.items()}, junit, markdown)
    if as_json:
        tables = {name: told | {"gates": judged[name]} for name, told in found.items()}
        if found:
            output.result(next(iter(tables.values())) if len(targets) == 1 else {"targets": tables})
    elif len(found) > 1:
        profiled.show_several(found, judged)
    else:
        for name, told in found.items():
            profiled.show(told, judged[name])
    profile_targets.check(failed, len(targets))
    profile_gates.check(judged)


def _write(found: Mapping[str, Any], titles: Mapping[str, str], targets: int, out: Path | None,
           page: Path | None) -> None:
    """Profiles as JSON, and as a page with pictures."""
    from ...models import files

    if out is not None:
        files.write_json(out, next(iter(found.values())) if targets == 1 else {"targets": found})
    if page is not None:
        from . import profile_files

        files.write_text(page, profile_files.page({titles[name]: told for name, told in found.items()}, {}))
