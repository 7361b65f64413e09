"""A child process with bounds on memory and time, so that a bad file ends it and not the program that opened the file.

The child is a module that calls `serve`. Its job comes as JSON on stdin; what it finds goes, one JSON object a line, to
stdout as soon as it is found, so that a crash shows how far it came.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ...models import errors
from ...models.errors import EdgestillError

SECONDS = 1800.0
MEMORY = 8 * 2**30
"""Bytes of address space beside the model's own: libraries and their threads reserve far more than they touch."""
_START = """
import runpy, sys
module, last, *places = sys.argv[1:]
sys.path[:] = [*(place for place in places if place not in sys.path), *sys.path, last]
sys.argv[1:] = []
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class Outcome:
    """What a child found, and how it ended."""

    found: list[dict[str, Any]]
    crash: str = ""
    """Empty when it ended by itself; else what ended it."""
    error: EdgestillError | None = None
    """What it refused to do."""
    late: bool = False
    """It was ended for its time alone, which says nothing of the file."""


def run(module: str, job: dict[str, Any], model_bytes: int = 0, seconds: float = SECONDS,
        memory: int = MEMORY) -> Outcome:
    """Run `python -m module` on a job, with room for a model of `model_bytes` beside `memory`."""
    limits = {"memory": memory + 4 * model_bytes, "seconds": seconds}
    try:
        done = subprocess.run(command(module), input=json.dumps([limits, job]), capture_output=True, text=True,
                              errors="replace", check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        printed = error.stdout or b""
        text = printed if isinstance(printed, str) else printed.decode("utf-8", "replace")
        return Outcome(list(_objects(text)), f"it took longer than {seconds:g} s", late=True)
    found = list(_objects(done.stdout))
    last = found.pop() if found and "error" in found[-1] else None
    if last is not None:
        return Outcome(found, error=refused(last))
    return Outcome(found, _crash(done.returncode, done.stderr))


def refusal(error: EdgestillError) -> dict[str, Any]:
    """An error as a child hands it over."""
    return {"error": type(error).__name__, "message": error.message, "hint": error.hint}


def refused(found: dict[str, Any]) -> EdgestillError:
    """The error that a child handed over."""
    kind: type[EdgestillError] = getattr(errors, found["error"])
    failure = kind.__new__(kind)
    EdgestillError.__init__(failure, found["message"], found["hint"])
    return failure


def command(module: str) -> list[str]:
    """The command line of a module in a process of its own, which looks for modules where this one does: in a zip, too.

    Not in the working folder, which may be that of a downloaded model: last, and only where this project lies in it.
    """
    here = sys.modules[__name__.partition(".")[0]].__path__[0]
    places = [os.path.abspath(place) for place in sys.path
              if os.path.exists(place) and not os.path.samefile(place, os.curdir)]
    return [sys.executable, "-P", "-c", _START, module, os.path.dirname(os.path.abspath(here)), *places]


def serve(work: Callable[[dict[str, Any]], Iterator[dict[str, Any]]]) -> None:
    """In the child: take the job under its limits, and hand over what `work` yields."""
    limits, job = json.load(sys.stdin)
    restrict(limits["memory"])
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not look like a finding
    try:
        for found in work(job):
            print(json.dumps(found), file=out, flush=True)  # noqa: T201 - the pipe to the parent
    except EdgestillError as error:
        print(json.dumps(refusal(error)), file=out, flush=True)  # noqa: T201


def restrict(memory: int) -> None:
    """Bound this process's address space and write no core file; Windows has no such limits."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    bound = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            return  # cut off by the crash
        yield value


def _crash(code: int, messages: str) -> str:
    if code == 0:
        return ""
    if code < 0:
        names = {member.value: member.name for member in signal.Signals}
        return f"the engine crashed ({names.get(-code, f'signal {-code}')})"
    last = (messages.strip().splitlines() or ["it gave no reason"])[-1]
    return f"the engine failed: {last[:300]}"
