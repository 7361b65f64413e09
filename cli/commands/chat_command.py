"""`edgestill chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ...models.errors import UsageError
from .. import options, output


@click.command("chat", epilog=options.example("edgestill chat out/gguf-Q4_0 --temperature 0.7"))
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--system", default="", help="System message; default: the task's own.")
@click.option(
    "--max-new-tokens", type=click.IntRange(1), help="Longest answer in tokens; default: the task's own limit."
)
@click.option(
    "--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0 takes the likeliest token."
)
@click.option("--top-p", type=click.FloatRange(0, 1), default=1.0, help="Sample among the likeliest that sum to p.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling.")
@options.threads
@options.as_json
@options.verbose
def command(artifact: Path, system: str, threads: int, as_json: bool, **sampling: Any) -> None:
    """Talk with a model, with its own chat template.

    One line is one turn; an empty line or the end of input ends the talk, /reset forgets it. Piped input works
    too. --json prints the whole conversation at its end.
    """
    from ...runtime import load
    from ...runtime.generate import Generator

    model = load(artifact, threads=threads)
    if not isinstance(model, Generator):
        verb = model.artifact.manifest.task.kind
        raise UsageError(f"{artifact}: is made to {verb}, not to hold a conversation",
                         f"edgestill {verb} {artifact} TEXT")
    start = [{"role": "system", "content": system}] if system else []
    messages: list[dict[str, Any]] = list(start)
    while line := _next_line():
        if line == "/reset":
            messages = list(start)
            continue
        messages.append({"role": "user", "content": line})
        answer = ""
        for piece in model.stream(messages=messages, **sampling):
            answer += piece.text
            if not as_json:
                click.echo(piece.text, nl=False)
        if not as_json:
            click.echo()
        messages.append({"role": "assistant", "content": answer})
    if as_json:
        output.result({"messages": messages})


def _next_line() -> str:
    if sys.stdin.isatty():
        click.echo("> ", nl=False, err=True)
    return sys.stdin.readline().strip()
