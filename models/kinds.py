"""The one registry: a folder of files, where a file's name is the kind's name in a run file.

`names` lists a folder without importing anything in it, so choices and suggestions cost nothing.
`load` tells "there is no such kind" apart from "that file could not be imported".
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from .errors import UsageError


def names(package: str, suffix: str = ".py") -> list[str]:
    """The kinds of `package` (such as "distill.losses"), sorted, without importing them."""
    return sorted(
        path.name[: -len(suffix)]
        for path in folder(package).iterdir()
        if path.name.endswith(suffix) and not path.name.startswith("_")
    )


def folder(package: str) -> Path:
    """The folder of a package below this project's root, such as "models.families"."""
    return Path(__file__).resolve().parent.parent.joinpath(*package.split("."))


def load(package: str, name: str) -> ModuleType:
    """Import the kind `name` of `package`; UsageError when there is none, ImportError when it is broken."""
    known = names(package)
    if name not in known:
        raise unknown(package.rpartition(".")[2], name, known)
    root = __package__.rpartition(".")[0]
    return importlib.import_module(f"{root}.{package}.{name}")


def unknown(what: str, name: str, known: list[str]) -> UsageError:
    """The error for a name outside `known`, with the nearest known name as its hint."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(f"{what}: {name!r} is not known", f"{suggestion}known: {', '.join(known)}")
