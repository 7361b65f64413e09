"""The process that renders a stranger's chat template: one JSON object a line on stdin, an answer to each on stdout."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from ...models.errors import EdgestillError
from ..files import limited_process
from .chat_template import ChatTemplate


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever interrupts the parent ends it, and this with it
    first = json.loads(sys.stdin.readline())
    limited_process.restrict(first["memory"])
    template = ChatTemplate(first["sources"], {})
    _say({})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"value": getattr(template, asked["verb"])(*asked["given"])}
        except EdgestillError as error:
            answer = limited_process.refusal(error)
        _say(answer)


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)  # noqa: T201 - the pipe to the parent


if __name__ == "__main__":
    _serve()
