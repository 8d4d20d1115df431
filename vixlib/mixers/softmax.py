"""Softmax attention, the quadratic reference."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import require_flag, require_grid, require_room
from ..positions import Rotary
from ..precision import at_least_float32, autocast_off
from .heads import HeadsQKV


class SoftmaxAttention(HeadsQKV):
    """softmax(q kᵀ / √d) v: Vaswani et al., "Attention is all you need", eq. (1).

    fused: through F.scaled_dot_product_attention, which never stores the N×N matrix where a fused kernel
    exists; False materialises it, as was usual in 2021 (same result, O(N²) memory), its scores in
    float32 whatever the precision.
    bias_grid: (rows, columns) of the tokens, to add a learned bias to each head's scores for every distance in
    rows and columns (Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference", eq.
    (1)); None: no bias.
    maps: options of the linear maps, see HeadsQKV.
    """

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int | None = None,
                 fused: bool = True, bias_grid: tuple[int, int] | None = None, **maps) -> None:
        super().__init__(dim, heads, dim_head, **maps)
        require_flag(fused=fused)
        self.fused, self.bias_grid = fused, bias_grid
        if bias_grid is not None:
            require_grid("bias_grid", bias_grid)
            if seq_len not in (None, bias_grid[0] * bias_grid[1]):
                raise ValueError(f"bias_grid={bias_grid!r} has {bias_grid[0] * bias_grid[1]} places, but there are "
                                 f"{seq_len} tokens; use the grid of the tokens, without CLS")
            require_room(2 * (bias_grid[0] * bias_grid[1]) ** 2, bias_grid=bias_grid)
            self.distance_bias = nn.Parameter(torch.zeros(heads, bias_grid[0] * bias_grid[1]))

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        q, k, v = self.split(x, rotary)
        bias = self.bias(q)
        if self.fused:
            return self.join(F.scaled_dot_product_attention(q, k, v, attn_mask=bias))
        return self.join(self.attention(q, k, bias).to(v.dtype) @ v)

    def bias(self, q: Tensor) -> Tensor | None:
        """The bias of every pair of tokens, `[H, N, N]`, or None."""
        if self.bias_grid is None:
            return None
        if q.shape[2] != self.bias_grid[0] * self.bias_grid[1]:
            raise ValueError(f"x has {q.shape[2]} tokens, but the attention bias is for a grid of "
                             f"{self.bias_grid[0]}x{self.bias_grid[1]}; build the model for this image size")
        # Made anew each time: a buffer outside the state would be lost where a model is built on torch's "meta" device.
        return self.distance_bias[:, grid_distances(*self.bias_grid, device=q.device)].to(q.dtype)

    @staticmethod
    def attention(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
        """The attention matrix softmax(q kᵀ / √d + bias), `[B, H, N, N]`; each row sums to one."""
        with autocast_off(q.device):  # as fused kernels add up: float16 ends at 65,504, which sums of d products pass
            scores = at_least_float32(q) @ at_least_float32(k).mT * q.shape[-1] ** -0.5
            return (scores if bias is None else scores + bias).softmax(dim=-1)


def grid_distances(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """For every pair of tokens of a grid, a number that stands for (|row offset|, |column offset|), `[N, N]`."""
    place = torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(columns, device=device))
    offset = (place[:, None] - place[None]).abs()
    return offset[..., 0] * columns + offset[..., 1]
