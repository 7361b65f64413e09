"""Models that the hub's client has downloaded before, found without that client and without a network."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .errors import UsageError


def cache() -> Path:
    """The client's folder of downloaded models, as its environment variables say. UsageError where they leave it to the
    home of a user who has none."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    try:
        return Path(os.path.expandvars(named)).expanduser()
    except RuntimeError:
        raise UsageError(f"{named}: this user has no home, so there is no place for models of the hub",
                         "set HF_HOME to a folder that stays, or give a model's folder") from None


def snapshot(hub_id: str, revision: str = "") -> Path | None:
    """The folder of a whole model (owner/name) in the cache, its name the hub's commit; None where there is none.

    `revision` is a commit, a branch or a tag; empty means main, as it was when it was downloaded last.
    """
    repository = cache() / f"models--{hub_id.replace('/', '--')}"
    reference = repository / "refs" / (revision or "main")
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    folder = repository / "snapshots" / commit
    return folder if commit and _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Whether config and all weights are there: a download that was cut leaves some of them."""
    index = folder / "model.safetensors.index.json"
    if not (folder / "config.json").is_file():
        return False
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (ValueError, KeyError, AttributeError):
        return False
    return all((folder / str(shard)).is_file() for shard in shards)
