"""What verbs that ask a teacher have in common: its options, and the plan that somebody agrees to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .. import output

if TYPE_CHECKING:
    from ...distill.labelling.plan import Calls
    from ...models.task import Task

F = TypeVar("F", bound=Callable[..., Any])
KEY = "EDGESTILL_TEACHER_KEY"
"""The environment variable with the teacher's key."""
_ADDRESS = (
    click.option("--teacher-url", required=True, metavar="URL", help="OpenAI-compatible address, such as https://host/v1."),
    click.option("--teacher-model", required=True, metavar="NAME", help="Model to ask there."),
    click.option("--key-variable", default=KEY, show_default=True, metavar="NAME",
                 help="Environment variable that holds the teacher's key."),
)
_LIMITS = (
    click.option("--max-cost", type=click.FloatRange(0, min_open=True), metavar="USD", help="Never spend more."),
    click.option("--max-tokens", type=click.IntRange(1), help="Never read and write more tokens."),
    click.option("--price", default="", metavar="IN/OUT",
                 help="US dollars for a million tokens read and written; default: as genai-prices knows the model."),
    click.option("--answer-tokens", type=click.IntRange(1), default=1024, show_default=True,
                 help="The longest answer, thoughts included."),
    click.option("--temperature", type=click.FloatRange(0, 2), help="Default: the endpoint's own."),
    click.option("--concurrency", type=click.IntRange(1, 256), default=8, show_default=True, help="Calls at a time."),
    click.option("--rate", type=click.FloatRange(0), default=0.0, show_default=True,
                 help="Calls a minute; 0: no limit."),
    click.option("--timeout", type=click.FloatRange(0, min_open=True), default=120.0, show_default=True,
                 help="Seconds for one call."),
    click.option("--allow-personal-data", is_flag=True, help="Send rows in which personal data was found, too."),
    click.option("--yes", is_flag=True, help="Do not ask before the first call."),
)


def address(function: F) -> F:
    """--teacher-url, --teacher-model, --key-variable."""
    for option in reversed(_ADDRESS):
        function = option(function)
    return function


def limits(function: F) -> F:
    """What it may cost, and how it is asked."""
    for option in reversed(_LIMITS):
        function = option(function)
    return function


def told(given: dict[str, Any]) -> dict[str, Any]:
    """The options as fields of Settings; says so where no key is sent."""
    variable = given.pop("key_variable")
    key = os.environ.get(variable, "")
    if not key:
        output.note(f"no key is sent: {variable} is not set")
    return {"url": given.pop("teacher_url"), "model": given.pop("teacher_model"), "key": key, **given}


def check_out(out: Path) -> None:
    """UsageError for an output that is no new .jsonl file."""
    from ...models.errors import UsageError
    from .logged_calls import check_name

    check_name(out)
    if out.exists():
        raise UsageError(f"{out}: already exists", "choose another -o/--out, or remove it first: the ledger beside it "
                         "keeps what was answered")


def form(labels: Sequence[str], schema: Path | None, task: Task) -> tuple[list[str], dict[str, Any] | None]:
    """The labels or the JSON schema that answers must be of; those of `task` where none is given. UsageError for both,
    for a label alone, and for a schema that cannot be read."""
    from ...models.errors import UsageError
    from ...models.json_values import read_object

    path = schema or (Path(task.schema) if task.schema else None)
    if labels and path is not None:
        raise UsageError("labels and a schema: answers are one of the two", "leave --label or --schema out")
    known = list(dict.fromkeys(labels))
    if len(known) == 1:
        raise UsageError(f"{known[0]}: one label alone says nothing", "give all labels that rows can have")
    return known, read_object(path, UsageError, "give a file with a JSON schema") if path else None


def agree(plan: Calls, lines: list[str], allow_personal_data: bool, yes: bool,
          allowing: str = "send it with --allow-personal-data") -> None:
    """Show a plan, and come back when somebody agrees. DataError for personal data that nobody allowed to be sent;
    `allowing` is how to; UsageError where nobody is there to ask."""
    from ...models.errors import DataError, UsageError

    output.note("\n".join(lines))
    if plan.personal and not allow_personal_data:
        raise DataError(f"personal data would be sent to {plan.host}: {plan.named()}",
                        f"remove it, or {allowing}")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody is there to agree to this plan", "give --yes")
        click.confirm("Send them?", abort=True, err=True)


def text(path: Path, what: str) -> str:
    """The text of a file, without the blanks around it; UsageError where there is none."""
    from ...models.errors import UsageError

    try:
        found = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}", "save it as UTF-8") from None
    if not found:
        raise UsageError(f"{path}: the file is empty", f"write {what} into it")
    return found
