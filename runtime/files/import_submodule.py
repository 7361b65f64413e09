"""One module of a package without what the package itself imports: a new process says its first word sooner."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType


def submodule(package: str, name: str) -> ModuleType:
    """`package.name`, imported under an empty package that is taken away again; as usual where the package has been
    imported already. ModuleNotFoundError where it is not installed or has no such module."""
    if package in sys.modules:
        return importlib.import_module(f"{package}.{name}")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"there is no package {package}", name=package)
    empty = ModuleType(package)
    empty.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = empty
    try:
        return importlib.import_module(f"{package}.{name}")
    finally:
        del sys.modules[package]
