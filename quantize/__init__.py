"""Pack a trained model for a device, and prove that what was packed is still that model."""

from .proof.prove import verify
from .ship.export import export

__all__ = ["export", "verify"]
