"""The Compact Convolutional Transformer as a host: a convolutional tokenizer, no CLS token, sequence pooling."""
from __future__ import annotations

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import require_rate
from ..positions import Rotary
from ..precision import as_residual
from .norms import lean_norm
from .vix import Block, ViX


class CCTBlock(Block):
    """norm(x + mixer(norm(x))), then x + ff(x), `[B, N, D] -> [B, N, D]`.

    Unlike in a Block, the norm before the feed-forward stands in the line itself, as in Hassani et al.'s published
    code.   drop_path: what both branches go through before they are added.
    """

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.drop_path = nn.Identity()

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        x = x + self.drop_path(self.mixed(x, rotary))
        x = as_residual(lean_norm(self.ff_norm, x))
        return x + self.drop_path(self.ff(x))


class CCT(ViX):
    """ViX with Hassani et al.'s tokenizer, blocks and pooling ("Escaping the Big Data Paradigm with Compact
    Transformers").

    The arguments are ViX's, with other defaults: embedding="convpool" (3×3 convolutions, ReLU, max-pooling, as
    many places as pixels at patch_size 1), pool="sequence", a feed-forward of 512. Positions are learned, as in
    the paper, and start at a fifth of ViX's size; the tokenizer's borders tell places apart, so position="none"
    works, too.
    drop_path: the share of pictures that leave out a branch of the last block in training, growing from 0 in the
    first (Huang et al., "Deep Networks with Stochastic Depth").
    As in the published code, linear maps start normal at 0.02, the mixer's included, and their biases at 0; the
    tokenizer's convolutions by He et al. Its dropout on the attention matrix, which only softmax forms, is left out.
    """

    block = CCTBlock

    def __init__(self, *, embedding: str = "convpool", position: str = "learned", pool: str = "sequence",
                 mlp_dim: int = 512, drop_path: float = 0.1, **options) -> None:
        from torchvision.ops import StochasticDepth  # here: importing it takes longer than all of vixlib

        require_rate("drop_path", drop_path)
        if position == "learned":
            options = {"position_std": 0.2, **options}
        super().__init__(embedding=embedding, position=position, pool=pool, mlp_dim=mlp_dim, **options)
        for i, block in enumerate(self.blocks):
            block.drop_path = StochasticDepth(drop_path * i / max(1, len(self.blocks) - 1), mode="row")
        self.start()

    def start(self) -> None:
        """Draw the starting weights of linear maps and convolutions."""
        for part in (*self.blocks.modules(), *(self.pool or nn.Identity()).modules(), self.head):
            if isinstance(part, nn.Linear) and not is_lazy(part.weight):
                nn.init.normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        for part in self.embedding.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight)
