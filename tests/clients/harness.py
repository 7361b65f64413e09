"""lm-evaluation-harness's own command, several times in one process, since starting it takes most of a run.

    python harness.py COMMANDS.json     a list of its arguments' lists

It reads the tasks that it is given alone: reading the thousands that it brings takes half a minute. And it may reach
this machine alone: any other address is an error, so nothing is waited for that is not there.
"""

from __future__ import annotations

import json
import socket
import sys
from functools import partialmethod
from pathlib import Path
from typing import Any

_getaddrinfo = socket.getaddrinfo


def local_only(host: Any, *arguments: Any, **options: Any) -> Any:
    """`socket.getaddrinfo`, for this machine alone."""
    if host not in (None, "127.0.0.1", "localhost"):
        raise RuntimeError(f"the harness looked for {host}")
    return _getaddrinfo(host, *arguments, **options)


if __name__ == "__main__":
    socket.getaddrinfo = local_only
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.tasks.manager import TaskManager

    TaskManager.__init__ = partialmethod(TaskManager.__init__, include_defaults=False)

    for words in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        sys.argv[1:] = words
        cli_evaluate()
