"""`edgestill profile`: latency, throughput and memory of one artifact."""

from __future__ import annotations

from pathlib import Path

import click

from .. import options, output, quiet
from . import named_models


@click.command(
    "profile",
    epilog=options.example(
        "edgestill profile out/gguf-Q4_0",
        "edgestill profile out/onnx-int4 --prompt-tokens 64 --repeats 30 -o profile.json",
    ),
)
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--prompt-tokens", type=click.IntRange(1), default=128, show_default=True, help="Tokens of the prompt.")
@click.option(
    "--new-tokens", type=click.IntRange(1), default=64, show_default=True, help="Tokens decoded in each repeat."
)
@click.option("--warmup", type=click.IntRange(0), default=2, show_default=True, help="Repeats that do not count.")
@click.option("--repeats", type=click.IntRange(1), default=10, show_default=True, help="Repeats that count.")
@options.out_file("Also write the profile with its raw values to this JSON file.")
@options.threads
@options.as_json
@options.verbose
def command(
    artifact: Path,
    prompt_tokens: int,
    new_tokens: int,
    warmup: int,
    repeats: int,
    out: Path | None,
    threads: int,
    as_json: bool,
) -> None:
    """Measure latency, throughput and memory on this machine.

    Without --threads it first measures how many of them run the model fastest, and every verb takes them from then on.
    Memory and load time are those of fresh processes. `edgestill compare` takes the files that -o writes.
    """
    from ...runtime import profile

    with quiet.stdout_kept_clean():
        found = profile(named_models.model(artifact), prompt_tokens=prompt_tokens, new_tokens=new_tokens, warmup=warmup,
                        repeats=repeats, threads=threads)
    if found.raw["per_s_by_threads"]:
        output.note(f"{found.threads} threads; steps/s by threads: " + ", ".join(
            f"{count}: {speed:,.0f}" for count, speed in found.raw["per_s_by_threads"].items()))
    table = output.plain(found)
    if out is not None:
        from ...models import files

        files.write_json(out, table)
    if as_json:
        output.result(table)
        return
    lines = []
    for name, value in table.items():
        if isinstance(value, dict) and name not in ("machine", "raw"):
            lines += [[f"{name} {key}", item] for key, item in value.items()]
        elif value is not None and not isinstance(value, (list, dict)):
            lines.append([name, value])
    output.table(["measure", "value"], lines)
