"""What other programs need beside the model file to load an artifact's folder as it is: one file per program.

A layout names its `FORMAT`, a key of models.scheme.TYPES. `write(packed, codec)` completes the folder of an artifact
that is not sealed yet, and `usage(manifest)` is what the card says about this program, as Markdown, or nothing.
"""

from __future__ import annotations

from types import ModuleType

from ...models import kinds
from ...models.scheme import Scheme

CACHE_LENGTH = 2048
"""Some programs reserve the cache for their whole default length, so a context of 32,768 must not be that default."""


def of(target: str) -> list[ModuleType]:
    """The layouts of an export target's format."""
    layouts = [kinds.load("quantize.layouts", name) for name in kinds.names("quantize.layouts")]
    return [layout for layout in layouts if Scheme.parse(target).format == layout.FORMAT]
