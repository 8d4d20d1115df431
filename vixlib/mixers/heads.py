"""What the attention mixers share: linear maps to and from heads, and where float32 is kept."""
from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import require_count

Rotary = Callable[[Tensor], Tensor]


def float32_region(x: Tensor) -> torch.autocast:
    """A context in which autocast is off: what runs inside keeps the precision of its inputs."""
    return torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 if it was half precision, unchanged otherwise (float64 tests stay float64)."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class HeadsQKV(nn.Module):
    """The linear maps that softmax, Performer and Nyström attention share: x -> q, k, v -> out.

    `split(x)`: `[B, N, D] -> q, k, v` each `[B, H, N, d]`;  `join(heads)`: `[B, H, N, d] -> [B, N, D]`.
    """

    def __init__(self, dim: int, heads: int, dim_head: int, qkv_bias: bool, out_bias: bool) -> None:
        super().__init__()
        require_count(dim=dim, heads=heads, dim_head=dim_head)
        self.heads = heads
        inner = heads * dim_head
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.to_out = nn.Linear(inner, dim, bias=out_bias)

    def split(self, x: Tensor, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.to_qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        return (q, k, v) if rotary is None else (rotary(q), rotary(k), v)

    def join(self, heads: Tensor) -> Tensor:
        return self.to_out(rearrange(heads, "b h n d -> b n (h d)"))
