"""What is computed again instead of kept: the same results and gradients as the plain form, fewer bytes."""
from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch
from gains import awake
from torch import nn
from torch.nn.utils import prune

import vixlib as vix
from vixlib.mixers.nystrom import IterativeInverse, newton_schulz
from vixlib.mixers.performer import FeatureAttention, orthogonal_features
from vixlib.models.feedforward import FeedForward
from vixlib.models.norms import ChannelNorm, lean_norm

SMALL = {"image_size": 16, "patch_size": 2, "dim": 32, "depth": 2, "heads": 2, "dim_head": 8, "mlp_dim": 48}


def gradients(out, inputs):
    weight = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    return torch.autograd.grad((out * weight).sum(), inputs)


@pytest.mark.parametrize("norm", [None, nn.LayerNorm, ChannelNorm])
@pytest.mark.parametrize("residual", [False, True])
def test_the_feed_forward_equals_its_formula(norm, residual):
    torch.manual_seed(0)
    ff, norm = FeedForward(12, 20).double(), norm and norm(12).double()
    for parameter in (*ff.parameters(), *(norm.parameters() if norm else ())):
        nn.init.normal_(parameter)
    x = torch.randn(3, 5, 12, dtype=torch.float64, requires_grad=True)
    weights = [x, *ff.parameters(), *(norm.parameters() if norm else ())]
    lean = ff(x, norm, residual)
    with torch.no_grad():  # module by module
        assert (ff(x, norm, residual) - lean).abs().max() < 1e-12
    normed = x
    if norm is not None:
        scale, shift = norm.parameters()
        centred = x - x.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * scale + shift
    hidden = normed @ ff[0].weight.T + ff[0].bias
    plain = hidden * (1 + torch.erf(hidden / 2 ** 0.5)) / 2 @ ff[3].weight.T + ff[3].bias + residual * x
    assert (lean - plain).abs().max() < 1e-12
    for ours, theirs in zip(gradients(lean, weights), gradients(plain, weights), strict=True):
        assert (ours - theirs).abs().max() < 1e-12 * max(1, theirs.abs().max())


@pytest.mark.parametrize("residual", [False, True])
def test_the_feed_forward_under_autocast_computes_what_its_modules_do(residual):
    torch.manual_seed(0)
    ff, norm = FeedForward(32, 64), nn.LayerNorm(32)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, mean=1.0)
    x = torch.randn(4, 9, 32, requires_grad=True)
    weights = [x, *ff.parameters(), *norm.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        lean, plain = ff(x, norm, residual), nn.Sequential.forward(ff, norm(x))
        plain = x + plain if residual else plain
    assert lean.dtype == plain.dtype == (torch.float32 if residual else torch.bfloat16)
    assert (lean - plain).norm() < 0.01 * (plain - residual * x).norm()
    (d_x, *ours), (plain_d_x, *theirs) = gradients(lean, weights), gradients(plain, weights)
    through = gradients(residual * x.float(), [x])[0]  # around the feed-forward: it would hide what is wrong inside
    for a, b in zip((d_x - through, *ours), (plain_d_x - through, *theirs), strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert (a - b).norm() < 0.02 * b.norm()  # bfloat16 sums in another order


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [nn.LayerNorm, ChannelNorm])
def test_norms_under_autocast_have_nearly_the_same_gradients_far_from_zero_too(kind, half):
    torch.manual_seed(0)
    norm, ff = kind(32), FeedForward(32, 64)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, mean=1.0)
    x = 1e5 * torch.randn(4, 9, 32) + 3e6  # float16 ends at 65,504; bfloat16 has steps of 16,384 there
    results = {}
    for on in (False, True):
        x = x.clone().requires_grad_()
        with torch.autocast("cpu", half, enabled=on):
            outs = lean_norm(norm, x), ff(x, norm)
        assert outs[0].dtype == torch.float32
        results[on] = [outs[0], *gradients(outs[0], [x, *norm.parameters()]),
                       *gradients(outs[1].float(), [x, *norm.parameters(), *ff.parameters()])]
    for ours, theirs in zip(results[True], results[False], strict=True):
        assert ours.dtype == theirs.dtype == torch.float32 and (ours - theirs).norm() < 0.02 * theirs.norm()


def test_dropout_in_the_feed_forward_still_drops():
    ff = FeedForward(8, 16, dropout=0.5)
    x = torch.randn(2, 3, 8)
    assert not torch.equal(ff(x, nn.LayerNorm(8)), ff(x, nn.LayerNorm(8)))
    ff.eval()
    assert torch.equal(ff(x, nn.LayerNorm(8)), ff(x, nn.LayerNorm(8)))


@pytest.mark.parametrize("iterations", [1, 6])
def test_the_pseudo_inverse_has_the_gradient_of_its_iterations(iterations):
    torch.manual_seed(0)
    a = torch.randn(2, 3, 7, 7, dtype=torch.float64).softmax(-1).requires_grad_()
    lean, plain = IterativeInverse.apply(a, iterations), newton_schulz(a, iterations)
    assert torch.equal(lean, plain)
    assert torch.allclose(newton_schulz(a[1, 2], iterations), plain[1, 2], rtol=1e-12)  # a single matrix, too
    (ours,), (theirs,) = gradients(lean, [a]), gradients(plain, [a])
    assert (ours - theirs).abs().max() < 1e-12 * theirs.abs().max()


@pytest.mark.parametrize(("kernel", "epsilon"), [("favor", 0.0), ("favor", 1e-4), ("favor", 0.3), ("relu", 0.1)])
def test_feature_attention_has_the_gradients_of_its_formula(kernel, epsilon):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)]
    directions = orthogonal_features(6, 4, generator).double()
    assert torch.autograd.gradcheck(
        lambda q, k, v: FeatureAttention.apply(q, k, v, directions, kernel, epsilon), inputs)


# Large q and k, whose features float16 cannot tell from zero, and some of usual size and epsilon.
@pytest.mark.parametrize(("kernel", "size", "epsilon"), [("favor", 3, 0.0), ("favor", 1, 1e-4), ("relu", 3, 1e-3)])
@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_feature_attention_in_half_precision_has_nearly_the_same_gradients(kernel, size, epsilon, half):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (spread * torch.randn(2, 3, 40, 16, generator=generator) + mean for spread, mean in
               ((size, 0), (size, 0), (1, 5)))  # values with something in common
    directions = orthogonal_features(44, 16, generator)
    results = []
    for of_type in (half, torch.float32):
        inputs = [t.to(half).to(of_type).requires_grad_() for t in (q, k, v)]
        out = FeatureAttention.apply(*inputs, directions, kernel, epsilon)
        assert out.dtype == of_type
        results.append(gradients(out.float(), inputs))
    for ours, theirs in zip(*results, strict=True):
        assert (ours.float() - theirs).norm() < 0.02 * theirs.norm()


def test_feature_attention_backward_twice_gives_the_same():
    torch.manual_seed(0)
    q = torch.randn(2, 3, 5, 4, requires_grad=True)
    out = FeatureAttention.apply(q, q, q, orthogonal_features(6, 4), "favor", 1e-4)
    first, second = (torch.autograd.grad(out.square().sum(), q, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)  # what backward overwrites is its own


@pytest.mark.parametrize("name", ["ViT", "ViP", "HybridViN", "LeViT", "CCL", "CvT", "CPV"])
def test_checkpointing_changes_memory_and_nothing_else(name):
    options = {**vix.applicable(name, {**SMALL, "num_landmarks": 8, "rank": 8}), "dropout": 0.2}
    plain, thrifty = (awake(vix.build(name, seed=0, checkpointing=on, **options)).train() for on in (False, True))
    assert vix.saved_bytes_per_image(thrifty) < 0.6 * vix.saved_bytes_per_image(plain)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    results = []
    for model in (plain, copy.deepcopy(thrifty)):
        torch.manual_seed(2)  # dropout draws the same
        model(images).square().sum().backward()
        results.append((model.state_dict(), [p.grad for p in model.parameters()]))
    (state, grads), (thrifty_state, thrifty_grads) = results
    assert all(torch.equal(a, b) for a, b in zip(grads, thrifty_grads, strict=True))
    assert list(state) == list(thrifty_state)
    assert all(torch.equal(state[key], thrifty_state[key]) for key in state)  # batch statistics were counted once
    assert thrifty.options["checkpointing"] is True and "checkpointing" not in plain.options


def test_checkpointing_without_blocks_is_refused():
    with pytest.raises(ValueError, match="ResNet18 has no .blocks"):
        vix.build("ResNet18", checkpointing=True)


# MiB a layer that the authors' forms keep for eight images (float32, 1025 tokens, feed-forward 256), and the part of
# it that ours may keep.
AUTHORS = {"ViT": (176.4, 4.5), "ViN": (107.4, 2.2), "ViP": (121.9, 1.7), "ViL": (50.7, 1.3)}


@pytest.mark.parametrize("name", AUTHORS)
def test_bytes_kept_for_backward_against_the_authors_forms(name):
    authors, factor = AUTHORS[name]
    per_layer = vix.saved_bytes_per_image(vix.build(name)) * 8 / 2**20 / 4
    assert per_layer <= authors / factor


@pytest.mark.parametrize("name", [*AUTHORS, "FNet"])
def test_half_precision_keeps_half_of_the_bytes(name):
    model = vix.build(name)
    half, single = (vix.saved_bytes_per_image(model, precision=precision) for precision in ("bfloat16", "float32"))
    assert half <= 0.54 * single


@pytest.mark.parametrize("name", ["ViT", "LeViT", "CCT", "CvT"])
def test_fused_attention_is_reached_in_every_host(name):
    def kept(**options):
        return vix.saved_bytes_per_image(vix.build(name, image_size=32, patch_size=2, **options))

    matrices = 4 * 4 * 256 ** 2 * 4  # four bytes, four heads, four layers
    assert kept(fused=False) - kept() > 0.9 * matrices


@pytest.mark.parametrize("name", ["ViP", "ViN", "FNet", "MLPMixer"])
def test_what_has_no_second_derivative_says_so(name):
    """torch's once_differentiable would leave its part out of the second derivative, without a word."""
    model = vix.build(name, seed=0, **vix.applicable(name, {**SMALL, "num_landmarks": 4}))
    images = torch.randn(2, 3, 16, 16, requires_grad=True)
    loss = model(images).square().sum()
    with pytest.raises(ValueError, match="create_graph=True: .* cannot be differentiated again"):
        torch.autograd.grad(loss, images, create_graph=True)


class Adapted(nn.Linear):
    """A linear map with something beside it, as adapters (LoRA) are."""

    def forward(self, x):
        return super().forward(x) + 1


def adapted(ff, norm):
    ff[0].__class__ = Adapted


def hooked(ff, norm):
    ff[3].register_forward_hook(lambda part, x, out: out * 2)


def hooked_norm(ff, norm):
    norm.register_forward_pre_hook(lambda part, x: (x[0] + torch.linspace(0, 1, 12),))


def of_its_own(ff, norm):
    ff[3].forward = lambda x: 2 * x[..., :12]


def rough(ff, norm):
    ff[1].approximate = "tanh"


def unbiased(ff, norm):
    ff[0] = nn.Linear(12, 20, bias=False)


def longer(ff, norm):
    ff.append(nn.Tanh())


@pytest.mark.parametrize("change", [adapted, hooked, hooked_norm, of_its_own, rough, unbiased, longer],
                         ids=lambda change: change.__name__)
def test_a_part_that_somebody_has_changed_is_called(change):
    torch.manual_seed(0)
    ff, norm = FeedForward(12, 20).eval(), nn.LayerNorm(12)
    change(ff, norm)
    x = torch.randn(3, 5, 12)
    assert torch.equal(ff(x, norm, residual=True), x + nn.Sequential.forward(ff, norm(x)))


@pytest.mark.parametrize("name", ["ViT", "CvP", "CCT", "LeViP", "CPV"])
def test_a_feed_forward_of_ones_own_computes_in_every_host(name):
    model = vix.build(name, seed=0, **vix.applicable(name, {**SMALL, "depth": 1, "dropout": 0.0})).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        scores = model(images)
        model.blocks[0].ff = nn.Sequential(model.blocks[0].ff, nn.Dropout())
        assert torch.allclose(model.eval()(images), scores, atol=1e-5)
        model.blocks[0].ff = nn.Identity()
        assert not torch.allclose(model(images), scores, atol=1e-3)


@pytest.mark.parametrize("name", ["ViT", "CvP", "CCT", "LeViP", "CPV"])
def test_hooks_on_a_feed_forward_see_its_tokens_and_its_answer_alone(name):
    """Not the block's sum: what a hook switches off is the branch, and what it sees first is what the norm has made."""
    options = vix.applicable(name, {**SMALL, "depth": 1, "dropout": 0.0})
    model = awake(vix.build(name, seed=0, **options)).eval().double()
    images, ff, seen = torch.randn(2, 3, 16, 16, dtype=torch.float64), model.blocks[0].ff, []
    with torch.no_grad():
        scores = model(images)
        looking = ff.register_forward_pre_hook(lambda ff, given: given[0])
        assert torch.allclose(model(images), scores, rtol=0, atol=1e-12)
        looking.remove()
        ff.register_forward_hook(lambda ff, given, out: seen.append((given[0], out)))
        model(images)
        ff.register_forward_hook(lambda ff, given, out: torch.zeros_like(out))
        silent = model(images)
        ff._forward_hooks.clear()
        assert torch.allclose(ff(seen[0][0]), seen[0][1], rtol=0, atol=1e-12)
        model.blocks[0].ff = type("Silent", (nn.Module,), {"forward": lambda self, x: torch.zeros_like(x)})()
        assert torch.allclose(model(images), silent, rtol=0, atol=1e-12)
        assert not torch.allclose(silent, scores, atol=1e-6)


@pytest.mark.parametrize("name", ["ViT", "ViT/rope", "CCT", "HybridViN", "LeViP"])
def test_an_embedding_of_ones_own_computes_or_is_told_what_it_lacks(name):
    name, _, position = name.partition("/")
    options = {**SMALL, "depth": 1, **({"position": position} if position else {})}
    model = vix.build(name, seed=0, **vix.applicable(name, options)).eval()
    images, own = torch.randn(2, 3, 16, 16), model.embedding
    with torch.no_grad():
        scores = model(images)
        model.embedding = nn.Sequential(own, nn.Identity())  # no grid(height, width)
        assert torch.equal(model(images), scores)
        with pytest.raises(ValueError, match="images is 16x32, and the embedding Sequential has no method grid"):
            model(torch.randn(2, 3, 16, 32))
        _, tokens, dim = own(images).shape
        for wrong, found in ((nn.Linear(dim, dim + 1), [2, tokens, dim + 1]), (nn.Unflatten(1, (2, -1)), None),
                             (nn.AdaptiveAvgPool2d((tokens - 1, dim)), [2, tokens - 1, dim])):
            model.embedding = nn.Sequential(own, wrong)
            says = f"turned [2, 3, 16, 16] into {found}" if found else "must return tokens [B, N, D]"
            with pytest.raises(ValueError, match=re.escape(says)):
                model(images)
        model.embedding = type("Own", (nn.Module,), {"forward": lambda self, x: [x]})()
        with pytest.raises(ValueError, match=re.escape("the embedding Own turned [2, 3, 16, 16] into list; for a")):
            model(images)


@pytest.mark.parametrize("name", ["ViN", "LeViL", "CNV"])
def test_pruned_weights_stay_pruned_and_are_trained(name):
    data = vix.load("shapes", train=32, test=10, size=24)
    options = {**SMALL, "image_size": 24, "patch_size": 4, "depth": 1, "num_landmarks": 4, "rank": 4}
    model = vix.build(name, seed=0, **vix.applicable(name, options))
    parts = [part for part in model.modules() if type(part) in (nn.Linear, nn.Conv2d)]
    for part in parts:
        prune.l1_unstructured(part, "weight", 0.5)
    before = [part.weight_orig.clone() for part in parts]
    vix.fit(model, data, vix.TrainConfig(epochs=1, batch_size=16), progress=False, device="cpu")
    vix.evaluate(model, data)
    for part, old in zip(parts, before, strict=True):
        assert not torch.equal(part.weight_orig, old)
        assert torch.equal(part.weight, part.weight_orig * part.weight_mask)


@pytest.mark.parametrize("conv", [
    nn.Conv2d(2, 2, (5, 1), padding=(2, 0), groups=2), nn.Conv2d(2, 2, (5, 3), padding=(2, 1), groups=2, bias=False),
    nn.Conv2d(2, 2, (5, 1), padding=(2, 0), groups=2, bias=False, padding_mode="circular"),
    nn.Conv2d(2, 2, (5, 1), padding=(4, 0), groups=2, bias=False, dilation=(2, 1)),
    nn.Conv2d(2, 2, (5, 1), padding=(2, 0), bias=False)])
def test_another_convolution_in_nystrom_is_the_one_that_computes(conv):
    model = vix.build("ViN", seed=0, num_landmarks=4, **SMALL)
    mixer, v = model.blocks[0].mixer, torch.randn(3, 2, 65, 8)
    plain = mixer.convolve(v)
    assert (mixer.conv(v) - plain).abs().max() < 1e-5
    mixer.conv = conv
    assert torch.equal(mixer.convolve(v), conv(v)) and not torch.allclose(conv(v), plain)


class Adapter(nn.Module):
    """Around a map, as adapters are: neither a Linear itself nor with a weight of that name."""

    def __init__(self, base):
        super().__init__()
        self.base, self.up = base, nn.Linear(base.in_features, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(x)


@pytest.mark.parametrize(("name", "map_"), [("ViT", "to_qkv"), ("ViP", "to_qkv"), ("ViN", "to_out"), ("ViL", "to_q"),
                                            ("MLPMixer", "widen"), ("FNet", None)])
def test_maps_may_be_wrapped_or_quantised(name, map_):
    model = vix.build(name, seed=0, **vix.applicable(name, {**SMALL, "num_landmarks": 4, "rank": 4})).eval()
    x = torch.randn(2, 3, 16, 16)
    before = model(x)
    if map_ is not None:
        wrapped = copy.deepcopy(model)
        for block in wrapped.blocks:
            setattr(block.mixer, map_, Adapter(getattr(block.mixer, map_)))
        assert not torch.allclose(wrapped(x), before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    with torch.no_grad():
        assert (small(x) - before).abs().max() < 0.2 * before.abs().max()


def test_every_part_of_every_system_may_have_hooks_of_both_passes():
    for name in vix.names():
        options = vix.applicable(name, {**SMALL, "num_landmarks": 4, "rank": 4, "dim": 32})
        model, seen = vix.build(name, seed=0, **options), []
        for part in model.modules():
            part.register_full_backward_hook(lambda part, given, taken, seen=seen: seen.append(part))
        model(torch.randn(2, 3, 16, 16, requires_grad=True)).square().sum().backward()
        assert model in seen and len(seen) > 5, name


def test_hooks_on_all_modules_see_and_change_every_part():
    model = vix.build("ViT", seed=0, **SMALL)
    x, seen = torch.randn(2, 3, 16, 16), []

    def remember(module, inputs, out):
        seen.append(type(module).__name__)
        return out * 0 if isinstance(module, nn.GELU) else None

    with nn.modules.module.register_module_forward_hook(remember):
        trained = model(x)
        names = seen.copy()
        seen.clear()
        with torch.no_grad():
            assert (model(x) - trained).abs().max() < 1e-5
    assert names == seen and names.count("GELU") == 2
