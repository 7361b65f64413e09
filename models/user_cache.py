"""Where this system keeps what programs can make again."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

_NAMED_BY = {"darwin": "HOME", "win32": "LOCALAPPDATA"}.get(sys.platform, "XDG_CACHE_HOME")


def user_cache() -> Path:
    """This project's folder in the user's cache; one that goes with this process where the user has no home."""
    try:
        if sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            named = os.environ.get(_NAMED_BY, "")
            base = Path(named) if named else Path.home() / ".cache"
    except RuntimeError:  # HOME is not set, and the system does not know the user
        return _of_this_process()
    return base / "edgestill"


@functools.cache
def _of_this_process() -> Path:
    import atexit
    import logging
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="edgestill-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    logging.getLogger(__name__).warning(
        "this user has no home, so what is measured and made here is forgotten with this process: set %s to a folder "
        "that stays", _NAMED_BY)
    return folder
