"""The feed-forward of a block, keeping for backward only what is dear to compute again."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import require_known


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


class FeedForward(nn.Sequential):
    """W₂ gelu(W₁ x) on each token, `[B, N, D] -> [B, N, D]`, hidden width mlp_dim; with `norm`, of norm(x).

    activation: "gelu" or "hardswish".
    """

    ACTIVATIONS = {"gelu": nn.GELU, "hardswish": nn.Hardswish}

    def __init__(self, dim: int, mlp_dim: int, dropout: float = 0.0, activation: str = "gelu") -> None:
        require_known("activation", activation, self.ACTIVATIONS)
        super().__init__(nn.Linear(dim, mlp_dim), self.ACTIVATIONS[activation](), nn.Dropout(dropout),
                         nn.Linear(mlp_dim, dim), nn.Dropout(dropout))

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        scale = scale_and_shift(norm)
        other = type(self[1]) is not nn.GELU or self.training and self[2].p > 0
        # One autograd node where something is kept at all; without gradients, and with dropout, module by module.
        if scale is None or other or not torch.is_grad_enabled():
            return super().forward(x if norm is None else norm(x))
        return LeanFeedForward.apply(x, *scale, self[0].weight, self[0].bias, self[3].weight, self[3].bias)


def scale_and_shift(norm: nn.Module | None) -> tuple[Tensor | None, Tensor | None, float] | None:
    """(scale, shift, epsilon) of a layer normalisation over the features, or None for any other module."""
    if norm is None:
        return None, None, 0.0
    if type(norm) is ChannelNorm:
        return norm.gain, norm.shift, norm.eps
    if type(norm) is nn.LayerNorm and len(norm.normalized_shape) == 1 and norm.bias is not None:
        return norm.weight, norm.bias, norm.eps
    return None


class LeanFeedForward(torch.autograd.Function):
    """W₂ gelu(W₁ norm(x) + b₁) + b₂, which keeps x and gelu's input only.

    Autograd would keep norm(x) and gelu's output as well, about twice the bytes; both are cheap to make again.
    scale None: without the normalisation. Under autocast the products are in its type, norm and sums as usual.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float,
                w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        device = x.device.type
        ctx.type = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        ctx.eps = eps
        with torch.autocast(device, enabled=False):
            hidden = F.linear(LeanFeedForward.normed(x, scale, shift, eps).to(ctx.type), w1.to(ctx.type),
                              b1.to(ctx.type))
            ctx.save_for_backward(x, hidden, scale, shift, w1, b1, w2, b2)
            return F.linear(F.gelu(hidden), w2.to(ctx.type), b2.to(ctx.type))

    @staticmethod
    def normed(x: Tensor, scale: Tensor | None, shift: Tensor | None, eps: float) -> Tensor:
        return x if scale is None else F.layer_norm(x, scale.shape, scale, shift, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, scale, shift, w1, b1, w2, b2 = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            grad = grad.flatten(0, -2)
            d_w2, d_b2 = grad.mT @ F.gelu(hidden).flatten(0, -2), grad.sum(0)
            d_hidden = torch.ops.aten.gelu_backward(grad @ w2.to(ctx.type), hidden.flatten(0, -2))
            with torch.enable_grad():  # the normalisation again, for its output and its own gradients
                inputs = [t.detach().requires_grad_() for t in (x, scale, shift) if t is not None]
                normed = LeanFeedForward.normed(inputs[0], *(inputs[1:] or (None, None)), ctx.eps)
            d_w1, d_b1 = d_hidden.mT @ normed.detach().to(ctx.type).flatten(0, -2), d_hidden.sum(0)
            d_normed = (d_hidden @ w1.to(ctx.type)).view_as(x).to(x.dtype)
            d_x, d_scale, d_shift = (d_normed, None, None) if scale is None else \
                torch.autograd.grad(normed, inputs, d_normed)
        weights = (gradient.to(weight.dtype) for gradient, weight in
                   ((d_w1, w1), (d_b1, b1), (d_w2, w2), (d_b2, b2)))
        return d_x, d_scale, d_shift, None, *weights
