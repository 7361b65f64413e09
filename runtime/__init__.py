"""Run, evaluate and measure a shipped model; no torch.

Nothing is imported before it is used: `import edgestill.runtime` costs neither onnxruntime nor numpy.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluate import evaluate
    from .loading import load
    from .profiling import profile

__all__ = ["evaluate", "load", "profile"]
_HOMES = {"evaluate": ".evaluate", "load": ".loading", "profile": ".profiling"}


class _Room(ModuleType):
    """Importing the file evaluate.py must not put the module where the function of the same name belongs."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


sys.modules[__name__].__class__ = _Room
