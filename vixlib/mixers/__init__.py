"""Token mixers: how the tokens of one image exchange information, `[B, N, D] -> [B, N, D]`.

Every mixer is built as `Mixer(dim, *, heads, dim_head, seq_len, **own)` and called `mixer(x, rotary=None)`;
the host knows nothing else about it. `rotary` turns `[B, H, N, d]` by the tokens' positions (see positions.py);
it acts on queries and keys before the feature map, the landmarks or the sequence projection, never on values.

B batch, N tokens, D = dim, H heads, d = head dimension (dim_head), I = H·d the inner width.
"""
from __future__ import annotations

from .fourier import FourierMixer
from .heads import BatchNormTokens, HeadsQKV
from .linear import LinearAttention
from .linformer import LinformerAttention, linformer_projection
from .mlp import MLPMixer
from .nystrom import NystromAttention, newton_schulz, segment_means
from .performer import PerformerAttention, orthogonal_features
from .softmax import SoftmaxAttention

MIXERS = {"softmax": SoftmaxAttention, "performer": PerformerAttention, "linformer": LinformerAttention,
          "nystrom": NystromAttention, "linear": LinearAttention, "fourier": FourierMixer, "mlp": MLPMixer}

__all__ = ["MIXERS", "BatchNormTokens", "FourierMixer", "HeadsQKV", "LinearAttention", "LinformerAttention",
           "MLPMixer", "NystromAttention", "PerformerAttention", "SoftmaxAttention", "linformer_projection",
           "newton_schulz", "orthogonal_features", "segment_means"]
