"""A server that another process measures: `python -m edgestill.runtime.server.measured`.

What to serve comes as JSON on stdin; its address and the model's name go as JSON to stdout once it answers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from ...models.errors import EdgestillError
from ..files.limited_process import refusal


def main() -> None:
    """Serve until the process is ended; a failure a user can cause is handed over as limited_process.refusal does."""
    from . import serve

    job = json.load(sys.stdin)
    try:
        serve([job.pop("path")], port=0, ready=_tell, **job)
    except EdgestillError as error:
        _print(refusal(error))


def _tell(url: str, models: Mapping[str, Any]) -> None:
    _print({"url": f"{url}/v1", "model": next(iter(models)), "threads": next(iter(models.values())).threads})


def _print(found: Mapping[str, Any]) -> None:
    print(json.dumps(found), flush=True)  # noqa: T201 - the pipe to the parent


if __name__ == "__main__":
    main()
