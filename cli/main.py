"""The entry point, and the one place that turns errors into messages and exit codes.

0 ok · 1 failed · 2 usage · 3 a gate or a check failed · 130 interrupted
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .quiet import switch_off_telemetry

switch_off_telemetry()

import click  # noqa: E402 - the switches stand before any library is imported

from .. import __version__  # noqa: E402
from ..models.errors import EdgestillError  # noqa: E402
from .lazy import LazyGroup  # noqa: E402

OK, FAILED, USAGE, CHECK_FAILED, INTERRUPTED = 0, 1, 2, 3, 130


@click.group(
    cls=LazyGroup,
    epilog="edgestill VERB --help shows a verb's options and an example.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def root() -> None:
    """Distil a teacher into a small model, and prove the file that ships."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(call(sys.argv[1:] if arguments is None else arguments))


def call(arguments: Sequence[str]) -> int:
    """Run one command; return its exit code. Errors that a user can cause are shown without a traceback."""
    state = {"verbose": False}
    try:
        returned = root.main(args=list(arguments), prog_name="edgestill", standalone_mode=False, obj=state)
        sys.stdout.flush()
        return returned if isinstance(returned, int) else OK
    except Exception as error:
        if state["verbose"]:
            _traceback()
        return _explain(error, shown=state["verbose"])
    except KeyboardInterrupt:
        _say("interrupted", "")
        return INTERRUPTED


def _explain(error: Exception, shown: bool) -> int:
    if isinstance(error, EdgestillError):
        _say(error.message, error.hint)
        return error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return USAGE
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        _say(error.format_message(), f"{context.command_path} --help" if context else "edgestill --help")
        return USAGE
    if isinstance(error, click.Abort):
        _say("interrupted", "")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # the reader went away, as in `edgestill models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(error, ModuleNotFoundError):
        from .extras import missing

        known = missing(error.name or "")
        if known is not None:
            return _explain(known, shown)
    if isinstance(error, OSError) and error.filename is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        _say(f"{name}: {error.strerror or error}", "check that the path exists and may be read and written")
        return FAILED
    if isinstance(error, OSError) and error.errno is not None:
        _say(str(error.strerror or error), "check disk space and permissions, then run the same command again")
        return FAILED
    if isinstance(error, MemoryError):
        _say("out of memory", "lower micro_batch_tokens, the batch or the context length")
        return FAILED
    if not shown:  # a defect of ours: the traceback is what we need to see
        _traceback()
    _say(f"{type(error).__name__}: {error}", "this is a defect of edgestill: please report the lines above")
    return FAILED


def _say(message: str, hint: str) -> None:
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"hint: {hint}", err=True)


def _traceback() -> None:
    import traceback

    traceback.print_exc(file=sys.stderr)
