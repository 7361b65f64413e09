"""What `generate` and `chat` share: the options of an answer, and the model that gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...models.errors import DataError, UsageError
from ...models.json_values import object_in
from . import named_models

if TYPE_CHECKING:
    from ...runtime.generation.generator import Generator
    from ...runtime.generation.prompt_cache import Prefix

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = (
    click.option("--max-new-tokens", type=click.IntRange(1),
                 help="Longest answer in tokens; default: the task's own limit."),
    click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True,
                 help="0 takes the likeliest token."),
    click.option("--top-k", type=click.IntRange(0), default=0, help="Sample among the k likeliest tokens; 0: all."),
    click.option("--top-p", type=click.FloatRange(0, 1), default=1.0,
                 help="Sample among the likeliest that sum to p."),
    click.option("--min-p", type=click.FloatRange(0, 1), default=0.0, help="Drop tokens below p times the likeliest."),
    click.option("--repetition-penalty", type=click.FloatRange(0.01), default=1.0,
                 help="Above 1 makes what was said less likely."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the sampling."),
    click.option("--stop", multiple=True, metavar="TEXT", help="End the answer before this text; may be repeated."),
    click.option("--schema", metavar="FILE",
                 help="JSON schema file that the answer must satisfy; default: the task's own, none: no schema."),
    click.option("--regex", metavar="REGEX", help="Regular expression that the answer must match."),
    click.option("--choice", "choices", multiple=True, metavar="TEXT",
                 help="The answer is one of these texts; repeat it."),
    click.option("--grammar", type=_FILE, metavar="FILE", help="Lark or GBNF grammar file of the answer."),
    click.option("--lookup", is_flag=True,
                 help="Guess tokens from what the prompt repeats, from 50M parameters on; the answer stays the same."),
    click.option("--draft", type=click.Path(path_type=Path), metavar="ARTIFACT",
                 help="Smaller model of the same vocabulary that guesses tokens; the answer stays the same."),
    click.option("--state", type=_FILE, metavar="FILE",
                 help="Keep the model's state after the beginning of the prompt here; read again, it saves that time."),
)


def answer_options(function: F) -> F:
    """All options of an answer, as keywords for `asked`; `--state` as `state`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def opened(path: Path, threads: int, purpose: str) -> Generator:
    """A loaded generator; UsageError for a model of another kind."""
    from ...runtime import load
    from ...runtime.generation.generator import Generator

    path = named_models.model(path)
    model = load(path, threads=threads)
    if not isinstance(model, Generator):
        verb = model.artifact.manifest.task.kind
        raise UsageError(f"{path}: is made to {verb} and {purpose}", f"edgestill {verb} {path} TEXT")
    return model


def asked(threads: int, schema: str | None, grammar: Path | None, choices: tuple[str, ...], draft: Path | None,
          **rest: Any) -> dict[str, Any]:
    """The options of `Generator.stream` out of those of the command line; files are read."""
    bound: Any = None if schema is None else False if schema == "none" else _schema(Path(schema))
    return {**rest, "schema": bound, "choices": list(choices) or None,
            "grammar": None if grammar is None else _read("--grammar", grammar),
            "draft": None if draft is None else opened(draft, threads, "generates no text")}


def beginning(model: Generator, state: Path | None, **begin: Any) -> Prefix | None:
    """The prefix that `state` holds, or one that is made of `begin` (as for `Generator.prefix`) and saved there.

    UsageError when the file holds another beginning.
    """
    if state is None:
        return None
    if not state.is_file():
        made = model.prefix(**begin)
        made.save(state)
        return made
    found = model.load_prefix(state)
    if (found.text, found.messages) != (begin.get("text", ""), begin.get("messages") or []):
        raise UsageError(f"--state {state}: holds another beginning of the prompt", "remove it, or name another file")
    return found


def _schema(path: Path) -> dict[str, Any]:
    """A JSON schema file; DataError when it is no JSON object."""
    return object_in(_read("--schema", path).encode(), str(path), DataError, "a JSON schema is a JSON object")


def _read(option: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise UsageError(f"{option} {path}: {reason}", "give a text file") from None


def read_prompt(path: Path | None) -> str:
    """The text of `--prefix`, empty without one."""
    return "" if path is None else _read("--prefix", path)
