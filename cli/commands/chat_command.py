"""`edgestill chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .. import options, output
from . import answering


@click.command("chat", epilog=options.example("edgestill chat out/gguf-Q4_0 --temperature 0.7",
                                                       "edgestill chat smollm2-135m"))
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--system", default="", help="System message; default: the task's own.")
@answering.answer_options
@options.threads
@options.as_json
@options.verbose
def command(artifact: Path, system: str, state: Path | None, threads: int, as_json: bool, **flags: Any) -> None:
    """Talk with a model, with its own chat template.

    ARTIFACT may also be a name of the catalogue, here as for generate, serve, evaluate and profile: that model is
    packed and proven when it is first asked for, and kept in your cache; one that was never downloaded is, then.

    One line is one turn; an empty line or the end of input ends the talk, /reset forgets it. Piped input works
    too. When the context is full the oldest half is forgotten. --json prints the whole conversation at its end.
    """
    # One talk at a time: all that was read and said stays in the cache.
    wanted = {**answering.asked(threads, **flags), "overflow": "shift", "reuse": "all"}
    model = answering.opened(artifact, threads, "holds no conversation")
    start = [{"role": "system", "content": system}] if system else []
    wanted["prefix"] = answering.beginning(model, state, messages=start)
    held = len(start) if state else 0  # the prefix begins with them
    messages: list[dict[str, Any]] = list(start)
    while line := _next_line():
        if line == "/reset":
            messages = list(start)
            continue
        messages.append({"role": "user", "content": line})
        answer = ""
        for piece in model.stream(messages=messages[held:], **wanted):
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
