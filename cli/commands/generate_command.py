"""`edgestill generate`: one prompt, one answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ...models.errors import DataError, UsageError
from .. import options, output


@click.command("generate", epilog=options.example(
    'edgestill generate out/gguf-Q4_0 "turn off the kitchen light"',
    "echo 'turn off the kitchen light' | edgestill generate out/gguf-Q4_0 - --json"))
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("prompt")
@click.option(
    "--max-new-tokens", type=click.IntRange(1), help="Longest answer in tokens; default: the task's own limit."
)
@click.option(
    "--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0 takes the likeliest token."
)
@click.option("--top-k", type=click.IntRange(0), default=0, help="Sample among the k likeliest tokens; 0: all.")
@click.option("--top-p", type=click.FloatRange(0, 1), default=1.0, help="Sample among the likeliest that sum to p.")
@click.option("--min-p", type=click.FloatRange(0, 1), default=0.0, help="Drop tokens below p times the likeliest.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the sampling.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be repeated.")
@click.option("--schema", type=click.Path(path_type=Path), help="JSON schema file that the answer must satisfy.")
@options.threads
@options.as_json
@options.verbose
def command(artifact: Path, prompt: str, schema: Path | None, stop: tuple[str, ...], threads: int, as_json: bool,
            **sampling: Any) -> None:
    """Answer one prompt.

    PROMPT `-` reads it from stdin. The text appears as it is made; --json waits and adds counts and timings.
    """
    from ...runtime import load
    from ...runtime.generate import Generator

    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise UsageError("the prompt is empty", "give a text, or - to read it from stdin")
    wanted = {**sampling, "stop": stop, "schema": read_schema(schema) if schema else None}
    model = load(artifact, threads=threads)
    if not isinstance(model, Generator):
        verb = model.artifact.manifest.task.kind
        raise UsageError(f"{artifact}: is made to {verb} and generates no text", f"edgestill {verb} {artifact} TEXT")
    if as_json:
        output.result(model.generate(text, **wanted))
        return
    for piece in model.stream(text, **wanted):
        click.echo(piece.text, nl=False)
    click.echo()


def read_schema(path: Path) -> dict[str, Any]:
    """A JSON schema file; DataError when it is no JSON object."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--schema {path}: no such file", "give a JSON schema file") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}", "a JSON schema is a JSON object") from error
    if not isinstance(schema, dict):
        raise DataError(f"{path}: {type(schema).__name__}, not a JSON object", "a JSON schema is a JSON object")
    return schema
