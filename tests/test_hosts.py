"""LeViT, CCT, CvT, CXV and ResNet-18: counts to the digit, any mixer in any host, each host's own parts."""
from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from gains import awake
from torch import nn
from torchvision.models import resnet18

import vixlib as vix
from vixlib.mixers import MIXERS, HeadsQKV
from vixlib.models import CCT, CXV, CvT, LeViT
from vixlib.models.levit import ShrinkingAttention
from vixlib.models.vix import SequencePool

SIZES = {"dim": 32, "heads": 2, "dim_head": 8, "mlp_dim": 40, "patch_size": 4}
HOSTS = {"ViX": (vix.ViX, {"depth": 1, "pool": "mean"}), "LeViT": (LeViT, {"depth": 1}), "CCT": (CCT, {"depth": 1}),
         "CvT": (CvT, {"projection": "linear", "depths": (1, 1)}), "CXV": (CXV, {"depth": 2, "dropout": 0.1})}


class Blur(nn.Module):
    """A mixer of this test's own: neighbours in the sequence averaged, then a linear map."""

    def __init__(self, dim, *, heads, dim_head, seq_len):
        super().__init__()
        self.map = nn.Linear(dim, dim)

    def forward(self, x, rotary=None):
        return self.map((x + x.roll(1, dims=1)) / 2)


@pytest.mark.parametrize("row", vix.paper_table(4)["rows"], ids=lambda row: row["model"])
def test_counts_of_table_4_to_the_digit(row):
    assert vix.count_parameters(vix.build(row["model"], config="paper")).as_paper == row["params"]


@pytest.mark.parametrize(("name", "true"), [("CNV", 1_344_734), ("CPV", 1_345_994), ("CLTV", 3_967_434)])
def test_true_counts_of_the_convolutional_xformers(name, true):
    assert vix.count_parameters(vix.build(name)).true == true


@pytest.mark.parametrize("name", ["CvN", "CvP"])
def test_cvt_counts_equal_the_authors_log(name):
    count = vix.count_parameters(vix.build(name, image_size=64, patch_size=2, num_classes=200))
    logged = vix.authors_runs(name, "none", "tiny-imagenet")[0]
    assert (count.as_paper, count.true) == (logged["params_torchsummary"], logged["params_true"])


def test_resnet18_is_torchvisions_with_another_stem():
    torch.manual_seed(0)
    theirs, ours = resnet18(num_classes=10), vix.build("ResNet18", patch_size=4)  # ImageNet's strides
    theirs.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    ours.load_state_dict(theirs.state_dict())
    theirs, ours, images = theirs.double(), ours.double(), torch.randn(4, 3, 32, 32, dtype=torch.float64)
    for mode in (True, False):
        expected, scores = theirs.train(mode)(images), ours.train(mode)(images)
        torch.testing.assert_close(scores, expected)
    gradients = [torch.autograd.grad(out.square().sum(), list(net.parameters()))
                 for out, net in ((expected, theirs), (scores, ours))]
    torch.testing.assert_close(*gradients)


def test_resnet18_starts_as_torchvisions_does():
    convolutions = [[module.weight.std().item() for name, module in net.named_modules()
                     if isinstance(module, nn.Conv2d) and name != "conv1"]
                    for net in (resnet18(), vix.build("ResNet18", seed=0))]
    assert len(convolutions[0]) == 19 and convolutions[1] == pytest.approx(convolutions[0], rel=0.03)


def test_resnet18_has_the_articles_size():
    assert round(vix.count_parameters(vix.build("ResNet18")).true / 1e6, 1) == 11.2


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
@pytest.mark.parametrize("mixer", [*MIXERS, Blur], ids=lambda m: m if isinstance(m, str) else m.__name__)
@pytest.mark.parametrize("host", HOSTS)
def test_any_mixer_in_any_host_trains_a_step(host, mixer, size):
    torch.manual_seed(0)
    cls, own = HOSTS[host]
    options = {"linformer": {"rank": 8}, "nystrom": {"num_landmarks": 8}}.get(mixer, {})
    model = cls(mixer=mixer, image_size=size, num_classes=5, **SIZES, **own, **options)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    nn.functional.cross_entropy(model(torch.randn(4, 3, *size)), torch.arange(4)).backward()
    optimizer.step()
    for (name, parameter), old in zip(model.named_parameters(), before, strict=True):
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # Nothing may be left out; a bias that shifts all scores of a softmax alike has a gradient of zero, though.
        assert not torch.equal(parameter, old) or name == "pool.score.bias", name


@pytest.mark.parametrize("config", ["uniform", "paper"])
@pytest.mark.parametrize("name", [name for name in vix.names() if name != "ResNet18"])
def test_a_mixer_of_ones_own_takes_the_place_of_any_systems(name, config):
    options = {"projection": "linear"} if name in ("CvT", "CLTV") else {}
    model = vix.build(name, config, mixer=Blur, patch_size=4, **options).eval()
    assert model.name == f"{name} with Blur" and {type(block.mixer) for block in model.blocks} == {Blur}
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", vix.names())
def test_every_name_runs_on_another_size(name):
    options = {"patch_size": 4, "image_size": (64, 48), "num_landmarks": 16, "rank": 16, "num_classes": 7}
    model = vix.build(name, seed=0, **vix.applicable(name, options)).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 48)).shape == (1, 7)


def test_names_cover_the_sources():
    vix_names = ["ViT", "ViP", "ViL", "ViN", "FNet", "MLPMixer"]
    wanted = [*vix_names, *(f"Hybrid{name}" for name in vix_names), "LeViT", "LeViP", "LeViL", "LeViN", "CCT", "CCP",
              "CCL", "CCN", "CvT", "CvP", "CvN", "CPV", "CNV", "CLTV", "ResNet18", "HybridViP-6/8"]
    assert set(wanted) == set(vix.names())


@pytest.mark.parametrize("name", ["CPV", "ResNet18", "HybridViP-6/8"])
def test_the_quoted_sizes_of_the_convolutional_xformers_article(name):
    row = next(row for row in vix.paper_table("cxv")["rows"] if row["model"] == name)
    assert round(vix.count_parameters(vix.build(name)).as_paper / 1e6, 1) == row["params_million"]


@pytest.mark.parametrize("patch_size", [1, 2, 4])
def test_the_stem_of_resnet_shrinks_by_its_patch_size(patch_size):
    net = vix.build("ResNet18", patch_size=patch_size)
    stem = net.maxpool(net.conv1(torch.zeros(1, 3, 32, 32)))
    assert stem.shape[-2:] == (32 // patch_size, 32 // patch_size)


def test_command_line_lists_every_system():
    done = subprocess.run([sys.executable, "-m", "vixlib"], capture_output=True, text=True, check=True)
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert set(vix.names()) <= set(lines) and "1,588,234" in lines["ViP"]


@pytest.mark.parametrize("name", ["CPV", "CNV", "CLTV"])
def test_a_convolutional_xformers_layer_is_in_the_order_of_its_authors_code(name):
    """x = norm(conv(x)), x = x + attention(x), x = x + ff(x): the residual line itself is normalised."""
    model = vix.build(name, seed=0, image_size=8, dim=16, heads=2, dim_head=4, mlp_dim=12,
                      **vix.applicable(name, {"num_landmarks": 8})).double().eval()
    for block in model.blocks:
        nn.init.normal_(block.norm.gain)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    scores = model(x)
    x = model.stem(x)
    for block in model.blocks:
        x = block.conv(x)
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        x = (x.movedim(1, -1) * block.norm.gain + block.norm.shift).flatten(1, 2)
        x = block.mixer(x) + x
        x = (block.ff(x) + x).mT.unflatten(2, (8, 8))
    assert torch.allclose(model.head(x.mean((2, 3))), scores, atol=1e-10)
    assert [block.dropout.p for block in model.blocks] == [0.0 if name == "CLTV" else 0.5] * 5


def test_cltv_scales_queries_and_keys_as_its_authors_do():
    mixer = vix.build("CLTV", seed=0, image_size=4, dim=16, heads=2, dim_head=4, depth=1).blocks[0].mixer.double()
    x = 5 * torch.randn(2, 16, 16, dtype=torch.float64)
    q, k, v = mixer.split(x, None)
    by_hand = (q * 4 ** -0.25).softmax(-1) @ ((k * 4 ** -0.25).softmax(-2).mT @ v)
    assert torch.allclose(mixer.join(by_hand), mixer(x), atol=1e-12)


def test_levit_normalises_over_images_and_tokens():
    model = vix.build("LeViT", patch_size=4, depth=1)
    normed = model.blocks[0].mixer.qkv_norm(5 * torch.randn(8, 64, 384) + 3)
    assert normed.mean((0, 1)).abs().max() < 1e-4 and (normed.std((0, 1)) - 1).abs().max() < 1e-2


@pytest.mark.parametrize("name", ["LeViT", "LeViN"])
def test_a_levit_layer_starts_without_its_mixer_and_can_learn_to_have_it(name):
    model = vix.build(name, seed=0, patch_size=4, depth=2, **vix.applicable(name, {"num_landmarks": 16}))
    x, block = torch.randn(2, 64, 128), model.blocks[0]
    assert torch.equal(block(x), x + block.ff(x))
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert block.mixer.out_norm.weight.grad.abs().min() > 0
    assert not torch.equal(awake(model).blocks[0](x), x + block.ff(x))


def test_a_model_with_attention_bias_is_whole_when_its_state_is_loaded():
    options = {"attention_bias": True, "depth": 1, **SIZES}
    made, images = awake(LeViT(**options)).eval(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for block in made.blocks:
            nn.init.normal_(block.mixer.distance_bias)
        with torch.device("meta"):
            empty = LeViT(**options).eval()
        empty.load_state_dict(made.state_dict(), assign=True)
        assert torch.equal(empty(images), made(images))


def test_attention_bias_is_added_to_the_scores_and_depends_on_distance_alone():
    model = LeViT(attention_bias=True, **SIZES, depth=1)
    mixer = model.blocks[0].mixer
    mixer.distance_bias.data = torch.randn_like(mixer.distance_bias)
    x = torch.randn(2, 64, 32)
    q, k, v = mixer.split(x, None)
    bias = mixer.bias(q).reshape(2, 8, 8, 8, 8)
    assert torch.equal(bias[:, 1, 2, 4, 0], bias[:, 5, 2, 2, 4])  # three rows and two columns apart
    by_hand = mixer.join((q @ k.mT / 8 ** 0.5 + bias.reshape(2, 64, 64)).softmax(-1) @ v)
    assert torch.allclose(mixer(x), by_hand, atol=1e-5)


@pytest.mark.parametrize("mixer", ["performer", "linformer", "nystrom"])
def test_attention_bias_with_a_linear_mixer_says_why_not(mixer):
    with pytest.raises(ValueError, match="attention_bias=True needs the attention matrix that .* never forms"):
        LeViT(mixer=mixer, attention_bias=True)


def test_levit_in_stages_shrinks_and_widens():
    model = LeViT(dim=(16, 32, 48), depth=(1, 1, 2), heads=2, dim_head=8, mlp_dim=32, patch_size=2,
                  activation="hardswish", attention_bias=True)
    assert model.tokens(torch.randn(2, 3, 32, 32)).shape == (2, 4 * 4, 48)
    assert [block.mixer.to_out.out_features for block in model.blocks] == [16, 32, 48, 48]
    with pytest.raises(ValueError, match="one entry for each stage"):
        LeViT(dim=(16, 32), depth=4)


def test_shrinking_attention_asks_from_every_second_place():
    layer = ShrinkingAttention(8, 12, 2, 4, (4, 6)).eval()
    x = torch.randn(1, 24, 8)
    kept = x.unflatten(1, (4, 6))[:, ::2, ::2].flatten(1, 2)
    moved = x.clone()
    moved[:, 0] += 1  # place (0, 0) asks, so its answer changes most; the others change through keys and values
    change = (layer(moved) - layer(x)).abs().sum(-1)[0]
    assert layer(x).shape == (1, 6, 12) and kept.shape[1] == 6 and change.argmax() == 0


def test_sequence_pool_is_a_weighted_mean():
    pool, x = SequencePool(6), torch.randn(3, 10, 6)
    weights = pool.weights(x)
    assert torch.allclose(weights.sum(-1), torch.ones(3)) and (weights > 0).all()
    assert torch.allclose(pool(x), (weights[..., None] * x).sum(1), atol=1e-6)
    nn.init.zeros_(pool.score.weight)
    assert torch.allclose(pool(x), x.mean(1), atol=1e-6)


def test_separable_projection_is_cvts_own_and_needs_queries_and_keys():
    model = vix.build("CvT", patch_size=4)
    maps = model.blocks[0].mixer.to_q.map
    assert maps[0].groups == maps[0].in_channels == 128 and maps[2].kernel_size == (1, 1)
    with pytest.raises(ValueError, match="projection='separable'.*LinformerAttention does not take them so"):
        CvT(mixer="linformer", rank=8)


def test_cct_is_local_before_it_is_global():
    model = vix.build("CCT", patch_size=1, dim=16, depth=1).eval()
    images = torch.randn(1, 3, 32, 32)
    moved = images.clone()
    moved[..., 16, 16] += 1
    changed = (model.embedding(moved) - model.embedding(images)).abs().sum(-1).reshape(32, 32).nonzero()
    assert changed.min() >= 16 - 6 and changed.max() <= 16 + 6 and len(changed) > 0


@pytest.mark.parametrize("name", ["CCT", "CCP", "CCL", "CCN"])
def test_a_cct_layer_is_in_the_order_of_its_authors_code(name):
    """x = norm(x + attention(norm(x))), x = x + ff(x): the second norm stands in the residual line."""
    model = vix.build(name, seed=0, image_size=8, dim=16, heads=2, dim_head=4, mlp_dim=12,
                      **vix.applicable(name, {"num_landmarks": 8, "rank": 8})).double().eval()
    for part in model.blocks.modules():
        if isinstance(part, nn.LayerNorm):
            nn.init.normal_(part.weight)

    def norm(x, layer):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() \
            * layer.weight + layer.bias

    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    scores = model(x)
    x = model.embedding(x) + model.position.table
    for block in model.blocks:
        x = norm(block.mixer(norm(x, block.mixer_norm)) + x, block.ff_norm)
        x = block.ff(x) + x
    x = norm(x, model.norm)
    weights = (x @ model.pool.score.weight[0]).softmax(1)
    assert torch.allclose(model.head((weights[..., None] * x).sum(1)), scores, atol=1e-10)


def test_cct_starts_as_its_authors_code_does():
    model = vix.build("CCN", seed=0)
    maps = [part for part in model.modules() if isinstance(part, nn.Linear)]
    assert len(maps) == 4 * 4 + 2 and not any(part.bias is not None and part.bias.any() for part in maps)
    for part in maps:
        assert part.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert model.position.table.std().item() == pytest.approx(0.2, rel=0.02)
    for part in model.embedding.modules():
        if isinstance(part, nn.Conv2d):
            assert part.weight.std().item() == pytest.approx((2 / (9 * part.in_channels)) ** 0.5, rel=0.1)
    assert vix.build("CCT", position_std=1.0).position.table.std().item() == pytest.approx(1, rel=0.02)
    assert not list(vix.build("CCT", position="none").position.parameters())


@pytest.mark.parametrize("name", ["CPV", "CLTV", "CNV", "CvT"])
def test_hes_start_is_louder_by_the_root_of_six_and_changes_convolutions_over_the_picture_alone(name):
    quiet, loud = (vix.build(name, seed=0, patch_size=4, conv_init=start) for start in ("torch", "he"))
    convolutions = {f"{at}.weight" for at, part in quiet.named_modules() if isinstance(part, nn.Conv2d)
                    and part.kernel_size == (3, 3) or at == "embed.0"}  # CvT's first is larger
    assert len(convolutions) >= 4
    for (at, ours), theirs in zip(quiet.named_parameters(), loud.parameters(), strict=True):
        if at in convolutions:
            bound = ours[0].numel() ** -0.5
            assert 0.8 * bound < ours.abs().max().item() <= bound * 1.0001  # a depthwise one draws few numbers
            assert 0.8 * bound < theirs.abs().max().item() / 6**0.5 <= bound * 1.0001
        else:
            assert torch.equal(ours, theirs)


def test_cct_leaves_maps_alone_that_do_not_know_their_size_yet():
    class Lazy(nn.Module):
        """A mixer whose map learns its width from the first tokens."""

        def __init__(self, dim, **_):
            super().__init__()
            self.map = nn.LazyLinear(dim)

        def forward(self, x, rotary=None):
            return self.map(x)

    assert vix.build("CCT", mixer=Lazy, patch_size=8, dim=16).eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_cct_leaves_branches_out_ever_more_often_in_training_alone():
    model = vix.build("CCT", seed=0, patch_size=8, dim=16, heads=2, dim_head=4, drop_path=0.3)
    assert [block.drop_path.p for block in model.blocks] == pytest.approx([0, 0.1, 0.2, 0.3])
    x, block = torch.randn(4000, 16, 16), model.blocks[-1]
    block.ff[3].weight.data.zero_()  # so that the first branch alone is seen
    line = block.ff_norm(x)
    torch.manual_seed(0)
    left_out = (block(x) - line).abs().amax((1, 2)) < 1e-6
    assert left_out.float().mean().item() == pytest.approx(0.3, abs=0.03)
    mixed = block.ff_norm(x + block.mixer(block.mixer_norm(x)) / 0.7)
    torch.manual_seed(0)
    assert torch.allclose(block(x)[~left_out], mixed[~left_out], atol=1e-5), "what is kept makes up for the rest"
    assert torch.equal(block.eval()(x), block(x))
    with pytest.raises(ValueError, match="drop_path=1"):
        vix.build("CCT", drop_path=1)


@pytest.mark.parametrize("name", ["CPV", "CNV", "CvP", "CvN", "LeViN"])
def test_hosts_without_tables_take_any_size_after_building(name):
    model = vix.build(name, **vix.applicable(name, {"patch_size": 4, "num_landmarks": 16})).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 48, 40)).shape == (1, 10)


def test_who_cannot_take_another_size_at_all_is_not_told_to_resize_the_table():
    model = vix.build("ViL", image_size=8, patch_size=2, rank=4)
    with pytest.raises(ValueError, match="6x6 tokens but this ViX has parts for a grid of 4x4"):
        model(torch.randn(2, 3, 12, 12))


@pytest.mark.parametrize(("name", "own"), [
    ("CvT", {}), ("CLTV", {}), ("LeViT", {"attention_bias": True}), ("ViT", {"bias_grid": (4, 4), "pool": "mean"}),
    ("MLPMixer", {}), ("LeViL", {"rank": 4}), ("CCL", {"rank": 4}), ("CPV", {"mixer": "linformer", "rank": 4})])
def test_a_picture_of_another_shape_is_refused_even_with_as_many_tokens(name, own):
    options = vix.applicable(name, {"image_size": 8, "patch_size": 2, "position": "none", "dim": 8, "depth": 1,
                                    "heads": 2, "dim_head": 4, **own})
    model = vix.build(name, **options)
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    with pytest.raises(ValueError, match="2x8 tokens but this .* has parts for a grid of 4x4"):
        model(torch.randn(2, 3, 4, 16))


@pytest.mark.parametrize(("call", "words"), [
    (lambda: vix.build("CPV", patch_size=8), "patch_size=8 is no total stride of 2 convolution"),
    (lambda: vix.build("CPV", conv_init="xavier"), "conv_init='xavier' is unknown"),
    (lambda: vix.build("CPV", dim=30), "dim=30 must be divisible by 4"),
    (lambda: vix.build("LeViT", activation="relu"), "activation='relu'"),
    (lambda: vix.build("CvT", depths=(1, 0)), "depths\\[1\\]=0"),
    (lambda: vix.build("CLTV")(torch.randn(1, 3, 16, 16)), "16x16 tokens but this CXV has parts for a grid of 32x32"),
    (lambda: HeadsQKV(8, 2, 4, projection="conv", grid=(4, 4)).split(torch.randn(1, 9, 8), None),
     "9 tokens, but this convolution is for a grid of 4x4"),
    (lambda: vix.build("LeViT", attention_bias=True, bias_grid=(3, 3)), "bias_grid=.* is what attention_bias=True"),
    (lambda: vix.build("ResNet18", num_classes=0), "num_classes=0"),
    (lambda: vix.build("LeViT", image_size=16, patch_size=2, dim=(8, 16), depth=(1, 1))(torch.rand(2, 3, 32, 32)),
     "16x16 tokens but this LeViT has parts for a grid of 8x8; build the model with this image_size"),
    (lambda: vix.build("LeViT", image_size=16, patch_size=2, dim=(8, 16), depth=(1, 1))(torch.rand(2, 3, 32, 8)),
     "16x4 tokens but this LeViT has parts for a grid of 8x8"),
])
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
