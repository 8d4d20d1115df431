"""Linear attention with plain feature maps: no random features, no landmarks."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import require_flag, require_known
from ..positions import Rotary
from ..precision import at_least_float32, autocast_off
from .heads import HeadsQKV


class LinearAttention(HeadsQKV):
    """φq(q) (φk(k)ᵀ v), linear in the number of tokens.

    feature_map "softmax": softmax of q over its features and of k over the tokens (Shen et al., "Efficient
    Attention: Attention with Linear Complexities", eq. (3)); rows of the implied matrix sum to one.
    "elu": φ = elu + 1 for both, divided by the row sums (Katharopoulos et al., "Transformers are RNNs: Fast
    Autoregressive Transformers with Linear Attention", eqs. (4), (7)); a row sum below 1e-6, which very negative
    queries and keys have, counts as 1e-6, without a gradient.
    scaled: q and k times d^(-1/4) each before φ, as in the code of "Convolutional Xformers for Vision" (CLTV).
    maps: see HeadsQKV.
    seq_len is taken for the common signature only.
    """

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int | None = None,
                 feature_map: str = "softmax", scaled: bool = False, **maps) -> None:
        super().__init__(dim, heads, dim_head, **maps)
        require_known("feature_map", feature_map, ("softmax", "elu"))
        require_flag(scaled=scaled)
        self.feature_map, self.scaled = feature_map, scaled

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        q, k, v = self.split(x, rotary)
        with autocast_off(x.device):  # sums over all tokens
            q, k, values = at_least_float32(q), at_least_float32(k), at_least_float32(v)
            if self.scaled:
                q, k = q * self.dim_head ** -0.25, k * self.dim_head ** -0.25
            if self.feature_map == "softmax":
                out = q.softmax(-1) @ (k.softmax(-2).mT @ values)
            else:
                q, k = F.elu(q) + 1, F.elu(k) + 1
                # The bound keeps loud pictures, whose features all come out as zero, from 0 / 0.
                out = q @ (k.mT @ values) / (q @ k.sum(-2).unsqueeze(-1)).clamp(min=1e-6)
        return self.join(out.to(v.dtype))
