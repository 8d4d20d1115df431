"""The authors' forms: each mixer as its equation is printed, every matrix it names stored, every step kept by autograd.

What implementations of 2021 ran, and what vixlib's lean forms are measured against. Parameters have vixlib's
names, so one `state_dict` fits both, and the same weights must give the same outputs. Shapes as in vixlib.mixers.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class TextbookSoftmax(nn.Module):
    """softmax(q kᵀ / √d) v with the N×N matrix: Vaswani et al., "Attention is all you need", eq. (1)."""

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int, qkv_bias: bool = False) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim_head ** -0.5
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=qkv_bias)
        self.to_out = nn.Linear(heads * dim_head, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.to_qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        return self.to_out(rearrange(self.attend(q, k, v), "b h n d -> b n (h d)"))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * self.scale
        return scores.softmax(dim=-1) @ v


class TextbookNystrom(TextbookSoftmax):
    """softmax(q k̃ᵀ) A⁺ softmax(q̃ kᵀ) v + conv(v): Xiong et al., "Nyströmformer", eqs. (13), (15).

    Tokens of zeros in front up to a multiple of num_landmarks, as the reference pads: vixlib's padding="front".
    The starting scale is vixlib's, one a matrix; the reference takes one over the whole batch, at the same cost.
    """

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int, num_landmarks: int) -> None:
        super().__init__(dim, heads=heads, dim_head=dim_head, seq_len=seq_len)
        self.num_landmarks = num_landmarks
        self.conv = nn.Conv2d(heads, heads, (33, 1), padding=(16, 0), groups=heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (0, 0, -x.shape[1] % self.num_landmarks, 0))
        return super().forward(padded)[:, -x.shape[1]:]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = q * self.scale
        q_land, k_land = (rearrange(t, "b h (m s) d -> b h m s d", m=self.num_landmarks).mean(3) for t in (q, k))
        left, middle, right = (torch.einsum("bhid,bhjd->bhij", *pair).softmax(dim=-1)
                               for pair in ((q, k_land), (q_land, k_land), (q_land, k)))
        return (left @ self.pseudo_inverse(middle)) @ (right @ v) + self.conv(v)

    @staticmethod
    def pseudo_inverse(a: Tensor) -> Tensor:
        columns, rows = a.detach().sum(-2).amax(-1), a.detach().sum(-1).amax(-1)
        z = a.mT / (columns * rows)[..., None, None]
        eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
        for _ in range(6):
            az = a @ z
            z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
        return z


class TextbookPerformer(TextbookSoftmax):
    """φ(q) (φ(k)ᵀ v) / φ(q) Σφ(k), φ stored with its ε: Choromanski et al., "Rethinking attention with Performers".

    The stabiliser is vixlib's, one for each picture and head; the published code takes one for the batch's keys.
    """

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int) -> None:
        super().__init__(dim, heads=heads, dim_head=dim_head, seq_len=seq_len, qkv_bias=True)
        self.register_buffer("directions", torch.randn(int(dim_head * math.log(dim_head)), dim_head))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = self.features(q, -1), self.features(k, (-2, -1))
        normaliser = torch.einsum("bhnm,bhm->bhn", q, k.sum(2))
        context = torch.einsum("bhnm,bhnd->bhmd", k, v)
        return torch.einsum("bhnm,bhmd,bhn->bhnd", q, context, 1 / normaliser)

    def features(self, x: Tensor, stabilise_over: int | tuple[int, int]) -> Tensor:
        x = x * x.shape[-1] ** -0.25
        logits = torch.einsum("bhnd,md->bhnm", x, self.directions.to(x.dtype))
        largest = logits.amax(stabilise_over, keepdim=True)
        half_norm = (x ** 2).sum(-1, keepdim=True) / 2
        return len(self.directions) ** -0.5 * (torch.exp(logits - half_norm - largest) + 1e-4)


class TextbookLinformer(nn.Module):
    """softmax(q (PᵀK)ᵀ / √d) (PᵀV): Wang et al., "Linformer", eq. (7), K = V = X W_k made N long, then projected."""

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int, rank: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim_head ** -0.5
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_k = nn.Linear(dim, dim_head, bias=False)
        self.project_k = nn.Parameter(torch.randn(seq_len, rank) * rank ** -0.5)
        self.to_out = nn.Linear(heads * dim_head, dim)

    def forward(self, x: Tensor) -> Tensor:
        q = rearrange(self.to_q(x), "b n (h d) -> b h n d", h=self.heads)
        long = self.to_k(x)
        k, v = (torch.einsum("bnd,nr->brd", t, self.project_k) for t in (long, long))
        weights = (torch.einsum("bhnd,brd->bhnr", q, k) * self.scale).softmax(dim=-1)
        return self.to_out(rearrange(torch.einsum("bhnr,brd->bhnd", weights, v), "b h n d -> b n (h d)"))


class TextbookFourier(nn.Module):
    """The real part of two complex FFTs, over features, then over tokens: Lee-Thorp et al., "FNet", eq. (3)."""

    def __init__(self, dim: int, *, heads: int, dim_head: int, seq_len: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # half-precision FFTs need lengths of powers of two
        return torch.fft.fft(torch.fft.fft(x, dim=2), dim=1).real


class TextbookBlock(nn.Module):
    """x + mixer(norm(x)), then x + ff(norm(x)), module by module."""

    def __init__(self, dim: int, mixer: nn.Module, mlp_dim: int) -> None:
        super().__init__()
        self.mixer_norm, self.mixer = nn.LayerNorm(dim), mixer
        self.ff_norm = nn.LayerNorm(dim)
        self.ff = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(0.0),
                                nn.Linear(mlp_dim, dim), nn.Dropout(0.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(self.mixer_norm(x)) + x
        return self.ff(self.ff_norm(x)) + x


TEXTBOOK = {"softmax": TextbookSoftmax, "performer": TextbookPerformer, "linformer": TextbookLinformer,
            "nystrom": TextbookNystrom, "fourier": TextbookFourier}
