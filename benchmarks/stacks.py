"""What is compared: stacks of transformer blocks on tokens, `[B, N, D] -> [B, N, D]`, without embedding and head."""
from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from vixlib.mixers import MIXERS
from vixlib.models.vix import Block
from vixlib.models.zoo import settings

from .textbook import TEXTBOOK, TextbookBlock

MODELS = ("ViT", "ViP", "ViL", "ViN", "FNet")
SUMMARY_LENGTH = {"linformer": "rank", "nystrom": "num_landmarks"}  # what the mixer calls it


@dataclass(frozen=True)
class Shape:
    """Sizes of a stack and its input; the zoo's "uniform" configuration unless told otherwise.

    landmarks: what the N tokens are summarised by, Nyström's landmarks and Linformer's rank.
    """

    batch: int = 8
    tokens: int = 1025
    depth: int = 1
    dim: int = 128
    heads: int = 4
    dim_head: int = 32
    mlp_dim: int = 256
    landmarks: int = 64


def mixer_of(model: str, shape: Shape, mixers: dict[str, type[nn.Module]] = MIXERS, **own) -> nn.Module:
    """The token mixer of one of MODELS, from vixlib's `mixers` or those of another table."""
    name = settings(model)["mixer"]
    if name in SUMMARY_LENGTH:
        own = {SUMMARY_LENGTH[name]: shape.landmarks, **own}
    return mixers[name](shape.dim, heads=shape.heads, dim_head=shape.dim_head, seq_len=shape.tokens, **own)


def vixlib_stack(model: str, shape: Shape, **own) -> nn.Sequential:
    """vixlib's blocks. own: options of the mixer, e.g. padding="front"."""
    return nn.Sequential(*(Block(shape.dim, mixer_of(model, shape, **own), shape.mlp_dim)
                           for _ in range(shape.depth)))


def textbook_stack(model: str, shape: Shape) -> nn.Sequential:
    """The same in the authors' forms, with its own weights; `load_state_dict` takes vixlib's."""
    return nn.Sequential(*(TextbookBlock(shape.dim, mixer_of(model, shape, TEXTBOOK), shape.mlp_dim)
                           for _ in range(shape.depth)))
