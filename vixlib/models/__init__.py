"""Host architectures, each taking any token mixer, and the zoo that names them."""
from .vix import ViX
from .zoo import FNet, ViL, ViN, ViP, ViT, applicable, build, names

__all__ = ["FNet", "ViL", "ViN", "ViP", "ViT", "ViX", "applicable", "build", "names"]
