"""What is written for clouds: names as they take them, and text that YAML reads as itself."""

from __future__ import annotations

import re

LONGEST = 40
"""Of a Cloud Run service it may be 49 characters, and files put a word behind it."""


def resource_name(name: str) -> str:
    """A folder's name as Kubernetes, Cloud Run, SageMaker and SkyPilot take one: small letters of ASCII, digits and
    dashes, a letter first, cut to LONGEST."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    plain = plain if plain[:1].isalpha() else f"model-{plain}"
    return plain[:LONGEST].rstrip("-")


def yaml_text(text: str) -> str:
    """A text between quotes as YAML reads it; all but plain ASCII is escaped."""
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'
