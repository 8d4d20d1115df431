"""Host architectures, each taking any token mixer, and the zoo that names them."""
from .cct import CCT
from .cvt import CvT
from .cxv import CXV
from .levit import LeViT
from .resnet import ResNet18
from .vix import ViX
from .zoo import FNet, ViL, ViN, ViP, ViT, applicable, build, names

__all__ = ["CCT", "CXV", "CvT", "FNet", "LeViT", "ResNet18", "ViL", "ViN", "ViP", "ViT", "ViX",
           "applicable", "build", "names"]
