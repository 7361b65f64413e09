"""node-llama-cpp with the file's own template."""

from __future__ import annotations

from collections.abc import Sequence

from ....models.artifact import Artifact
from . import Chat, Said, _node

NAME = "node-llama-cpp"
FORMAT = "gguf"
INSTALL = f"npm install {NAME}, in the working folder"


def version() -> str | None:
    """See `quantize.proof.clients`."""
    return _node.version(NAME)


def answers(artifact: Artifact, chats: Sequence[Chat], tokens: int) -> Said:
    """See `quantize.proof.clients`."""
    return _node.ask("node_llama_cpp.mjs", NAME, artifact, chats, tokens)
