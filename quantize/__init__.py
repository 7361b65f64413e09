"""Pack a trained model for a device, and prove that what was packed is still that model."""

from .export import export
from .proof import verify

__all__ = ["export", "verify"]
