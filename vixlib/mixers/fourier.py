"""Fourier mixing: no parameters, no attention."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import require_like
from ..precision import at_least_float32, autocast_off


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
        require_like("x", x, None)
        if x.ndim != 3 or 0 in x.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}; expected tokens [B, N, D], at least one")
        with autocast_off(x.device):  # half-precision FFTs exist only for powers of two, and 1025 is none
            return FourierTransform.apply(at_least_float32(x)).to(x.dtype)


class FourierTransform(torch.autograd.Function):
    """Re(F_N x F_D) of `[B, N, D]`, F the matrices of the discrete Fourier transform.

    F is symmetric, so the gradient of the input is the same transform of the gradient: nothing is kept.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        # x is real, so feature D-j at token n is feature j at token -n: half the work, the rest mirrored.
        half = x.shape[2] // 2 + 1
        out = torch.empty_like(x)
        out[:, :, :half] = torch.fft.fft(torch.fft.rfft(x, dim=2), dim=1).real
        mirrored = out[:, :, 1:x.shape[2] - half + 1]  # of `out`, as its features lie side by side; the FFT's do not
        out[:, :1, half:] = mirrored[:, :1].flip(2)
        out[:, 1:, half:] = mirrored[:, 1:].flip(1, 2)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return FourierTransform.apply(grad)
