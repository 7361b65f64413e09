"""Clients that are Python packages, each in a process of bounded memory and time."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from ....models.artifact import Artifact
from ....runtime.files import limited_process
from ...layouts import CACHE_LENGTH
from . import SECONDS, Chat, Said


def version(package: str) -> str | None:
    """The installed version, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def ask(module: str, artifact: Artifact, chats: Sequence[Chat], tokens: int) -> Said:
    """What `python -m module` finds, one object a chat; the module serves it (see runtime/files/limited_process.py)."""
    job = {"folder": str(artifact.folder), "file": str(artifact.model_path), "chats": list(chats), "tokens": tokens,
           "kv": artifact.manifest.kv,
           "context": min(artifact.manifest.dimensions.get("context", CACHE_LENGTH), CACHE_LENGTH)}
    outcome = limited_process.run(module, job, artifact.model_bytes(), SECONDS)
    return Said(outcome.found, outcome.error.message if outcome.error else outcome.crash)
