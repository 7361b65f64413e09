"""Run, evaluate and measure a shipped model; no torch.

Nothing is imported before it is used: `import edgestill.runtime` costs neither onnxruntime nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation.evaluate import evaluate
    from .loading.load import load
    from .profiling import profile

__all__ = ["evaluate", "load", "profile"]
_HOMES = {"evaluate": ".evaluation.evaluate", "load": ".loading.load", "profile": ".profiling"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value
