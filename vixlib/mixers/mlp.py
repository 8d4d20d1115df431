"""The token-mixing MLP: every token a learned function of all, the same for every picture."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import require_count, require_room
from ..lean import weight_of
from .heads import check_tokens


class MLPMixer(nn.Module):
    """W₂ gelu(W₁ xᵀ) over the tokens: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", eq. (1).

    W₁, W₂: `[expansion·N, N]`, `[N, expansion·N]`, so parameters grow with N² and the number of tokens is fixed.
    heads and dim_head are taken for the common signature only; there are no queries or keys to rotate.
    """

    uses_rotary = False

    def __init__(self, dim: int, *, heads: int | None = None, dim_head: int | None = None, seq_len: int,
                 expansion: int = 1) -> None:
        super().__init__()
        require_count(dim=dim, seq_len=seq_len, expansion=expansion)
        require_room(2 * expansion * seq_len ** 2, seq_len=seq_len, expansion=expansion)
        self.seq_len, self.dim = seq_len, dim
        self.widen = nn.Linear(seq_len, expansion * seq_len)
        self.narrow = nn.Linear(expansion * seq_len, seq_len)

    def forward(self, x: Tensor, rotary: None = None) -> Tensor:
        check_tokens(x, self.dim, weight_of(self.widen))
        if x.shape[1] != self.seq_len:
            raise ValueError(f"x has {x.shape[1]} tokens but this token MLP mixes {self.seq_len}; "
                             "build the model for this image size")
        return self.narrow(F.gelu(self.widen(x.mT))).mT
