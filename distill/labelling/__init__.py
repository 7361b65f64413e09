"""Rows without answers, a teacher behind an OpenAI-compatible address, rows with answers. No torch here."""

from __future__ import annotations

from .label import Labelling
from .settings import Settings

__all__ = ["Labelling", "Settings"]
