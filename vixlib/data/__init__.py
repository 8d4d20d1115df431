"""Pictures, and where they come from: `load` by name or folder."""
from .images import ImageData
from .loading import NAMES, load

__all__ = ["ImageData", "NAMES", "load"]
