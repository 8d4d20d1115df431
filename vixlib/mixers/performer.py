"""Performer: attention through random features, linear in the number of tokens."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import require_count, require_known, require_number, require_room
from .heads import HeadsQKV, Rotary, at_least_float32, float32_region


def orthogonal_features(num_features: int, dim_head: int, generator: torch.Generator | None = None) -> Tensor:
    """Random directions `[num_features, dim_head]`, orthogonal in blocks of dim_head, Gaussian lengths.

    Choromanski et al., "Rethinking attention with Performers", section 2.4: orthogonal directions keep the
    estimate unbiased and lower its variance.
    """
    blocks = math.ceil(num_features / dim_head)
    gaussian = torch.randn(blocks, dim_head, dim_head, generator=generator)
    q, r = torch.linalg.qr(gaussian)
    # QR alone fixes signs by its own convention, which biases the estimate however many features there are;
    # R's signs make Q uniform over rotations (Mezzadri, "How to generate random matrices from the classical
    # compact groups", section 5).
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    directions = q.mT.reshape(blocks * dim_head, dim_head)[:num_features]
    lengths = torch.randn(num_features, dim_head, generator=generator).norm(dim=1, keepdim=True)
    return directions * lengths


class PerformerAttention(HeadsQKV):
    """φ(q) (φ(k)ᵀ v) / φ(q) Σφ(k): Choromanski et al., "Rethinking attention with Performers", eq. (4), Alg. 1.

    kernel "favor": positive random features of the softmax kernel (their Lemma 1), what the paper's published
    code trains; "relu": φ(x) = relu(w·x) (generalised attention), what the paper's text names.
    num_features: m directions w; None takes int(d ln d), the published code's 110 at d = 32.
    epsilon: added to every feature so that the normaliser stays positive; None takes the published code's
    values, 1e-4 ("favor") and 1e-3 ("relu").
    maps: options of the linear maps, see HeadsQKV; here q, k and v have a bias unless qkv_bias=False.
    The directions are a buffer drawn at construction; `redraw()` draws new ones (the published code never does).
    With `rotary`, q and k are rotated before φ, so the normaliser sees rotated features too and stays
    positive; the result then depends on absolute positions slightly, unlike softmax's.
    """

    EPSILON = {"favor": 1e-4, "relu": 1e-3}

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int | None = None,
                 kernel: str = "favor", num_features: int | None = None, epsilon: float | None = None,
                 **maps) -> None:
        super().__init__(dim, heads, dim_head, **{"qkv_bias": True, **maps})
        require_known("kernel", kernel, self.EPSILON)
        self.kernel = kernel
        self.num_features = max(1, int(dim_head * math.log(dim_head))) if num_features is None else num_features
        require_count(num_features=self.num_features)
        require_room(self.num_features * dim_head, num_features=self.num_features, dim_head=dim_head)
        self.epsilon = self.EPSILON[kernel] if epsilon is None else epsilon
        require_number("epsilon", self.epsilon, lambda value: value >= 0, "of 0 or above, for instance 1e-4")
        self.register_buffer("directions", orthogonal_features(self.num_features, dim_head))

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Replace the random directions by new ones (from `generator`, on the CPU, if given)."""
        self.directions.copy_(orthogonal_features(*self.directions.shape, generator=generator))

    def features(self, x: Tensor, is_query: bool) -> Tensor:
        """φ(x) without its epsilon: `[B, H, N, d] -> [B, H, N, m]`, all ≥ 0.

        favor: exp(w·x - |x|²/2 - c); the factor exp(-c) cancels in the ratio and guards against overflow, so c
        is detached. c is the largest w·x of each query token, but a single one per image and head for the
        keys, which must keep their relative weights; never one of the whole batch, as in the published code.
        """
        scale = x.shape[-1] ** -0.25  # on both sides, together softmax's 1/√d
        logits = x @ (scale * self.directions.to(x.dtype)).T
        if self.kernel == "relu":
            return logits.relu()
        largest = logits.detach().amax(-1 if is_query else (-2, -1), keepdim=True)
        half_norm = x.square().sum(-1, keepdim=True) * (scale ** 2 / 2)
        # In place, and added rather than subtracted: three tables [N, m] less to write, one of them in backward.
        return logits.add_(-half_norm - largest).exp_()

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        q, k, v = self.split(x, rotary)
        with float32_region(x):  # exponents and the normaliser need float32's range
            phi_q = self.features(at_least_float32(q), is_query=True)
            phi_k = self.features(at_least_float32(k), is_query=False)
            out = self.normalised_product(phi_q, phi_k, at_least_float32(v))
        return self.join(out.to(v.dtype))

    def normalised_product(self, phi_q: Tensor, phi_k: Tensor, v: Tensor) -> Tensor:
        """(φq+ε) ((φk+ε)ᵀ v) over its row sums; ε enters in closed form, so φ+ε is never stored."""
        v = F.pad(v, (0, 1), value=1.0)  # a column of ones beside v carries the row sums through the same product
        # vᵀφ rather than φᵀv: the gradient of φ then lies in memory as φ does, which its product with φ wants.
        context = v.mT @ phi_k + self.epsilon * v.sum(-2).unsqueeze(-1)               # [B, H, d+1, m]
        out = phi_q @ context.mT + self.epsilon * context.sum(-1).unsqueeze(-2)       # [B, H, N, d+1]
        return Quotient.apply(out[..., :-1], out[..., -1:])


class Quotient(torch.autograd.Function):
    """numerator / denominator, `[B, H, N, d] / [B, H, N, 1]`, which keeps the quotient instead of the numerator.

    The next map keeps the quotient anyway, in one storage with this, because it is laid out `[B, N, H, d]`.
    """

    @staticmethod
    def forward(ctx, numerator: Tensor, denominator: Tensor) -> Tensor:
        quotient = numerator.transpose(1, 2).contiguous().transpose(1, 2).div_(denominator)
        # A copy, because a slice would keep the numerator beside it alive.
        ctx.save_for_backward(quotient, denominator.clone(memory_format=torch.contiguous_format))
        return quotient

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        quotient, denominator = ctx.saved_tensors
        return grad / denominator, -(grad * quotient).sum(-1, keepdim=True) / denominator
