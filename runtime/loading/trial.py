"""The limited process in which a model made elsewhere is opened for the first time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..files.limited_process import serve
from ..text.tokenizer import check_pace
from .load import load


def trial(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Open the model at `path` and let it answer once."""
    model: Any = load(job["path"], threads=1, check_hashes=False)
    check_pace(model.codec.encode, job["path"])
    verb = next(name for name in ("classify", "embed", "generate") if hasattr(model, name))
    getattr(model, verb)("Hello", **{"max_new_tokens": 2} if verb == "generate" else {})
    model.close()
    yield {"answered": True}


if __name__ == "__main__":
    serve(trial)
