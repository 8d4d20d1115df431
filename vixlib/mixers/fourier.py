"""Fourier mixing: no parameters, no attention."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from .heads import at_least_float32, float32_region


class FourierMixer(nn.Module):
    """Re(FFT over tokens(FFT over features(x))).

    Lee-Thorp et al., "FNet: Mixing Tokens with Fourier Transforms", eq. (3).

    Has no parameters; dim, heads, dim_head and seq_len are taken for the common signature only. It mixes by
    place in the sequence alone: there are no queries or keys that a rotary position could turn.
    """

    uses_rotary = False

    def __init__(self, dim: int, *, heads: int | None = None, dim_head: int | None = None,
                 seq_len: int | None = None) -> None:
        super().__init__()

    def forward(self, x: Tensor, rotary: None = None) -> Tensor:
        with float32_region(x):  # half-precision FFTs exist only for powers of two, and 1025 is none
            half = torch.fft.rfft(at_least_float32(x), dim=2)
            spectrum = torch.fft.fft(half, dim=1).real
            # x is real, so feature D-j at token n is feature j at token -n: half the work, the rest mirrored.
            width = x.shape[2]
            mirror = spectrum[:, :, 1:(width + 1) // 2].flip(2)
            mirror = torch.cat([mirror[:, :1], mirror[:, 1:].flip(1)], dim=1)
            return torch.cat([spectrum, mirror], dim=2).to(x.dtype)
