"""Options that verbs share, so that they read and behave the same everywhere."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ..models.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def _set_verbose(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    if value and isinstance(context.find_root().obj, dict):
        context.find_root().obj["verbose"] = True
    return value


verbose = click.option("-v", "--verbose", is_flag=True, is_eager=True, expose_value=False, callback=_set_verbose,
                       help="Show the traceback of a failure.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done and change nothing.")
settings = click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE",
                        help="Override a value of the run file; may be given several times.")
threads = click.option("--threads", type=click.IntRange(0), default=0, metavar="N",
                       help="CPU threads; 0 takes as many as profile or serve found fastest here, or else the physical "
                            "cores this process may use.")
columns = click.option("--column", "columns", multiple=True, metavar="OURS=THEIRS",
                       help="Column of a data file; may be repeated.")
clients = click.option("--client", "clients", multiple=True, metavar="NAME",
                       help="Hold this program to our tokens too, such as onnxruntime_genai, transformers_js, "
                       "llama_cpp_python, node_llama_cpp; all: every installed one.")
skip_bad = click.option("--skip-bad", is_flag=True,
                        help="Leave bad rows out and list them in bad-rows.jsonl instead of stopping.")
run_file = click.argument("run_file", metavar="RUN.TOML", type=click.Path(path_type=Path))


def out(default: str = "", what: str = "Folder to write; it must be empty or new.") -> Callable[[F], F]:
    """`-o/--out`, required when there is no default."""
    kind = click.Path(path_type=Path)
    if default:
        return click.option("-o", "--out", type=kind, default=Path(default), show_default=True, help=what)
    return click.option("-o", "--out", type=kind, required=True, help=what)


def out_file(what: str) -> Callable[[F], F]:
    """`-o/--out` of a verb that reads files and writes one more: UsageError where it is one of those that are read."""
    def decorated(command: F) -> F:
        @functools.wraps(command)
        def checked(**given: Any) -> Any:
            out = given["out"]
            read = [each for name, value in given.items() if name != "out"
                    for each in (value if isinstance(value, tuple) else (value,))]
            if out is not None and any(isinstance(each, (str, Path)) and os.path.exists(each) and os.path.exists(out)
                                       and os.path.samefile(each, out) for each in read):
                raise UsageError(f"--out: {out} is read here, and would be written over", "choose another -o/--out")
            return command(**given)
        return click.option("-o", "--out", type=click.Path(path_type=Path), help=what)(checked)  # type: ignore[return-value]
    return decorated


def example(*lines: str) -> str:
    """An epilog that shows `lines` as they are, below the word Example."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)
