"""Measure a shipped model on this machine.

The names are found on use: the process that is measured starts from this package, and must not pay for the other side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .measure import Profile, profile

__all__ = ["Profile", "profile"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import measure

    return getattr(measure, name)
