"""Layer normalisation: under the name that the authors' code has for it, and keeping little for backward."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..lean import as_new, once_differentiable, untouched
from ..precision import HALF, autocast_off, product_type


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


def scale_shift_eps(norm: nn.Module | None) -> tuple[Tensor | None, Tensor | None, float] | None:
    """(scale, shift, epsilon) of a layer normalisation over the features; without one scale and shift are None. None
    for any other module."""
    if norm is None:
        return None, None, 0.0
    if untouched(norm, ChannelNorm):
        return norm.gain, norm.shift, norm.eps
    if untouched(norm, nn.LayerNorm) and len(norm.normalized_shape) == 1 and norm.bias is not None:
        return norm.weight, norm.bias, norm.eps
    return None


def lean_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """norm(x), which under autocast keeps half as much of x for backward."""
    settings = scale_shift_eps(norm)
    if settings is None or product_type(x) == x.dtype or not torch.is_grad_enabled():
        return apply_norm(norm, x)
    return LeanNorm.apply(x, *settings)


def apply_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """norm(x), x converted first where the norm's weights are half: a CPU takes no float32 x beside them, which is what
    the residual stream is under autocast."""
    scale = (scale_shift_eps(norm) or (None,))[0]
    return norm(x if scale is None or scale.dtype not in HALF else x.to(scale.dtype))


class LeanNorm(torch.autograd.Function):
    """Layer normalisation in the type of `scale`, which keeps x̂ = (x - mean) / σ for backward in autocast's type, half
    the bytes of x. The output is made from that rounded x̂."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        kept_type = product_type(x)
        with autocast_off(x.device):
            out, kept, rstd = norm_to_keep(x, scale, shift, eps, kept_type, out_type=scale.dtype)
        ctx.save_for_backward(kept, rstd, scale, shift)
        ctx.type = x.dtype
        return as_new(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, rstd, scale, shift = ctx.saved_tensors
        with autocast_off(kept.device):
            d_x, d_scale, d_shift = norm_backward(grad, kept, rstd, scale, shift)
        return d_x.to(ctx.type), d_scale, d_shift, None


def norm_to_keep(x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float, kept_type: torch.dtype,
                 out_type: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    """(the norm of x, what to keep of x in `kept_type`, each token's rstd = 1/σ); scale None: no norm, x itself.

    In x's own type x is kept, which others keep already, and no rstd. In a smaller one x̂ = (x - mean) · rstd is: of x
    itself, rounding to half precision would leave little beside a large mean, and might overflow.
    """
    if scale is None:
        x = x.to(kept_type)
        return x, x, None
    wide = x.to(scale.dtype)  # CUDA normalises in one type alone
    if kept_type == x.dtype:
        return torch.native_layer_norm(wide, scale.shape, scale, shift, eps)[0], x, None
    normed, _, rstd = torch.native_layer_norm(wide, scale.shape, None, None, eps)
    kept = normed.to(kept_type)
    return _scaled(kept, scale, shift, out_type), kept, rstd


def norm_again(kept: Tensor, rstd: Tensor | None, scale: Tensor | None, shift: Tensor | None,
               eps: float) -> tuple[Tensor, tuple[Tensor, ...]]:
    """(the norm of x, its mean and rstd) from what norm_to_keep kept; the norm is in that type. Where x̂ was kept, its
    mean and rstd are known, and left out."""
    if scale is None:
        return kept, ()
    if rstd is None:
        normed, *moments = torch.native_layer_norm(kept.to(scale.dtype), scale.shape, scale, shift, eps)
        return normed, tuple(moments)
    return _scaled(kept, scale, shift, kept.dtype), ()


def _scaled(normed: Tensor, scale: Tensor, shift: Tensor, out_type: torch.dtype) -> Tensor:
    """normed * scale + shift, computed in the type of `scale`; a conversion apart would be one more pass over it."""
    return torch.addcmul(shift, normed, scale, out=torch.empty_like(normed, dtype=out_type))


def norm_backward(grad: Tensor, kept: Tensor, rstd: Tensor | None, scale: Tensor | None, shift: Tensor | None,
                  moments: tuple[Tensor, ...] = (),
                  residual: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of x, scale and shift from that of the norm; `moments` as norm_again gave them; `residual` is added to
    that of x.

    Where x̂ was kept, they are those of its own norm (its mean is 0, its rstd is 1), times the rstd of x.
    """
    if scale is None:
        return grad if residual is None else grad + residual, None, None
    if rstd is not None:
        moments = torch.zeros_like(rstd), torch.ones_like(rstd)
    d_x, d_scale, d_shift = torch.ops.aten.native_layer_norm_backward(
        grad.to(scale.dtype), kept.to(scale.dtype), scale.shape, *moments, scale, shift, [True, True, True])
    if rstd is None:
        d_x = d_x if residual is None else d_x.add_(residual)
    else:
        d_x = d_x.mul_(rstd) if residual is None else torch.addcmul(residual, d_x, rstd)
    return d_x, d_scale, d_shift
