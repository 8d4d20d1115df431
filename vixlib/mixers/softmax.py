"""Softmax attention, the quadratic reference."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .heads import HeadsQKV, Rotary


class SoftmaxAttention(HeadsQKV):
    """softmax(q kᵀ / √d) v: Vaswani et al., "Attention is all you need", eq. (1).

    fused: through F.scaled_dot_product_attention, which never stores the N×N matrix where a fused kernel
    exists; False materialises it, as every implementation of 2021 did (same result, O(N²) memory).
    """

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int | None = None,
                 fused: bool = True, qkv_bias: bool = False, out_bias: bool = True) -> None:
        super().__init__(dim, heads, dim_head, qkv_bias, out_bias)
        self.fused = fused

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        q, k, v = self.split(x, rotary)
        return self.join(F.scaled_dot_product_attention(q, k, v) if self.fused else self.attention(q, k) @ v)

    @staticmethod
    def attention(q: Tensor, k: Tensor) -> Tensor:
        """The attention matrix softmax(q kᵀ / √d), `[B, H, N, N]`; each row sums to one."""
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)
