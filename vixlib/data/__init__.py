"""Pictures, and where they come from: `load` by name or folder."""
from .images import ImageData
from .loading import NAMES, load
from .shapes import make_shapes

__all__ = ["ImageData", "NAMES", "load", "make_shapes"]
