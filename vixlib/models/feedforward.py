"""The feed-forward of a block, keeping for backward only what is dear to compute again."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import require_count, require_known, require_rate, require_room
from ..lean import as_new, once_differentiable, untouched
from ..precision import autocast_off, autocasts, product_type
from .norms import apply_norm, norm_again, norm_backward, norm_to_keep, scale_shift_eps


class FeedForward(nn.Sequential):
    """W₂ gelu(W₁ x) on each token, `[B, N, D] -> [B, N, D]`, hidden width mlp_dim.

    Called with `norm`, of norm(x) instead of x; with residual=True, plus x.   activation: "gelu" or "hardswish".
    """

    ACTIVATIONS = {"gelu": nn.GELU, "hardswish": nn.Hardswish}

    def __init__(self, dim: int, mlp_dim: int, dropout: float = 0.0, activation: str = "gelu") -> None:
        require_count(dim=dim, mlp_dim=mlp_dim)
        require_known("activation", activation, self.ACTIVATIONS)
        require_rate("dropout", dropout)
        require_room(2 * dim * mlp_dim, dim=dim, mlp_dim=mlp_dim)
        super().__init__(nn.Linear(dim, mlp_dim), self.ACTIVATIONS[activation](), nn.Dropout(dropout),
                         nn.Linear(mlp_dim, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor, norm: nn.Module | None = None, residual: bool = False) -> Tensor:
        settings = scale_shift_eps(norm)
        # One autograd node where something is kept at all; without gradients, with dropout, and where somebody has
        # changed a part, module by module.
        if settings is None or not torch.is_grad_enabled() or not self.is_plain(x):
            out = super().forward(x if norm is None else apply_norm(norm, x))
            return x + out if residual else out
        return LeanFeedForward.apply(x, residual, *settings, self[0].weight, self[0].bias, self[3].weight, self[3].bias)

    def is_plain(self, x: Tensor) -> bool:
        """Whether it computes what LeanFeedForward does, `x` being of its type."""
        kinds = nn.Linear, nn.GELU, nn.Dropout, nn.Linear, nn.Dropout
        if len(self) != len(kinds) or not all(map(untouched, self, kinds)):
            return False
        first, activation, inner, second, outer = self
        return (first.bias is not None and second.bias is not None and activation.approximate == "none"
                and (autocasts(x) or first.weight.dtype == second.weight.dtype == x.dtype)
                and not (inner.training and inner.p > 0 or outer.training and outer.p > 0))


class LeanFeedForward(torch.autograd.Function):
    """W₂ gelu(W₁ norm(x) + b₁) + b₂, plus x if `residual`, which keeps x and gelu's input only.

    Autograd would keep norm(x) and gelu's output as well, about twice the bytes; both are cheap to make again.
    What is written in place saves a table `[B·N, mlp_dim]` or `[B·N, D]` each, in bytes and in time.
    scale None: without the normalisation. Under autocast the products, and what is kept (see norm_to_keep), are in its
    type, norm and sums as usual.
    """

    @staticmethod
    def forward(ctx, x: Tensor, residual: bool, scale: Tensor | None, shift: Tensor | None, eps: float,
                w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        ctx.residual, ctx.eps, ctx.type, ctx.x_type = residual, eps, product_type(x), x.dtype
        with autocast_off(x.device):
            normed, kept, rstd = norm_to_keep(x, scale, shift, eps, ctx.type, ctx.type)
            ctx.weight_type = w1.dtype
            w1, b1, w2, b2 = (weight.to(ctx.type) for weight in (w1, b1, w2, b2))
            hidden = F.linear(normed.to(ctx.type), w1, b1)
            ctx.save_for_backward(kept, rstd, hidden, scale, shift, w1, w2)
            out = F.linear(F.gelu(hidden), w2, b2)
            if residual:
                out = out.add_(x) if out.dtype == x.dtype else x + out
            return as_new(out)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, rstd, hidden, scale, shift, w1, w2 = ctx.saved_tensors
        hidden = hidden.flatten(0, -2)
        with autocast_off(kept.device):
            d_out = grad.to(ctx.type).flatten(0, -2)
            active = F.gelu(hidden)
            d_w2, d_b2 = d_out.mT @ active, d_out.sum(0, dtype=ctx.weight_type)
            d_hidden = torch.mm(d_out, w2, out=active)
            torch.ops.aten.gelu_backward.grad_input(d_hidden, hidden, grad_input=d_hidden)
            normed, moments = norm_again(kept, rstd, scale, shift, ctx.eps)
            d_w1 = d_hidden.mT @ normed.to(ctx.type).flatten(0, -2)
            d_b1 = d_hidden.sum(0, dtype=ctx.weight_type)
            d_x = (d_hidden @ w1).view_as(kept)
            d_x, d_scale, d_shift = norm_backward(d_x, kept, rstd, scale, shift, moments,
                                                  grad if ctx.residual else None)
        weights = (gradient.to(ctx.weight_type) for gradient in (d_w1, d_b1, d_w2, d_b2))
        return d_x.to(ctx.x_type), None, d_scale, d_shift, None, *weights
