"""Each mixer against its equation written out independently in float64, and the limits where it must be exact."""
from __future__ import annotations

import copy
import math

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.autograd import gradcheck

from vixlib.mixers import (
    MIXERS,
    FourierMixer,
    LinearAttention,
    LinformerAttention,
    MLPMixer,
    NystromAttention,
    PerformerAttention,
    SoftmaxAttention,
    linformer_projection,
    newton_schulz,
    orthogonal_features,
    segment_means,
)

B, N, DIM, HEADS, WIDTH = 2, 37, 24, 3, 8
SIZES = {"heads": HEADS, "dim_head": WIDTH}


def make(mixer, seed=0, seq_len=N, **own):
    torch.manual_seed(seed)
    return mixer(DIM, **SIZES, seq_len=seq_len, **own).double()


def tokens(n=N, batch=B, seed=1, scale=1.0):
    return scale * torch.randn(batch, n, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads_of(matrix, bias, x):
    """x Wᵀ + b cut into heads by plain indexing: [B, N, D] -> [B, H, N, d]."""
    y = x @ matrix.T if bias is None else x @ matrix.T + bias
    return torch.stack([y[..., h * WIDTH:(h + 1) * WIDTH] for h in range(y.shape[-1] // WIDTH)], dim=1)


def qkv_of(mixer, x):
    inner = HEADS * WIDTH
    weight, bias = mixer.to_qkv.weight, mixer.to_qkv.bias
    return [heads_of(weight[i * inner:(i + 1) * inner], None if bias is None else bias[i * inner:(i + 1) * inner], x)
            for i in range(3)]


def output_of(mixer, heads):
    y = torch.cat([heads[:, h] for h in range(HEADS)], dim=-1) @ mixer.to_out.weight.T
    return y if mixer.to_out.bias is None else y + mixer.to_out.bias


def softmax_rows(scores):
    e = torch.exp(scores - scores.amax(-1, keepdim=True).detach())
    return e / e.sum(-1, keepdim=True)


def softmax_oracle(mixer, x):
    q, k, v = qkv_of(mixer, x)
    return output_of(mixer, softmax_rows(q @ k.transpose(-1, -2) / math.sqrt(WIDTH)) @ v)


def performer_oracle(mixer, x):
    q, k, v = qkv_of(mixer, x)

    def phi(t, dims):
        t = t / WIDTH ** 0.25
        projected = torch.einsum("bhnd,md->bhnm", t, mixer.directions)
        if mixer.kernel == "relu":
            return projected.clamp(min=0)
        return torch.exp(projected - projected.amax(dims, keepdim=True) - (t ** 2).sum(-1, keepdim=True) / 2)

    phi_q, phi_k = phi(q, -1) + mixer.epsilon, phi(k, (-2, -1)) + mixer.epsilon
    weights = phi_q @ phi_k.transpose(-1, -2)                  # the N×N matrix that the mixer never forms
    return output_of(mixer, (weights / weights.sum(-1, keepdim=True)) @ v)


def linformer_oracle(mixer, x):
    q = heads_of(mixer.to_q.weight, None, x)
    k = heads_of(mixer.to_k.weight, None, x)
    v = k if mixer.to_v is None else heads_of(mixer.to_v.weight, None, x)
    p_k, p_v = mixer.project_k, mixer.project_k if mixer.project_v is None else mixer.project_v
    k, v = p_k.T @ k, p_v.T @ v
    return output_of(mixer, softmax_rows(q @ k.transpose(-1, -2) / math.sqrt(WIDTH)) @ v)


def inverse_iterations(a, iterations):
    z = a.transpose(-1, -2) / (a.detach().sum(-1).amax(-1) * a.detach().sum(-2).amax(-1))[..., None, None]
    eye = torch.eye(a.shape[-1], dtype=a.dtype)
    for _ in range(iterations):
        z = z @ (13 * eye - a @ z @ (15 * eye - a @ z @ (7 * eye - a @ z))) / 4
    return z


def nystrom_oracle(mixer, x):
    q, k, v = qkv_of(mixer, x)
    bounds = torch.tensor_split(torch.arange(x.shape[1]), mixer.num_landmarks)
    q_land, k_land = (torch.stack([t[:, :, run].mean(2) for run in bounds], dim=2) for t in (q, k))

    def kernel(a, b):
        return softmax_rows(a @ b.transpose(-1, -2) / math.sqrt(WIDTH))

    inverse = inverse_iterations(kernel(q_land, k_land), mixer.iterations)
    out = kernel(q, k_land) @ inverse @ kernel(q_land, k) @ v
    taps = mixer.conv.weight.shape[2]
    padded = torch.nn.functional.pad(v, (0, 0, taps // 2, taps // 2))
    for tap in range(taps):
        out = out + mixer.conv.weight[:, 0, tap, 0][:, None, None] * padded[:, :, tap:tap + x.shape[1]]
    return output_of(mixer, out)


def linear_oracle(mixer, x):
    q, k, v = qkv_of(mixer, x)
    if mixer.feature_map == "softmax":
        return output_of(mixer, softmax_rows(q) @ softmax_rows(k.mT) @ v)    # over q's features, over k's tokens
    phi_q, phi_k = (torch.where(t > 0, t + 1, torch.exp(t.clamp(max=0))) for t in (q, k))
    weights = phi_q @ phi_k.mT
    return output_of(mixer, (weights / weights.sum(-1, keepdim=True)) @ v)


ORACLES = [
    (SoftmaxAttention, {}, softmax_oracle), (SoftmaxAttention, {"fused": False}, softmax_oracle),
    (PerformerAttention, {}, performer_oracle), (PerformerAttention, {"kernel": "relu"}, performer_oracle),
    (LinformerAttention, {"rank": 5}, linformer_oracle),
    (LinformerAttention, {"rank": 5, "shared_head": False, "shared_kv": False, "shared_projection": False},
     linformer_oracle),
    (LinformerAttention, {"rank": 5, "shared_kv": False}, linformer_oracle),
    (NystromAttention, {"num_landmarks": 5, "conv_kernel": 7}, nystrom_oracle),
    (LinearAttention, {}, linear_oracle), (LinearAttention, {"feature_map": "elu"}, linear_oracle),
]
SHARP = 4.0  # times the usual tokens; with those all attention is near constant, and a wrong weight hardly shows


@pytest.mark.parametrize(("mixer_class", "own", "oracle"), ORACLES)
def test_output_and_all_gradients_equal_the_equation(mixer_class, own, oracle):
    mixer = make(mixer_class, **own)
    x, direction = tokens(scale=SHARP).requires_grad_(), tokens(seed=2)
    inputs = [x, *mixer.parameters()]
    ours, theirs = mixer(x), oracle(mixer, x)
    assert (ours - theirs).abs().max() < 1e-12 * theirs.abs().max().clamp(min=1)
    for mine, reference in zip(torch.autograd.grad((ours * direction).sum(), inputs),
                               torch.autograd.grad((theirs * direction).sum(), inputs), strict=True):
        assert (mine - reference).abs().max() < 1e-12 * reference.abs().max().clamp(min=1)


@pytest.mark.parametrize(("name", "own"), [
    ("softmax", {}), ("softmax", {"fused": False}), ("performer", {"num_features": 6}),
    ("linformer", {"rank": 3}), ("nystrom", {"num_landmarks": 3, "conv_kernel": 3}),
    ("linear", {}), ("linear", {"feature_map": "elu"}), ("fourier", {}), ("mlp", {})])
def test_gradcheck(name, own):
    torch.manual_seed(0)
    mixer = MIXERS[name](4, heads=2, dim_head=2, seq_len=5, **own).double()
    if name == "performer":  # enough for the stabiliser, which cancels but for epsilon, to have a gradient of note
        mixer.epsilon = 0.1
    if name == "nystrom":  # the starting scale of its iterations is detached, but vanishes once they have converged
        mixer.iterations = 30
    x = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(mixer, (x,), atol=1e-6)


def test_materialised_and_fused_softmax_agree():
    fused, plain = make(SoftmaxAttention), make(SoftmaxAttention, fused=False)
    assert (fused(tokens()) - plain(tokens())).abs().max() < 1e-12


def test_sharp_attention_is_tested_with_sharp_weights():
    mixer = make(SoftmaxAttention)
    q, k, _ = mixer.split(tokens(scale=SHARP), None)
    assert SoftmaxAttention.attention(q, k).amax(-1).mean() > 5 / N


# ---- exactness limits -------------------------------------------------------------------------------------------

def exact_softmax_from(mixer, x):
    q, k, v = mixer.split(x, None)
    return mixer.join(SoftmaxAttention.attention(q, k) @ v)


@pytest.mark.parametrize(("iterations", "bound"), [(None, 1e-9), (30, 1e-9)])
def test_nystrom_with_every_token_a_landmark_is_softmax(iterations, bound):
    mixer = make(NystromAttention, num_landmarks=N, iterations=iterations, conv_kernel=0)
    x = tokens()
    assert (mixer(x) - exact_softmax_from(mixer, x)).abs().max() < bound


def test_six_iterations_are_close_but_not_exact():
    mixer = make(NystromAttention, num_landmarks=N, iterations=6, conv_kernel=0)
    error = (mixer(tokens()) - exact_softmax_from(mixer, tokens())).abs().max()
    assert 1e-8 < error < 0.5


def test_linformer_with_identity_projection_is_softmax():
    mixer = make(LinformerAttention, rank=N, shared_head=False, shared_kv=False)
    mixer.project_k.data = torch.eye(N, dtype=torch.float64)
    x = tokens()
    q, k, v = (heads_of(layer.weight, None, x) for layer in (mixer.to_q, mixer.to_k, mixer.to_v))
    exact = output_of(mixer, SoftmaxAttention.attention(q, k) @ v)
    assert (mixer(x) - exact).abs().max() < 1e-12
    # A permutation of the tokens is a square orthogonal projection: softmax does not see the order of keys.
    mixer.project_k.data = torch.eye(N, dtype=torch.float64)[torch.randperm(N)]
    assert (mixer(x) - exact).abs().max() < 1e-12


def test_favor_error_falls_like_one_over_the_square_root_of_the_features():
    x = tokens(scale=0.5)
    errors = []
    for features in (64, 1024, 16384):
        mixer = make(PerformerAttention, num_features=features, epsilon=0.0)
        exact = exact_softmax_from(mixer, x)
        found = []
        for seed in range(4):
            mixer.redraw(torch.Generator().manual_seed(seed))
            found.append(((mixer(x) - exact).norm() / exact.norm()).item())
        errors.append(sum(found) / len(found))
    assert errors[0] / errors[1] > 2.5 and errors[1] / errors[2] > 2.5  # 4 expected for each 16 times the features
    assert errors[2] < 0.01


def test_directions_that_are_to_be_trained_are_refused_in_training():
    """They would get no gradient, and stay as they are without a word."""
    mixer = PerformerAttention(8, heads=2, dim_head=4)
    mixer.directions = nn.Parameter(mixer.directions.clone())
    with pytest.raises(ValueError, match="directions.requires_grad=True: random directions are fixed here"):
        mixer(torch.randn(2, 5, 8))
    with torch.no_grad():
        assert mixer(torch.randn(2, 5, 8)).shape == (2, 5, 8)


@pytest.mark.parametrize("separate", [False, True])
def test_linformer_maps_that_are_not_linear_come_before_the_mixing(separate):
    """softmax(q (PᵀK)ᵀ / √d) PᵀV: a bias of K, or a step that is not linear, must not be taken behind Pᵀ."""
    mixer = LinformerAttention(8, heads=2, dim_head=4, seq_len=6, rank=3, shared_head=False,
                               shared_kv=not separate, shared_projection=not separate).double()
    x = torch.randn(2, 6, 8, dtype=torch.float64)
    for own in (nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8, bias=False), nn.GELU())):
        mixer.to_k = own.double()
        if separate:
            mixer.to_v = copy.deepcopy(own)
        q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=2)
                   for t in (mixer.to_q(x), mixer.to_k(x), (mixer.to_v or mixer.to_k)(x)))
        k, v = mixer.project_k.T @ k, (mixer.project_k if mixer.project_v is None else mixer.project_v).T @ v
        expected = mixer.to_out(rearrange((q @ k.mT / 2).softmax(-1) @ v, "b h n d -> b n (h d)"))
        torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(mixer(x, rotary=lambda t: t), expected, rtol=0, atol=1e-12)


def test_performer_directions_are_orthogonal_and_redrawn_on_demand():
    mixer = make(PerformerAttention, num_features=2 * WIDTH)
    before = mixer.directions.clone()
    for block in before.split(WIDTH):
        gram = block @ block.T
        # Drawn in float32, so orthogonal to its precision.
        assert (gram - gram.diagonal().diag()).abs().max() < 1e-5 * gram.diagonal().max()
    mixer.redraw(torch.Generator().manual_seed(5))
    assert not torch.equal(before, mixer.directions)
    again = mixer.directions.clone()
    mixer.redraw(torch.Generator().manual_seed(5))
    assert torch.equal(again, mixer.directions)
    assert "directions" in mixer.state_dict() and not any("directions" in n for n, _ in mixer.named_parameters())


# ---- symmetries -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "own", "equivariant"), [
    ("softmax", {}, True), ("performer", {}, True), ("performer", {"kernel": "relu"}, True),
    ("linear", {}, True), ("linear", {"feature_map": "elu"}, True),
    ("nystrom", {"num_landmarks": 5}, False), ("linformer", {"rank": 5}, False), ("fourier", {}, False),
    ("mlp", {}, False)])
def test_permutation_equivariance(name, own, equivariant):
    mixer, x = make(MIXERS[name], **own), tokens()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    error = (mixer(x[:, order]) - mixer(x)[:, order]).abs().max() / mixer(x).abs().max()
    assert error < 1e-12 if equivariant else error > 1e-3


@pytest.mark.parametrize("name", ["softmax", "performer", "linear"])
def test_constant_values_pass_through(name):
    """Weights that sum to one leave a value that all tokens share unchanged."""
    mixer = make(MIXERS[name], qkv_bias=True)
    inner = HEADS * WIDTH
    mixer.to_qkv.weight.data[2 * inner:] = 0
    expected = output_of(mixer, mixer.to_qkv.bias[2 * inner:].reshape(1, HEADS, 1, WIDTH).expand(B, -1, N, -1))
    assert (mixer(tokens()) - expected).abs().max() < 1e-12


@pytest.mark.parametrize(("name", "own"), [("softmax", {}), ("performer", {}), ("performer", {"kernel": "relu"}),
                                           ("linformer", {"rank": 5}), ("nystrom", {"num_landmarks": 5}),
                                           ("linear", {}), ("fourier", {}), ("mlp", {})])
def test_an_image_does_not_depend_on_its_batch(name, own):
    mixer, x = make(MIXERS[name], **own), tokens(batch=3)
    loud_neighbours = torch.cat([x[:1], 4 * x[1:]])
    assert (mixer(loud_neighbours)[0] - mixer(x)[0]).abs().max() < 1e-12
    assert (mixer(x[:1])[0] - mixer(x)[0]).abs().max() < 1e-12


# ---- Nyström's landmarks ----------------------------------------------------------------------------------------

def test_segment_means_cover_every_token_once():
    x = torch.eye(N, dtype=torch.float64)[None, None]  # token i is the i-th unit vector
    weights = segment_means(x, 5)[0, 0]                 # so a mean's coordinates are its weights
    sizes = (weights > 0).sum(-1)
    assert sizes.tolist() == [8, 8, 7, 7, 7]
    assert torch.equal((weights > 0).sum(0), torch.ones(N, dtype=torch.long))
    assert torch.allclose(weights.sum(-1), torch.ones(5, dtype=torch.float64))


def test_no_landmark_is_diluted_unless_front_padding_is_asked_for():
    """1025 tokens, 64 landmarks: front padding makes three all-zero landmarks (63 zeros, 17 to a run)."""
    x = tokens(1025, batch=1)
    ours, padded = (make(NystromAttention, num_landmarks=64, padding=p, seq_len=1025) for p in (None, "front"))
    q, _, _ = ours.split(x, None)
    assert (segment_means(q, 64).norm(dim=-1) > 0).all()
    front = torch.nn.functional.pad(q, (0, 0, 63, 0))
    assert (segment_means(front, 64).norm(dim=-1) == 0).sum(-1).eq(3).all()
    assert (ours(x) - padded(x)).abs().max() > 1e-6 and padded(x).shape == x.shape


def test_front_padding_equals_the_reference_formula():
    mixer = make(NystromAttention, num_landmarks=5, conv_kernel=7, padding="front")
    x, padding = tokens(), -N % 5
    longer = torch.cat([x.new_zeros(B, padding, DIM), x], dim=1)  # no bias in q, k, v: zero tokens stay zero
    assert (mixer(x) - nystrom_oracle(mixer, longer)[:, padding:]).abs().max() < 1e-12


def test_pseudo_inverse_converges_and_stays_finite():
    a = torch.softmax(torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), -1)
    z = newton_schulz(a, 40)
    with pytest.raises(ValueError, match="iterations=-3 must be at least 0"):
        newton_schulz(a, -3)
    with pytest.raises(ValueError, match=r"a has shape \(2, 3\); expected square matrices"):
        newton_schulz(torch.ones(2, 3), 6)
    with pytest.raises(ValueError, match=r"a has shape \(0, 0\); expected square matrices"):
        newton_schulz(torch.ones(0, 0), 6)
    for wrong in ([[1.0]], torch.eye(3, dtype=torch.int64)):
        with pytest.raises(TypeError, match="a"):
            newton_schulz(wrong, 6)
    assert (a @ z @ a - a).abs().max() < 1e-10
    constant = torch.full((1, 1, 16, 16), 1 / 16)  # a black picture: all landmarks equal, rank one
    assert newton_schulz(constant, 6).isfinite().all()
    assert newton_schulz(torch.full((1, 16, 16), 1 / 16, dtype=torch.float64), 6).isfinite().all()


@pytest.mark.parametrize("width", [24, 25])
def test_fourier_is_the_real_part_of_both_transforms(width):
    x = torch.randn(B, N, width, dtype=torch.float64)
    assert (FourierMixer(width)(x) - torch.fft.fft2(x, dim=(1, 2)).real).abs().max() < 1e-11


def test_mlp_mixes_tokens_alike_in_every_feature():
    mixer, x = make(MLPMixer), tokens()
    order = torch.randperm(DIM)
    assert (mixer(x[..., order]) - mixer(x)[..., order]).abs().max() < 1e-12


def test_linformer_projection_can_be_shared_between_layers():
    shared = linformer_projection(N, 5)
    first, second = (LinformerAttention(DIM, **SIZES, seq_len=N, rank=5, sequence_projection=shared) for _ in range(2))
    assert first.project_k is second.project_k


@pytest.mark.parametrize(("call", "words"), [
    (lambda: make(NystromAttention, num_landmarks=38), "num_landmarks=38 exceeds the sequence length 37"),
    (lambda: make(NystromAttention, num_landmarks=0), "num_landmarks=0 must be at least 1"),
    (lambda: make(NystromAttention, num_landmarks=5, conv_kernel=4), "conv_kernel=4 must be odd"),
    (lambda: make(NystromAttention, num_landmarks=5, padding="back"), "padding='back'"),
    (lambda: make(LinformerAttention, rank=64), "rank=64 exceeds the sequence length 37"),
    (lambda: make(LinformerAttention, rank=5)(tokens(20)), "20 tokens"),
    (lambda: make(NystromAttention, num_landmarks=30)(tokens(20)), "num_landmarks=30 exceeds the 20 tokens"),
    (lambda: make(PerformerAttention, kernel="gauss"), "kernel='gauss'"),
    (lambda: make(PerformerAttention, num_features=0), "num_features=0"),
    (lambda: make(PerformerAttention, epsilon=1e19), r"epsilon=1e\+19 must be .* from 0 to 1e6"),
    (lambda: make(MLPMixer)(tokens(20)), "20 tokens"),
    (lambda: SoftmaxAttention(DIM, heads=0, dim_head=8), "heads=0"),
    (lambda: segment_means(torch.randn(1, 1, 5, 2), 0), "segments=0 must be at least 1"),
    (lambda: segment_means(torch.randn(1, 1, 5, 2), 6), "segments=6 must be at most 5"),
    (lambda: segment_means(torch.randn(5, 2), 2), r"x has shape \(5, 2\)"),
    (lambda: orthogonal_features(4, 0), "dim_head=0 must be at least 1"),
    (lambda: orthogonal_features(0, 4), "num_features=0 must be at least 1"),
    (lambda: linformer_projection(0, 0), "seq_len=0 must be at least 1"),
    (lambda: linformer_projection(4, 0), "rank=0 must be at least 1"),
])
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_seed_is_no_generator():
    with pytest.raises(TypeError, match="generator=0 must be a torch.Generator"):
        orthogonal_features(4, 4, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_performers_directions_are_drawn_whatever_torchs_default_type_is(dtype):
    torch.set_default_dtype(dtype)
    try:
        drawn = orthogonal_features(6, 4, torch.Generator().manual_seed(0))
    finally:
        torch.set_default_dtype(torch.float32)
    assert drawn.dtype == dtype and drawn.isfinite().all()
    products = drawn[:4].double() @ drawn[:4].double().T
    assert (products - products.diag().diag()).abs().max() < 0.05 * products.diag().min()
