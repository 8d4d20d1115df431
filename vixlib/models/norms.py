"""Layer normalisation: under the name that the authors' code has for it, and keeping little for backward."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..mixers.heads import float32_region, product_type


class ChannelNorm(nn.Module):
    """Layer normalisation over a token's features, `[..., D] -> [..., D]`.

    nn.LayerNorm by another name: the authors' code has its scale and shift as bare parameters, so that the
    paper's way of counting leaves them out (see measure.count_parameters).
    """

    eps = 1e-5

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gain, self.shift = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.gain.shape, self.gain, self.shift, self.eps)


def scale_and_shift(norm: nn.Module | None) -> tuple[Tensor | None, Tensor | None, float] | None:
    """(scale, shift, epsilon) of a layer normalisation over the features, or None for any other module."""
    if norm is None:
        return None, None, 0.0
    if type(norm) is ChannelNorm:
        return norm.gain, norm.shift, norm.eps
    if type(norm) is nn.LayerNorm and len(norm.normalized_shape) == 1 and norm.bias is not None:
        return norm.weight, norm.bias, norm.eps
    return None


def normalised(norm: nn.Module, x: Tensor) -> Tensor:
    """norm(x), which under autocast keeps x for backward in half precision."""
    scale = scale_and_shift(norm)
    if scale is None or product_type(x) == x.dtype or not torch.is_grad_enabled():
        return norm(x)
    return LeanNorm.apply(x, *scale)


class LeanNorm(torch.autograd.Function):
    """Layer normalisation in the type of `scale`, which keeps x in autocast's, as the products after it keep theirs.

    The sums that x comes of stay in float32; what backward needs of x, its direction, is no finer than its gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        kept = x.to(product_type(x))
        with float32_region(x):
            out, mean, deviation = torch.native_layer_norm(x.to(scale.dtype), scale.shape, scale, shift, eps)
        ctx.save_for_backward(kept, scale, shift, mean, deviation)
        ctx.type = x.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, scale, shift, mean, deviation = ctx.saved_tensors
        with float32_region(kept):
            d_x, d_scale, d_shift = torch.ops.aten.native_layer_norm_backward(
                grad.to(scale.dtype), kept.to(scale.dtype), scale.shape, mean, deviation, scale, shift,
                [True, True, True])
        return d_x.to(ctx.type), d_scale, d_shift, None
