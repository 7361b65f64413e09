"""The one registry: a package of files, where a file's name is the kind's name in a run file.

`names` lists a package without importing what is in it, so choices and suggestions cost nothing.
`load` tells "there is no such kind" apart from "that file could not be imported".
Files are asked of the import system, never of the disk: a device may hold compiled modules alone, or a zip.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_ROOT = __package__.rpartition(".")[0]


def names(package: str, suffix: str = "") -> list[str]:
    """The kinds of `package` (such as "distill.losses"), sorted, without importing them: its modules, or its files
    that end in `suffix`."""
    if suffix:
        found = [path.name.removesuffix(suffix) for path in folder(package).iterdir() if path.name.endswith(suffix)]
    else:
        places = [os.path.join(place, *package.split(".")) for place in sys.modules[_ROOT].__path__]
        found = [module.name for module in pkgutil.iter_modules(places)]
    return sorted(name for name in found if not name.startswith("_"))


def folder(package: str) -> Traversable:
    """The files of a package below this project's root, such as "models.families"; they may lie in a zip."""
    from importlib import resources  # costs 10 ms, and an artifact is opened without

    return resources.files(f"{_ROOT}.{package}")


def load(package: str, name: str) -> ModuleType:
    """Import the kind `name` of `package`; UsageError when there is none, ImportError when it is broken."""
    known = names(package)
    if name not in known:
        raise unknown(package.rpartition(".")[2], name, known)
    return importlib.import_module(f"{_ROOT}.{package}.{name}")


def unknown(what: str, name: str, known: list[str]) -> UsageError:
    """The error for a name outside `known`, with the nearest known name as its hint."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return UsageError(f"{what}: {name!r} is not known", f"{suggestion}known: {', '.join(known)}")
