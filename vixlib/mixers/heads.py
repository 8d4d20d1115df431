"""What the attention mixers share: the maps to and from heads."""
from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ..errors import (
    require_count,
    require_flag,
    require_grid,
    require_known,
    require_like,
    require_room,
    require_several,
)
from ..lean import weight_of
from ..positions import Rotary


def check_tokens(x: Tensor, dim: int, weight: Tensor | None) -> None:
    """`x` must be `[B, N, dim]`, B, N >= 1, like `weight` in type and device; the error says what it is instead."""
    require_like("x", x, weight)
    if x.ndim != 3 or x.shape[2] != dim or 0 in x.shape:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected tokens [B, N, {dim}], at least one")


class BatchNormTokens(nn.BatchNorm1d):
    """Batch normalisation of each feature over images and tokens, `[B, N, D] -> [B, N, D]`."""

    def forward(self, x: Tensor) -> Tensor:
        require_several(x.shape[0] * x.shape[1], self.training, x.shape)
        # As [B·N, D], not [B, D, N]: a head's features stay side by side, which is all that fused attention takes.
        return super().forward(x.flatten(0, -2)).view_as(x)


class GridConv(nn.Module):
    """A 3×3 convolution over tokens that lie on a grid of rows × columns, `[B, N, D] -> [B, N, width]`.

    separable: one filter a feature with batch normalisation, then a linear map (Wu et al., "CvT: Introducing
    Convolutions to Vision Transformers", section 3.2); otherwise one full convolution.   bias: of the last map.
    """

    def __init__(self, dim: int, width: int, grid: tuple[int, int], separable: bool, bias: bool) -> None:
        super().__init__()
        require_grid("grid", grid)
        self.grid, self.separable = grid, separable
        self.map = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False), nn.BatchNorm2d(dim),
            nn.Conv2d(dim, width, 1, bias=bias)) if separable else nn.Conv2d(dim, width, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.grid
        if x.shape[1] != rows * columns:
            raise ValueError(f"x has {x.shape[1]} tokens, but this convolution is for a grid of {rows}x{columns}; "
                             "build the model for this image size")
        if self.separable:
            require_several(x.shape[0] * x.shape[1], self.training, x.shape)
        return rearrange(self.map(rearrange(x, "b (h w) d -> b d h w", h=rows)), "b d h w -> b (h w) d")


class HeadsQKV(nn.Module):
    """The maps that softmax, Performer, Nyström and linear attention share: x -> q, k, v -> out.

    qkv_bias, out_bias: of the maps.   qkv_norm, out_norm: batch normalisation after them (LeViT); the gain of out_norm
    starts at zero, so that a layer starts without its mixer.
    out_activation: None or "gelu", "hardswish" before the last map (LeViT).
    projection: "linear", or over a `grid` of tokens "separable" (CvT) or full "conv" 3×3 convolutions.
    `split(x)`: `[B, N, D] -> q, k, v` each `[B, H, N, d]`;  `join(heads)`: `[B, H, N, d] -> [B, N, D]`.
    """

    ACTIVATIONS = {None: nn.Identity, "gelu": nn.GELU, "hardswish": nn.Hardswish}

    def __init__(self, dim: int, heads: int, dim_head: int, *, qkv_bias: bool = False, out_bias: bool = True,
                 qkv_norm: bool = False, out_norm: bool = False, out_activation: str | None = None,
                 projection: str = "linear", grid: tuple[int, int] | None = None) -> None:
        super().__init__()
        require_count(dim=dim, heads=heads, dim_head=dim_head)
        require_known("out_activation", out_activation, self.ACTIVATIONS)
        require_known("projection", projection, ("linear", "separable", "conv"))
        if projection != "linear" and grid is None:
            raise ValueError(f"projection={projection!r} convolves over the picture and needs its grid=(rows, "
                             "columns), which only CvT and CXV tell their mixers; use projection='linear' elsewhere")
        require_flag(qkv_bias=qkv_bias, out_bias=out_bias, qkv_norm=qkv_norm, out_norm=out_norm)
        self.heads, self.dim_head, self.dim = heads, dim_head, dim
        inner = heads * dim_head
        require_room(4 * dim * inner, dim=dim, heads=heads, dim_head=dim_head)
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias) if projection == "linear" else None
        if projection != "linear":
            self.to_q, self.to_k, self.to_v = (
                GridConv(dim, inner, grid, projection == "separable", qkv_bias) for _ in range(3))
        self.qkv_norm = BatchNormTokens(3 * inner) if qkv_norm else nn.Identity()
        self.activation = self.ACTIVATIONS[out_activation]()
        self.to_out = GridConv(inner, dim, grid, False, out_bias) if projection == "conv" else \
            nn.Linear(inner, dim, bias=out_bias)
        self.out_norm = BatchNormTokens(dim) if out_norm else nn.Identity()
        if out_norm:
            nn.init.zeros_(self.out_norm.weight)

    def qkv(self, x: Tensor) -> Tensor:
        """q, k and v side by side, `[B, N, D] -> [B, N, 3·H·d]`."""
        if self.to_qkv is not None:
            return self.to_qkv(x)
        return torch.cat([self.to_q(x), self.to_k(x), self.to_v(x)], dim=-1)

    def check(self, x: Tensor) -> None:
        """`x` must be tokens for this mixer, of the type of its maps."""
        check_tokens(x, self.dim, next(self.parameters(), None) if self.to_qkv is None else weight_of(self.to_qkv))

    def split(self, x: Tensor, rotary: Rotary | None) -> tuple[Tensor, Tensor, Tensor]:
        self.check(x)
        mapped = self.qkv_norm(self.qkv(x))
        # Views of one tensor: backward writes one gradient, instead of putting three together.
        parts = rearrange(mapped, "b n (three h d) -> b n three h d", three=3, h=self.heads).unbind(2)
        q, k, v = (rearrange(part, "b n h d -> b h n d") for part in parts)
        # Rotated, q and k are new tensors. v is copied, too: as a view it would keep the old ones in memory.
        return (q, k, v) if rotary is None else (rotary(q), rotary(k), v.contiguous())

    def join(self, heads: Tensor) -> Tensor:
        return self.out_norm(self.to_out(self.activation(rearrange(heads, "b h n d -> b n (h d)"))))
