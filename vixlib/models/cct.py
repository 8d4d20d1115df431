"""The Compact Convolutional Transformer as a host: a convolutional tokenizer, no CLS token, sequence pooling."""
from __future__ import annotations

from .vix import ViX


class CCT(ViX):
    """ViX with Hassani et al.'s tokenizer and pooling ("Escaping the Big Data Paradigm with Compact Transformers").

    The arguments are ViX's, with other defaults: embedding="convpool" (3×3 convolutions, ReLU, max-pooling, as
    many places as pixels at patch_size 1), pool="sequence", a feed-forward of 512. Positions are learned, as in
    the paper; the tokenizer's borders tell places apart, so position="none" works, too.
    The blocks are ViX's. In Hassani et al.'s code, and the paper's authors', the norm before the feed-forward stands in
    the residual line (x = norm(x + attention(norm(x))), then x + ff(x)), branches are dropped at random (0.1), and
    positions start at 0.2 instead of 1: the same parameters, another start.
    """

    def __init__(self, *, embedding: str = "convpool", pool: str = "sequence", mlp_dim: int = 512, **options) -> None:
        super().__init__(embedding=embedding, pool=pool, mlp_dim=mlp_dim, **options)
