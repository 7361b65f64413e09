"""`edgestill profile`: latency, throughput and memory of one artifact, and whether it keeps what it is to promise."""

from __future__ import annotations

from pathlib import Path

import click

from .. import inputs, options, output, quiet
from . import named_models, operator_times, profiled, sweeping


@click.command(
    "profile",
    epilog=options.example(
        "edgestill profile out/gguf-Q4_0",
        "edgestill profile out/gguf-Q4_0 --prompts rows.jsonl --gate 'ttft_ms.p95<=300' --junit gates.xml",
        "edgestill profile out/onnx-int4 --prompt-tokens 64 --repeats 30 -o profile.json",
        "edgestill profile out/gguf-Q4_0 out/onnx-int4 --threads 1,2 --context 256,1024 --streams 1,4 -o sweep.json",
    ),
)
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path(path_type=Path))
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
              help="Sweep: requests that are answered at the same time.")
@click.option("--csv", "table", type=click.Path(path_type=Path), metavar="FILE", help="Also write a sweep as CSV.")
@click.option("--per-op", "per_operator", is_flag=True, help="Time each operator instead, as the engine itself does.")
@click.option("--trace", "traced", type=click.Path(path_type=Path), metavar="FILE",
              help="Operators: also write them for Perfetto (ui.perfetto.dev) or chrome://tracing.")
@click.option("--gate", "gates", multiple=True, metavar="GATE",
              help="A limit with 95 % certainty, such as 'ttft_ms.p95<=300'; may be repeated. Exit code 3 if it fails.")
@click.option("--gates", "run_file", type=click.Path(path_type=Path), metavar="RUN.TOML",
              help="Take the limits on numbers of the profile in a run file's [gates], too.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the gates as JUnit XML.")
@click.option("--markdown", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the gates as Markdown, for a pull request.")
@options.out_file("Also write the profile with its raw values to this JSON file.")
@options.columns
@options.skip_bad
@options.as_json
@options.verbose
def command(artifacts: tuple[Path, ...], prompts: Path | None, prompt_tokens: int, new_tokens: int | None,
            schema: Path | None, warmup: int, repeats: int, sustained: float, threads: tuple[int, ...],
            contexts: tuple[int, ...], streams: tuple[int, ...], table: Path | None, per_operator: bool,
            traced: Path | None, gates: tuple[str, ...], run_file: Path | None, junit: Path | None,
            markdown: Path | None, out: Path | None, columns: tuple[str, ...], skip_bad: bool, as_json: bool) -> None:
    """Measure latency, throughput and memory on this machine.

    Without --threads it first measures how many of them run the model fastest, and every verb takes them from then on.
    Memory and load time are those of fresh processes. `edgestill compare` takes the files that -o writes.

    Several models, numbers of threads, contexts or streams are a sweep: each combination in five rounds over all of
    them, kept in a file beside -o, so that the same call goes on after a crash. --per-op tells where the time goes.
    """
    from ...runtime import profile

    if len(artifacts) > 1 or len(threads) > 1 or contexts or streams:
        sweeping.refuse(("per_operator", "traced"), "a sweep")
        sweeping.run(artifacts, threads, contexts, streams, prompt_tokens, new_tokens, warmup, repeats, out, table,
                     as_json)
        return
    artifact = artifacts[0]
    if per_operator:
        operator_times.run(artifact, prompt_tokens, new_tokens, threads[0], out, traced, as_json)
        return
    sweeping.refuse(("table", "traced"), "a profile of one model")
    path = named_models.model(artifact)
    limits = profiled.read_limits(path, gates, run_file, bool(junit or markdown))
    rows = inputs.read_rows(prompts, columns, skip_bad=skip_bad) if prompts else None
    with quiet.stdout_kept_clean():
        found = profile(path, prompt_tokens=prompt_tokens, new_tokens=new_tokens, warmup=warmup, repeats=repeats,
                        threads=threads[0], prompts=rows, held_to=[limit.name for limit in limits], seconds=sustained,
                        options=profiled.answer_options(schema), say=output.note)
    if found.raw["per_s_by_threads"]:
        output.note(f"{found.threads} threads; steps/s by threads: " + ", ".join(
            f"{count}: {speed:,.0f}" for count, speed in found.raw["per_s_by_threads"].items()))
    told = output.plain(found)
    if out is not None:
        from ...models import files

        files.write_json(out, told)
    judged = profiled.judge(limits, told)
    profiled.write(str(artifact), judged, told, junit, markdown)
    if as_json:
        output.result(told | {"gates": judged})
    else:
        profiled.show(told, judged)
    profiled.check(judged)
