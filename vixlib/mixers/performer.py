"""Performer: attention through random features, linear in the number of tokens."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import require_count, require_known, require_number, require_room, require_type
from ..lean import as_new, once_differentiable
from ..positions import Rotary
from ..precision import at_least_float32, autocast_off
from .heads import HeadsQKV


def orthogonal_features(num_features: int, dim_head: int, generator: torch.Generator | None = None) -> Tensor:
    """Random directions `[num_features, dim_head]`, orthogonal in blocks of dim_head, Gaussian lengths.

    Choromanski et al., "Rethinking attention with Performers", section 2.4: orthogonal directions keep the
    estimate unbiased and lower its variance.
    """
    require_count(num_features=num_features, dim_head=dim_head)
    require_type("generator", generator, (torch.Generator, type(None)), "a torch.Generator, or None for torch's own")
    blocks = math.ceil(num_features / dim_head)
    default = torch.get_default_dtype()
    wide = torch.promote_types(default, torch.float32)  # QR knows no half precision
    how = {"generator": generator, "device": None if generator is None else generator.device, "dtype": wide}
    gaussian = torch.randn(blocks, dim_head, dim_head, **how)
    q, r = torch.linalg.qr(gaussian)
    # QR alone fixes signs by its own convention, which biases the estimate however many features there are;
    # R's signs make Q uniform over rotations (Mezzadri, "How to generate random matrices from the classical
    # compact groups", section 5).
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    directions = q.mT.reshape(blocks * dim_head, dim_head)[:num_features]
    lengths = torch.randn(num_features, dim_head, **how).norm(dim=1, keepdim=True)
    return (directions * lengths).to(default)


class PerformerAttention(HeadsQKV):
    """φ(q) (φ(k)ᵀ v) / φ(q) Σφ(k): Choromanski et al., "Rethinking attention with Performers", eq. (4), Alg. 1.

    kernel "favor": positive random features of the softmax kernel (their Lemma 1), what the paper's published
    code trains; "relu": φ(x) = relu(w·x) (generalised attention), what the paper's text names.
    num_features: m directions w; None takes int(d ln d), the published code's 110 at d = 32.
    epsilon: added to every feature so that the normaliser stays positive; None takes the published code's
    values, 1e-4 ("favor") and 1e-3 ("relu"); with 0 nothing does, and features that are all zero give NaN.
    maps: options of the linear maps, see HeadsQKV; here q, k and v have a bias unless qkv_bias=False.
    seq_len is taken for the common signature only.
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
        require_number("epsilon", self.epsilon, lambda value: 0 <= value <= 1e6, "from 0 to 1e6, for instance 1e-4")
        self.register_buffer("directions", orthogonal_features(self.num_features, dim_head))

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Replace the random directions by new ones (from `generator`, on the CPU, if given)."""
        self.directions.copy_(orthogonal_features(*self.directions.shape, generator=generator))

    def features(self, x: Tensor, is_query: bool) -> Tensor:
        """φ(x) without its epsilon: `[B, H, N, d] -> [B, H, N, m]`, all ≥ 0; see `feature_map`."""
        return feature_map(x, self.directions, self.kernel, is_query)[0]

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        if self.directions.requires_grad and torch.is_grad_enabled():
            raise ValueError("directions.requires_grad=True: random directions are fixed here, and nothing would train "
                             "them; keep them a buffer, or give ViX a mixer of your own")
        q, k, v = self.split(x, rotary)
        return self.join(FeatureAttention.apply(q, k, v, self.directions, self.kernel, self.epsilon))


def feature_map(x: Tensor, directions: Tensor, kernel: str, is_query: bool) -> tuple[Tensor, Tensor | None]:
    """φ(x), all ≥ 0, of directions w `[m, d]`: `[B, H, N, d] -> [B, H, N, m]`; and where c was found, None for relu.

    favor: exp(w·x - |x|²/2 - c); the factor exp(-c) guards against overflow. c is the largest w·x of each query token
    (places `[B, H, N, 1]`: which of its m), but a single one per image and head for the keys, which must keep their
    relative weights (places `[B, H, 1, 1]`: which of all N m); not one for the whole batch, which is what the
    published code takes. exp(-c) cancels in the ratio but for the ε that is added afterwards, so c needs its gradient.
    (The package performer-pytorch makes it a constant in backward: what that does, notebook 02, exercise 1, tries.)
    relu: relu(w·x).
    x is first multiplied by d^(-1/4): on both sides together softmax's 1/√d.
    """
    scale = x.shape[-1] ** -0.25
    logits = x @ (scale * directions.to(x.dtype)).T
    if kernel == "relu":
        return logits.relu_(), None
    largest, places = (logits if is_query else logits.flatten(-2).unsqueeze(-2)).max(-1, keepdim=True)
    half_norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() * (scale ** 2 / 2)
    # In place, because a new table [N, m] costs as much as its product.
    return logits.sub_(half_norm + largest).exp_(), places


class FeatureAttention(torch.autograd.Function):
    """(φ(q)+ε) ((φ(k)+ε)ᵀ v) over its row sums, q, k, v `[B, H, N, d]`, φ of `feature_map` with `directions`.

    As the equation has it, for tables of [B, H, N, m] and nothing spared (benchmarks/textbook.py):
        context = (φ(k)+ε)ᵀ v;  out = (φ(q)+ε) context / ((φ(q)+ε) Σₙ(φ(k)+ε))

    Keeps φ(q), φ(k) `[N, m]`, where c was found, and the output. The output costs nothing: laid out `[B, N, H, d]`, it
    is the storage that the output map keeps anyway. Backward writes one table for the gradients of both φ, where
    autograd would make four.
    Half precision is computed in float32, for the exponents and the normaliser; what is kept stays half, favor's
    tables as bfloat16, since they fall below what float16 can tell from zero.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, directions: Tensor, kernel: str, epsilon: float) -> Tensor:
        with autocast_off(q.device):
            phi_q, places_q = feature_map(at_least_float32(q), directions, kernel, is_query=True)
            phi_k, places_k = feature_map(at_least_float32(k), directions, kernel, is_query=False)
            context = over_tokens(with_ones(v), phi_k, epsilon)
            out = over_features(context, phi_q, epsilon)
            denominator = out[..., -1:].clone()  # a slice would keep the numerator beside it alive
            quotient = out[..., :-1].transpose(1, 2).contiguous().transpose(1, 2).div_(denominator).to(v.dtype)
            if kernel == "favor" and v.dtype != phi_q.dtype:
                phi_q, phi_k = phi_q.bfloat16(), phi_k.bfloat16()
            if places_q is not None:
                places_q = places_q.int()  # one of m a token: half of what int64 takes is enough
            ctx.save_for_backward(q, k, v, directions, phi_q, phi_k, places_q, places_k, context, quotient, denominator)
        ctx.kernel, ctx.epsilon = kernel, epsilon
        return as_new(quotient)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, directions, phi_q, phi_k, places_q, places_k, context, quotient, denominator = ctx.saved_tensors
        with autocast_off(q.device):
            grad = at_least_float32(grad)
            wide_q = at_least_float32(phi_q)
            if quotient.dtype != grad.dtype:  # rounded by itself it would no longer fit the φ beside it
                again = over_features(context, wide_q, ctx.epsilon)
                quotient, denominator = again[..., :-1] / again[..., -1:], again[..., -1:]
            d_out = F.pad(grad, (0, 1))
            d_out[..., -1:] = -(grad * quotient).sum(-1, keepdim=True)
            d_out.div_(denominator)
            d_context = over_tokens(d_out, wide_q, ctx.epsilon)
            del wide_q  # under autocast a table of its own
            d_v = over_features(d_context, at_least_float32(phi_k), ctx.epsilon)[..., :-1]
            table = d_out @ context
            d_q = feature_map_backward(table, at_least_float32(q), phi_q, places_q, directions)
            torch.matmul(with_ones(v), d_context, out=table)
            d_k = feature_map_backward(table, at_least_float32(k), phi_k, places_k, directions)
        return d_q.to(q.dtype), d_k.to(k.dtype), d_v.to(v.dtype), None, None, None


def with_ones(v: Tensor) -> Tensor:
    """v with a column of ones beside it, which carries the row sums through the same product."""
    return F.pad(at_least_float32(v), (0, 1), value=1.0)


def over_tokens(values: Tensor, phi: Tensor, epsilon: float) -> Tensor:
    """Σₙ: valuesᵀ (φ+ε), `[N, d]`, `[N, m] -> [d, m]`; ε enters in closed form, so that φ+ε is never stored."""
    return values.mT @ phi + epsilon * values.sum(-2).unsqueeze(-1)


def over_features(context: Tensor, phi: Tensor, epsilon: float) -> Tensor:
    """Σₘ: (φ+ε) contextᵀ, `[d, m]`, `[N, m] -> [N, d]`."""
    return phi @ context.mT + epsilon * context.sum(-1).unsqueeze(-2)


def feature_map_backward(d_phi: Tensor, x: Tensor, phi: Tensor, places: Tensor | None, directions: Tensor) -> Tensor:
    """The gradient of x from that of φ(x), `[N, m] -> [N, d]`; overwrites `d_phi`. places: favor's, None for relu."""
    scale = x.shape[-1] ** -0.25
    scaled = scale * directions.to(x.dtype)
    if places is None:
        return d_phi.mul_(phi > 0) @ scaled
    d_logits = d_phi.mul_(phi)
    of_norm = d_logits.sum(-1, keepdim=True)  # what |x|²/2 gets from its token's features, all but the sign
    groups = (*places.shape[:-1], -1)  # the features that share a c; c, one of the w·x, gets minus their gradients' sum
    d_logits.view(groups).scatter_add_(-1, places.long(), -of_norm.view(groups).sum(-1, keepdim=True))
    return torch.addcmul(d_logits @ scaled, x, of_norm, value=-(scale ** 2))
