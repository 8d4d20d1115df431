"""Nyström attention: the softmax matrix rebuilt from a few landmark tokens."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..errors import MOST, require_between, require_count, require_known, require_like, require_room
from ..lean import once_differentiable, untouched
from ..positions import Rotary
from ..precision import autocast_off
from .heads import HeadsQKV
from .softmax import SoftmaxAttention

# In directions where A is zero, each iteration multiplies the rounding error by 13/4. For nearly equal tokens it is
# 1e-5 after 20 of them in float32 and as large as the result after 30; float64 gets to 1e-5 after about 50.
FLOAT32_ITERATIONS, MOST_ITERATIONS = 20, 40


def segment_means(x: Tensor, segments: int) -> Tensor:
    """Means over `segments` runs of consecutive tokens, `[B, H, N, d] -> [B, H, segments, d]`.

    Run lengths differ by at most one, longer runs first, so every token is in exactly one run and none is padding.
    """
    require_like("x", x, None)
    if x.ndim != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected heads [B, H, N, d]")
    require_between(1, x.shape[2], segments=segments)
    short, longer = divmod(x.shape[2], segments)
    head, tail = x.split([longer * (short + 1), (segments - longer) * short], dim=2)
    return torch.cat([rearrange(head, "b h (m s) d -> b h m s d", s=short + 1).mean(3),
                      rearrange(tail, "b h (m s) d -> b h m s d", s=short).mean(3)], dim=2)


def starting_scale(a: Tensor) -> Tensor:
    """What the iterations divide aᵀ by to start from: the largest row sum times the largest column sum of each
    `[..., m, m]`, as `[..., 1, 1]`, without a gradient.

    One a matrix, not one for the batch: an image's result must not depend on its neighbours.
    """
    sizes = a.detach().abs()
    return (sizes.sum(-1).amax(-1) * sizes.sum(-2).amax(-1))[..., None, None]


def as_batch(matrices: Tensor) -> Tensor:
    """`[..., m, m] -> [B, m, m]`."""
    return matrices.reshape(-1, *matrices.shape[-2:])


def newton_schulz(a: Tensor, iterations: int, trace: list[tuple[Tensor, ...]] | None = None) -> Tensor:
    """Approximate pseudo-inverse of row-stochastic `[..., m, m]`: Xiong et al., "Nyströmformer", eq. (15).

    trace: a list that receives each iteration's z, az, s = 7 - az, u = 15 - az s and p = (13 - az u) / 4, `[B, m, m]`.
    """
    if not isinstance(a, Tensor) or not a.is_floating_point():  # in words that torch.compile can follow
        raise TypeError(f"a={a if not isinstance(a, Tensor) else a.dtype} must be a floating-point tensor [..., m, m]")
    if a.ndim < 2 or a.shape[-2] != a.shape[-1] or 0 in a.shape:
        raise ValueError(f"a has shape {tuple(a.shape)}; expected square matrices [..., m, m]")
    require_between(0, MOST, iterations=iterations)
    # baddbmm is c + α a b in one kernel, but takes one batch axis: [..., m, m] becomes [B, m, m]. (bmm is @ for those.)
    flat, z = as_batch(a), as_batch(a.mT / starting_scale(a))
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    seven, fifteen, quarter_of_13 = 7 * identity, 15 * identity, 13 / 4 * identity
    for _ in range(iterations):
        az = torch.bmm(flat, z)
        s = seven - az
        u = torch.baddbmm(fifteen, az, s, alpha=-1)
        p = torch.baddbmm(quarter_of_13, az, u, alpha=-1 / 4)
        if trace is not None:
            trace.append((z, az, s, u, p))
        z = torch.bmm(z, p)
    return z.view_as(a)


class IterativeInverse(torch.autograd.Function):
    """newton_schulz that keeps only its input: backward makes the iterations again and differentiates them in turn."""

    @staticmethod
    def forward(ctx, a: Tensor, iterations: int) -> Tensor:
        ctx.save_for_backward(a)
        ctx.iterations = iterations
        return newton_schulz(a, iterations)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        a, = ctx.saved_tensors
        trace: list[tuple[Tensor, ...]] = []
        with autocast_off(a.device):
            newton_schulz(a, ctx.iterations, trace)
            flat, grad = as_batch(a), as_batch(grad)
            d_a = torch.zeros_like(flat)
            for z, az, s, u, p in reversed(trace):
                d_p = torch.bmm(z.mT, grad)
                d_u = torch.bmm(az.mT, d_p).div_(-4)
                d_az = torch.bmm(az.mT, d_u).baddbmm_(d_u, s.mT, alpha=-1).baddbmm_(d_p, u.mT, alpha=-1 / 4)
                d_a.baddbmm_(d_az, z.mT)
                grad = torch.bmm(grad, p.mT).baddbmm_(flat.mT, d_az)
        return d_a.view_as(a) + (grad.view_as(a) / starting_scale(a)).mT, None


def exact_inverse(a: Tensor) -> Tensor:
    """The pseudo-inverse of `[..., m, m]`; of a broken picture's it is NaN, and must not stop that of the others."""
    whole = a.isfinite().all(dim=(-2, -1), keepdim=True)
    inverse = torch.linalg.pinv(a.where(whole, torch.zeros_like(a)))
    return inverse.where(whole, torch.full_like(inverse, torch.nan))


def pseudo_inverse(a: Tensor, iterations: int | None) -> Tensor:
    """Of row-stochastic `[..., m, m]`, by so many of newton_schulz's iterations; None: exactly."""
    if iterations is None:
        return exact_inverse(a)
    wide = a.double() if iterations > FLOAT32_ITERATIONS else a
    return IterativeInverse.apply(wide, iterations).to(a.dtype)


def require_iterations(iterations: int | None) -> None:
    """As many as do not let rounding grow beyond the result, or None."""
    if iterations is not None:
        require_count(iterations=iterations)
        if iterations > MOST_ITERATIONS:
            raise ValueError(f"iterations={iterations} lets rounding grow beyond the result; use at most "
                             f"{MOST_ITERATIONS}, or None for the exact pseudo-inverse")


class NystromAttention(HeadsQKV):
    """softmax(q k̃ᵀ) A⁺ softmax(q̃ kᵀ) v + conv(v), A = softmax(q̃ k̃ᵀ): Xiong et al., "Nyströmformer", eq. (13).

    q̃, k̃: num_landmarks means over consecutive tokens. Any sequence length: the runs may differ by one token
    in length. padding="front" instead puts zeros before the tokens up to a multiple of num_landmarks, as the
    reference does: they dilute the first landmarks, and act as keys that no mask hides.
    iterations: of the pseudo-inverse; 6 as published. They are far from converged at 1025 tokens, yet
    converging makes sharp attention worse, so this number is part of the model. None: the exact pseudo-inverse,
    whose decomposition looks at numbers, so that no CUDA graph can hold it (compile="graphs").
    maps: options of the linear maps, see HeadsQKV.
    conv_kernel: length of the depthwise convolution over the sequence, one filter a head; 0 leaves it out.
    """

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int | None = None,
                 num_landmarks: int = 64, iterations: int | None = 6, conv_kernel: int = 33,
                 padding: str | None = None, **maps) -> None:
        super().__init__(dim, heads, dim_head, **maps)
        require_count(num_landmarks=num_landmarks, **({} if seq_len is None else {"seq_len": seq_len}))
        if seq_len is not None and num_landmarks > seq_len:
            raise ValueError(f"num_landmarks={num_landmarks} exceeds the sequence length {seq_len}; "
                             f"use at most {seq_len}, or a smaller patch_size")
        require_known("padding", padding, (None, "front"))
        require_iterations(iterations)
        if type(conv_kernel) is not int or conv_kernel < 0 or (conv_kernel and conv_kernel % 2 == 0):
            raise ValueError(f"conv_kernel={conv_kernel} must be odd, or 0 for none, to keep the number of tokens")
        require_room(conv_kernel * heads, conv_kernel=conv_kernel, heads=heads)
        self.num_landmarks, self.iterations, self.padding = num_landmarks, iterations, padding
        self.conv = nn.Conv2d(heads, heads, (conv_kernel, 1), padding=(conv_kernel // 2, 0), groups=heads,
                              bias=False) if conv_kernel else None

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        self.check(x)
        tokens = x.shape[1]
        if tokens < self.num_landmarks:
            raise ValueError(f"num_landmarks={self.num_landmarks} exceeds the {tokens} tokens of x")
        q, k, v = self.split(x, rotary)
        if self.padding == "front":
            missing = -tokens % self.num_landmarks
            q, k, v = (F.pad(t, (0, 0, missing, 0)) for t in (q, k, v))
        q_land, k_land = segment_means(q, self.num_landmarks), segment_means(k, self.num_landmarks)
        # Both tall softmax matrices stay inside fused calls; only the landmark matrix is ever stored.
        summary = F.scaled_dot_product_attention(q_land, k, v)                        # [B, H, m, d]
        # A half-precision inverse is off by up to 10 %, and one that has converged has numbers beyond what that holds.
        with autocast_off(x.device):
            inverse = self.inverse(SoftmaxAttention.attention(q_land, k_land))
            summary = (inverse @ summary.to(inverse.dtype)).to(v.dtype)
        out = F.scaled_dot_product_attention(q, k_land, summary)
        if self.conv is not None:
            out = out + self.convolve(v)
        return self.join(out if out.shape[2] == tokens else out[:, :, -tokens:])  # a slice costs a copy in backward

    def inverse(self, landmark_attention: Tensor) -> Tensor:
        """The (approximate) pseudo-inverse of `[B, H, m, m]`."""
        return pseudo_inverse(landmark_attention, self.iterations)

    def convolves_heads(self) -> bool:
        """Whether the convolution is as it was built: nobody has put another, a hook or other settings in its place."""
        conv = self.conv
        return (untouched(conv, nn.Conv2d) and conv.bias is None and conv.padding_mode == "zeros"
                and conv.in_channels == conv.out_channels == conv.groups == self.heads
                and (conv.kernel_size[1], conv.stride, conv.dilation) == (1, (1, 1), (1, 1)))

    def convolve(self, v: Tensor) -> Tensor:
        """One depthwise convolution along the tokens of `[B, H, N, d]`, each head with its own filter."""
        if not self.convolves_heads():
            return self.conv(v)
        _, heads, _, width = v.shape
        # As [B, H·d, N, 1]: the kernels share their work out by channels, of which [B, H, N, d] would have only H.
        # Channels-last v needs no copy, three to four times faster on a CPU; on CUDA it would take cuDNN's depthwise
        # kernels, which are known to be slow.
        layout = torch.contiguous_format if v.is_cuda else torch.channels_last
        columns = rearrange(v, "b h n d -> b (h d) n 1").contiguous(memory_format=layout)
        filters = repeat(self.conv.weight, "h 1 k 1 -> (h d) 1 k 1", d=width)
        mixed = F.conv2d(columns, filters, padding=self.conv.padding, groups=heads * width)
        return rearrange(mixed, "b (h d) n 1 -> b h n d", h=heads)
