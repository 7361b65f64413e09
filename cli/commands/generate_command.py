"""`edgestill generate`: one prompt, one answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ...models.errors import UsageError
from .. import options, output
from . import answering


@click.command("generate", epilog=options.example(
    'edgestill generate out/gguf-Q4_0 "turn off the kitchen light"',
    "echo 'turn off the kitchen light' | edgestill generate out/gguf-Q4_0 - --json",
    'edgestill generate out/gguf-Q4_0 "who wrote it?" --prefix page.txt --state page.state'))
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("prompt")
@answering.answer_options
@click.option("--prefix", type=click.Path(path_type=Path), metavar="FILE", help="Text file that precedes the prompt.")
@click.option("--logprobs", type=click.IntRange(0, 20), metavar="N",
              help="With --json: log-probability of every token, and of the N likeliest in its place.")
@options.threads
@options.as_json
@options.verbose
def command(artifact: Path, prompt: str, prefix: Path | None, state: Path | None, threads: int, as_json: bool,
            **flags: Any) -> None:
    """Answer one prompt.

    PROMPT `-` reads it from stdin, without the line end behind it. The text appears as it is made; --json waits and
    adds counts and timings.
    """
    # The line end is the shell's: a model without a template would go on from it.
    text = sys.stdin.read().removesuffix("\n").removesuffix("\r") if prompt == "-" else prompt
    if not text.strip():
        raise UsageError("the prompt is empty", "give a text, or - to read it from stdin")
    before = answering.read_prompt(prefix)
    wanted = answering.asked(threads, **flags)
    model = answering.opened(artifact, threads, "generates no text")
    start: dict[str, Any] = {"text": before} if before else {"messages": []}
    begun = answering.beginning(model, state, **start)
    wanted |= {"prompt": text if begun else before + text, "prefix": begun}
    if as_json:
        output.result(model.generate(**wanted))
        return
    for piece in model.stream(**wanted):
        click.echo(piece.text, nl=False)
    click.echo()
