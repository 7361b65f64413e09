"""A stranger's chat template in a process of its own, with a deadline and a bound on memory: whatever it finds to do
that its budget of steps does not foresee ends there. See template_child for the process itself."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from ...models.errors import DataError, EdgestillError
from ..files import limited_process

CHILD = f"{__package__}.template_child"
SECONDS, START_SECONDS = 30.0, 60.0
"""How long one rendering may take on a busy machine, and the start of the process."""
MEMORY = 2**30
"""Bytes of the child's address space, the interpreter's included."""


class TemplateProcess:
    """Renders one model's templates; the process starts with the first, and again where it was ended."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        """`sources` are templates by name."""
        self._sources = dict(sources)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, verb: str, *given: Any) -> Any:
        """What the method `verb` of a ChatTemplate gives, and the errors that it raises; DataError when it takes too
        long or too much memory."""
        with self._lock:
            answer = self._answer({"verb": verb, "given": given})
        if "error" in answer:
            raise limited_process.refused(answer)
        return answer["value"]

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._running()
        answer = _exchange(process, request, SECONDS)
        if answer is None:
            _end(process, self._owner)
            raise DataError("the model's chat template does not come to an end: it takes more than "
                            f"{SECONDS:g} s or {MEMORY // 2**20} MiB",
                            "the template is damaged or hostile: take it from the model's own repository")
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._process = process = subprocess.Popen(limited_process.command(CHILD), stdin=subprocess.PIPE,
                                                       stdout=subprocess.PIPE, text=True, encoding="utf-8")
            self._owner = os.getpid()  # a fork would read its parent's answers
            weakref.finalize(self, _end, process, self._owner)
            if _exchange(process, {"memory": MEMORY, "sources": self._sources}, START_SECONDS) is None:
                _end(process, self._owner)
                raise EdgestillError("the process for a chat template did not start", "its messages stand above")
        return self._process


def _exchange(process: subprocess.Popen[str], request: dict[str, Any], seconds: float) -> dict[str, Any] | None:
    """The answer to a request; None when none comes in time. The child is ended then, or has ended itself."""
    assert process.stdin is not None and process.stdout is not None  # as it was opened
    clock = threading.Timer(seconds, process.kill)
    clock.start()
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        return None
    finally:
        clock.cancel()
    return dict(json.loads(line)) if line.endswith("\n") else None


def _end(process: subprocess.Popen[str], owner: int) -> None:
    if owner != os.getpid():  # a fork is not to end its parent's
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
