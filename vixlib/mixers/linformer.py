"""Linformer: attention to a fixed number of mixtures of the tokens."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import require_count, require_flag, require_room, require_type
from ..lean import weight_of
from ..positions import Rotary
from ..precision import product_type
from .heads import check_tokens


def linformer_projection(seq_len: int, rank: int) -> nn.Parameter:
    """A sequence projection `[N, rank]`, uniform in ±1/√rank."""
    require_count(seq_len=seq_len, rank=rank)
    return nn.Parameter(torch.empty(seq_len, rank).uniform_(-1, 1) * rank ** -0.5)


def shorten(x: Tensor, projection: Tensor) -> Tensor:
    """Pᵀx of every image, `[B, N, D] -> [B, rank, D]`."""
    # `projection.T @ x` would transpose a copy of x, to make one product of all images. P changes its type before it is
    # expanded: autocast would copy it once an image.
    return torch.bmm(projection.T.to(product_type(x)).expand(x.shape[0], -1, -1), x)


class LinformerAttention(nn.Module):
    """softmax(q (PᵀK)ᵀ / √d) (PᵀV): Wang et al., "Linformer: Self-attention with linear complexity", eq. (7).

    rank: how many mixtures of the N keys and values remain (k in their paper); at most seq_len.
    shared_head: one key and one value head serve all query heads.   shared_kv: the values are the keys.
    shared_projection: one P for keys and values ("key-value sharing"); False learns one each.
    sequence_projection: pass one `linformer_projection(...)` to every layer for their "layer-wise sharing";
    None gives each layer its own. The number of tokens is fixed by P's rows.
    """

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int, rank: int = 64,
                 shared_head: bool = True, shared_kv: bool = True, shared_projection: bool = True,
                 sequence_projection: nn.Parameter | None = None,
                 out_bias: bool = True) -> None:
        super().__init__()
        require_count(dim=dim, heads=heads, dim_head=dim_head, seq_len=seq_len, rank=rank)
        if rank > seq_len:
            raise ValueError(f"rank={rank} exceeds the sequence length {seq_len}; use at most {seq_len}, "
                             "or a smaller patch_size")
        require_flag(shared_head=shared_head, shared_kv=shared_kv, shared_projection=shared_projection,
                     out_bias=out_bias)
        require_room(seq_len * rank, seq_len=seq_len, rank=rank)
        require_room(2 * dim * heads * dim_head, dim=dim, heads=heads, dim_head=dim_head)
        self.dim, self.heads, self.dim_head, self.seq_len = dim, heads, dim_head, seq_len
        key_width = dim_head if shared_head else heads * dim_head
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_k = nn.Linear(dim, key_width, bias=False)
        self.to_v = None if shared_kv else nn.Linear(dim, key_width, bias=False)
        self.project_k = linformer_projection(seq_len, rank) if sequence_projection is None else sequence_projection
        require_type("sequence_projection", self.project_k, nn.Parameter, "an nn.Parameter [seq_len, rank] or None")
        if self.project_k.shape != (seq_len, rank):
            raise ValueError(f"sequence_projection has shape {tuple(self.project_k.shape)}; seq_len={seq_len} and "
                             f"rank={rank} need ({seq_len}, {rank})")
        self.project_v = None if shared_projection else linformer_projection(seq_len, rank)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=out_bias)

    def check(self, x: Tensor) -> None:
        """`x` must be as many tokens as P has rows, of the type of the maps."""
        check_tokens(x, self.dim, weight_of(self.to_q))
        if x.shape[1] != self.seq_len:
            raise ValueError(f"x has {x.shape[1]} tokens but this Linformer projects {self.seq_len}; "
                             f"build the model for this image size")

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        self.check(x)
        x = x.to(product_type(x))  # one half copy for all products, where under autocast each would keep its own
        q = self.as_heads(self.to_q(x))
        short_x = shorten(x, self.project_k)                                          # [B, rank, D]
        if rotary is None:
            k = self.mixtures(self.to_k, x, short_x, self.project_k)
        else:  # a rotation differs from token to token, so keys must turn before they are mixed
            q, k = rotary(q), self.project_k.T @ rotary(self.as_heads(self.to_k(x)))
        if rotary is None and self.to_v is None and self.project_v is None:
            v = k
        else:
            project_v = self.project_k if self.project_v is None else self.project_v
            short_v = short_x if self.project_v is None else shorten(x, project_v)
            v = self.mixtures(self.to_v or self.to_k, x, short_v, project_v)
        if k.shape[1] == 1:  # H heads of N queries share it, as one head of H·N queries: no H copies of k and v
            out = F.scaled_dot_product_attention(rearrange(q, "b h n d -> b 1 (n h) d"), k, v)
            return self.to_out(rearrange(out, "b 1 (n h) d -> b n (h d)", h=self.heads))
        return self.to_out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))

    def mixtures(self, to: nn.Module, x: Tensor, short_x: Tensor, projection: Tensor) -> Tensor:
        """Pᵀ to(x), `[B, h, rank, d]`; short_x: Pᵀx."""
        if weight_of(to) is None or to.bias is not None:  # what somebody has put there need not be linear
            return projection.T @ self.as_heads(to(x))
        # Projecting the sequence before the features, (PᵀX)W = Pᵀ(XW), leaves nothing N long to keep for k, v.
        return self.as_heads(to(short_x))

    def as_heads(self, x: Tensor) -> Tensor:
        """`[B, N, h·d] -> [B, h, N, d]`, h = heads, or 1 for a shared head."""
        return rearrange(x, "b n (h d) -> b h n d", d=self.dim_head)
