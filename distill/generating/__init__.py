"""New rows by a teacher behind an OpenAI-compatible address, from a few of one's own or from documents. No torch here.
"""

from __future__ import annotations

from .generate import Generating
from .wanted import Wanted

__all__ = ["Generating", "Wanted"]
