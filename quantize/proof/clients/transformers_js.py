"""transformers.js in Node, version 3 or 4, whichever is installed; browsers run the same code."""

from __future__ import annotations

from collections.abc import Sequence

from ....models.artifact import Artifact
from . import Chat, Said, _node

NAME = "transformers.js"
FORMAT = "onnx"
PACKAGE = "@huggingface/transformers"
INSTALL = f"npm install {PACKAGE}, in the working folder"
SCRIPT = "transformers_js.mjs"


def version() -> str | None:
    """See `quantize.proof.clients`."""
    return _node.version(PACKAGE)


def answers(artifact: Artifact, chats: Sequence[Chat], tokens: int) -> Said:
    """See `quantize.proof.clients`."""
    return _node.ask(SCRIPT, PACKAGE, artifact, chats, tokens)
