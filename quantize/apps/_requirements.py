"""What pip installs for extras of this project, in the versions that are here: for an image like this environment."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ...models.errors import EdgestillError

PROJECT = "edgestill"
_IMAGE = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}


def pinned(extras: Iterable[str]) -> list[str]:
    """`name==version` of every package that the project with `extras` needs, and that those need; one that is not
    installed here as it is asked for. EdgestillError where the project itself is not installed."""
    found: dict[str, str] = {}
    if not _needs(PROJECT, {""}):
        raise EdgestillError(f"{PROJECT} is not installed here, so nothing says which packages it needs",
                             "pip install it, or pip install -e in its clone")
    _add(PROJECT, {"", *extras}, found, set())
    return sorted(found.values())


def _add(name: str, extras: set[str], found: dict[str, str], seen: set[tuple[str, str]]) -> None:
    new = {extra for extra in extras if (name, extra) not in seen}
    seen |= {(name, extra) for extra in new}
    for needed in _needs(name, new):
        other = canonicalize_name(needed.name)
        if other != PROJECT:
            try:
                found[other] = f"{other}=={metadata.version(other)}"
            except metadata.PackageNotFoundError:
                found.setdefault(other, f"{other}{needed.specifier}")
        _add(other, {"", *needed.extras}, found, seen)


def _needs(name: str, extras: set[str]) -> list[Requirement]:
    try:
        needed = [Requirement(text) for text in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:
        return []
    return [one for one in needed if any(one.marker is None or one.marker.evaluate(_IMAGE | {"extra": extra})
                                         for extra in extras)]
