"""Names, configurations and counts against the paper, and the ViX host's behaviour with every part."""
from __future__ import annotations

import pytest
import torch
from gains import awake
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import vixlib as vix
from vixlib import errors
from vixlib.models.zoo import CONFIGS, SYSTEMS, settings
from vixlib.report.rows import ROPE_MODELS

SMALL = {"image_size": 16, "patch_size": 2, "dim": 32, "depth": 2, "heads": 2, "dim_head": 8, "mlp_dim": 48,
         "num_landmarks": 8, "rank": 8}
POSITIONS = ("none", "learned", "rope", "rope2d")


def small(name, **more):
    return vix.build(name, seed=0, **vix.applicable(name, {**SMALL, **more}))


@pytest.mark.parametrize("row", [row for table in (1, 3) for row in vix.paper_table(table)["rows"]],
                         ids=lambda row: row["model"])
def test_counts_of_tables_1_and_3_to_the_digit(row):
    printed = 885_322 if row["model"] == "HybridViT" else row["params"]  # 885,332 is a slip: its layers give 885,322
    assert vix.count_parameters(vix.build(row["model"], config="paper")).as_paper == printed


@pytest.mark.parametrize("name", vix.names())
def test_a_flag_is_no_number(name):
    """True counts as 1 wherever Python counts; a model of one layer or of whole pictures must not come of that."""
    numbers = [option for option, value in settings(name).items() if type(value) is int]
    for option in {*numbers, *vix.applicable(name, dict.fromkeys(("patch_size", "depth", "num_classes")))}:
        with pytest.raises((ValueError, TypeError), match=f"{option}.*True"):
            vix.build(name, **{option: True})


def test_true_counts():
    """From the sources' text, or by hand: ViP's transformer is counted twice on paper, tables of positions never."""
    counts = {name: vix.count_parameters(vix.build(name, config="paper")).true
              for name in ("ViP", "ViT", "FNet", "HybridFNet")}
    assert counts == {"ViP": 795_146 + 1025 * 128 + 128, "ViT": 792_586 + 1025 * 128 + 128, "FNet": 399_114,
                      "HybridFNet": 491_850}
    assert round(vix.count_parameters(vix.build("MLPMixer")).true / 1e6, 2) == 8.53


@pytest.mark.parametrize(("name", "printed"), [
    ("ViT", 530_442), ("ViP", 531_978), ("ViN", 530_970), ("ViL", 415_754),
    ("HybridViT", 623_178), ("HybridViP", 624_714), ("HybridViN", 623_706)])
def test_uniform_counts_are_those_of_the_later_version(name, printed):
    assert vix.count_parameters(vix.build(name)).as_paper == printed


def test_linformers_keys_and_values():
    assert vix.build("HybridViL", config="paper").blocks[0].mixer.to_k.out_features == 32  # one shared head
    assert vix.build("HybridViL", config="paper").blocks[0].mixer.to_v is None             # its keys are its values
    assert vix.build("ViL", config="paper").blocks[0].mixer.to_v.out_features == 128       # unshared in Table 1


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", list(SYSTEMS))
def test_every_name_and_position_trains_a_step_or_says_why_not(name, position):
    if position.startswith("rope") and ("FNet" in name or "MLPMixer" in name):
        with pytest.raises(ValueError, match=f"position='{position}'.*(FourierMixer|MLPMixer)"):
            small(name, position=position)
        return
    model = awake(small(name, position=position))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 3])).backward()
    optimizer.step()
    for parameter, value in model.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all(), parameter
        # A bias that shifts all scores of a softmax alike has a gradient of zero.
        unused = torch.equal(value, before[parameter]) and parameter != "pool.score.bias"
        assert not unused, f"{parameter} is not used"


@pytest.mark.parametrize("name", list(SYSTEMS))
@pytest.mark.parametrize("config", CONFIGS)
def test_every_name_and_configuration_classifies(name, config):
    sizes = {"patch_size": 4, "num_landmarks": 16, "rank": 16}
    model = vix.build(name, config, **vix.applicable(name, sizes, config)).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", list(SYSTEMS))
def test_every_tensor_of_a_step_is_made_where_the_model_is(name, training):
    # "meta" computes shapes only; an operation on one of its tensors and one of the CPU fails, as between CPU and GPU.
    options = {"position": "rope2d"} if name in ROPE_MODELS else {}
    model = vix.build(name, **options).to("meta").train(training)
    scores = model(torch.empty(4, 3, 32, 32, device="meta"))
    nn.functional.cross_entropy(scores, torch.empty(4, dtype=torch.long, device="meta")).backward()
    torch.optim.AdamW(model.parameters()).step()
    assert {parameter.grad.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("name", list(SYSTEMS))
def test_every_pixel_is_looked_at_whatever_the_size_of_a_token(name, patch):
    model = vix.build(name, seed=0, **vix.applicable(name, {**SMALL, "image_size": 16, "patch_size": patch,
                                                            "num_landmarks": 2, "rank": 2})).double().eval()
    # Several pictures, because a max-pooling overlooks some pixels of each.
    images = torch.rand(8, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model(images.requires_grad_()).square().sum().backward()
    assert (images.grad.abs().sum(dim=(0, 1)) > 0).all()


def test_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = small("ViP"), small("ViP"), vix.build("ViP", seed=1, **vix.applicable("ViP", SMALL))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("cls", [vix.ViN, vix.ViP, vix.ViL, vix.ViT, vix.FNet])
def test_drop_in_constructors_take_vision_xformers_arguments(cls):
    own = {vix.ViN: {"num_landmarks": 256}}.get(cls, {})
    model = cls(image_size=32, patch_size=1, num_classes=10, dim=128, depth=4, heads=4, mlp_dim=256, pool="cls",
                channels=3, dropout=0., emb_dropout=0., dim_head=32, **own)
    with torch.no_grad():
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 10)


def test_rectangular_images_and_patches():
    model = vix.ViT(image_size=(48, 64), patch_size=(8, 16), dim=32, depth=1, heads=2, dim_head=8)
    assert model.seq_len == 6 * 4 + 1
    assert model(torch.randn(2, 3, 48, 64)).shape == (2, 10)


def test_linear_embedding_reads_each_patch_from_its_own_pixels():
    embedding = vix.ViT(patch_size=8, dim=16, depth=1).embedding
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 8:16, 16:24] = 1.0  # the patch in row 1, column 2 of a 4×4 grid
    changed = (embedding(images) - embedding(torch.zeros_like(images))).abs().sum(-1)[0] > 0
    assert changed.nonzero().flatten().tolist() == [1 * 4 + 2]


def test_conv_embedding_is_local_and_equals_its_convolutions():
    model = small("HybridViT", patch_size=1).double()
    images = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    expected = model.embedding.stages(images).flatten(2).mT
    assert (model.embedding(images) - expected).abs().max() < 1e-12
    moved = images.clone()
    moved[:, :, 8, 8] += 1
    changed = ((model.embedding(moved) - expected).abs().sum(-1)[0] > 1e-6).reshape(16, 16).nonzero()
    assert changed.min() == 8 - 3 and changed.max() == 8 + 3  # three 3×3 convolutions see 7×7 pixels


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_conv_embedding_grid_matches_what_it_makes(patch):
    model = small("HybridViT", patch_size=patch)
    for size in ((16, 16), (24, 32), (17, 19)):
        rows, columns = model.embedding.grid(*size)
        assert model.embedding(torch.randn(1, 3, *size)).shape[1] == rows * columns


def test_without_positions_the_order_of_patches_does_not_matter():
    """A softmax ViT with position 'none' sees a set; with learned positions it does not."""
    images = torch.randn(2, 3, 16, 16)
    turned = images.unflatten(3, (8, 2)).flip(3).flatten(3)  # columns of 2×2 patches in reverse order
    for position, same in (("none", True), ("learned", False), ("rope", False), ("rope2d", False)):
        model = small("ViT", position=position).eval()
        assert torch.allclose(model(images), model(turned), atol=1e-5) == same, position


def test_mean_pooling_has_no_cls_token():
    model = small("ViT", pool="mean")
    assert model.seq_len == 64 and not any("cls" in name for name, _ in model.named_parameters())


def test_a_mixer_of_ones_own():
    class Average(nn.Module):
        def __init__(self, dim, *, heads, dim_head, seq_len, strength=1.0):
            super().__init__()
            self.map, self.strength = nn.Linear(dim, dim), strength

        def forward(self, x, rotary=None):
            return self.map(self.strength * x.mean(1, keepdim=True)).expand_as(x)

    model = vix.build("ViT", mixer=Average, strength=2.0, image_size=16, patch_size=4)
    assert model.blocks[0].mixer.strength == 2.0
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize("host", ["ViT", "LeViT", "CPV", "CvP"])
@pytest.mark.parametrize(("mix", "error", "words"), [
    (lambda x: x.mean(1, keepdim=True), ValueError, r"Own turned \[2, 1[67], 32\] into \[2, 1, 32\]"),
    (lambda x: x[:, :, :1], ValueError, r"into \[2, 1[67], 1\]; a mixer must return"),
    (lambda x: x.mean(), ValueError, r"into \[\]; a mixer must return"),
    (lambda x: x[None], ValueError, r"into \[1, 2, 1[67], 32\]; a mixer must return"),
    (lambda x: (x, None), ValueError, "into tuple; a mixer must return"),
    (lambda x: None, ValueError, "into NoneType; a mixer must return"),
    (lambda x: x.long(), TypeError, "turned torch.float32 into torch.int64; a mixer must return the type"),
    (lambda x: x.double(), TypeError, "turned torch.float32 into torch.float64; a mixer must return the type"),
    (lambda x: torch.fft.fft(x), TypeError, "turned torch.float32 into torch.complex64; a mixer must return the type")])
def test_what_a_mixer_of_ones_own_may_not_return(host, mix, error, words):
    class Own(nn.Module):
        uses_rotary = False

        def __init__(self, dim, *, heads, dim_head, seq_len):
            super().__init__()

        def forward(self, x, rotary=None):
            return mix(x)

    model = vix.build(host, mixer=Own, image_size=16, patch_size=4, dim=32, **{} if host == "CvP" else {"depth": 1})
    with pytest.raises(error, match=words):
        model(torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize(("error", "call", "words"), [
    (ValueError, lambda: vix.build("ViX"), "name='ViX' is unknown.*'ViT'"),
    (ValueError, lambda: vix.build("ViT", config="big"), "config='big'"),
    (TypeError, lambda: vix.build("ViT", num_landmarks=8), "num_landmarks=8.*fused"),
    (ValueError, lambda: vix.build("ViT", patch_size=5), "patch_size=5 does not divide the image size 32x32"),
    (ValueError, lambda: vix.build("HybridViT", patch_size=3), "patch_size=3 is no total stride"),
    (ValueError, lambda: vix.build("HybridViT", dim=30), "dim=30 and widths=.*whole numbers of channels"),
    (ValueError, lambda: vix.build("ViT", pool="max"), "pool='max'"),
    (ValueError, lambda: vix.build("ViT", dropout=1.5), "dropout=1.5"),
    (ValueError, lambda: vix.build("ViT", position="sine"), "position='sine'"),
    (ValueError, lambda: vix.build("ViT", mixer="flash"), "mixer='flash'"),
    (ValueError, lambda: vix.build("ViT", depth=0), "depth=0 must be at least 1"),
    (TypeError, lambda: vix.build("ViT", dim="wide"), "dim='wide' must be an integer"),
    (ValueError, lambda: vix.build("ViN", patch_size=8), "num_landmarks=64 exceeds the sequence length 17"),
    (ValueError, lambda: vix.build("ViT", position="rope", dim_head=7), "dim_head=7 must be divisible by 2"),
    (ValueError, lambda: vix.build("ViT", position="rope2d", dim_head=6), "dim_head=6 must be divisible by 4"),
    (ValueError, lambda: small("ViT")(torch.randn(2, 1, 16, 16)), r"shape \(2, 1, 16, 16\).*\[B, 3, H, W\]"),
    (TypeError, lambda: small("ViT")(torch.randn(2, 3, 16, 16).to_sparse()), "is torch.sparse_coo; pass an ordinary"),
    (TypeError, lambda: small("ViT")(torch.nested.nested_tensor([torch.randn(3, 16, 16)] * 2, layout=torch.jagged)),
     "is nested; pass an ordinary"),
    (ValueError, lambda: small("ViT")(torch.randn(2, 3, 20, 20)), "10x10 tokens but the learned positions are for 8x8"),
])
def test_bad_arguments_are_named(error, call, words):
    with pytest.raises(error, match=words):
        call()


def test_a_seed_draws_on_the_cpu_where_a_gpu_is_the_default(monkeypatch):
    """A GPU's generator is another one, and nobody has seeded it."""
    moved = []
    monkeypatch.setattr(nn.Module, "to", lambda model, place: moved.append(place))
    with FakeTensorMode(), torch.device("cuda:0"):  # tensors of a GPU without one, and without numbers
        model = vix.build("ViT", seed=0, depth=1, dim=8)
    assert moved == [torch.device("cuda:0")] and {weight.device.type for weight in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("name", ["CPV", "CNV", "CLTV"])
@pytest.mark.parametrize("half", [False, True])
def test_convolutions_inside_layers_get_pictures_with_the_features_last(name, half):
    """As fit lays pictures out: in another layout each convolution would copy them, or take a slower kernel."""
    model = vix.build(name, seed=0, image_size=8, depth=3, dim=8, mlp_dim=16)
    seen = []
    for layer in model.blocks:
        layer.conv.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last)))
        layer.ff.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
    images = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        model.to(memory_format=torch.channels_last)(images)
    assert seen == [True] * 6


@pytest.mark.parametrize(("name", "layers"), [("ViT", {"depth": 1000}), ("LeViT", {"depth": 1000}),
                                              ("CPV", {"depth": 1000}), ("CvT", {"depths": (100,) * 10})])
def test_layers_that_would_not_fit_are_named_before_they_are_built(name, layers, monkeypatch):
    monkeypatch.setattr(errors, "machine_memory", lambda: 32 * 2**30)
    own = {"projection": "linear"} if name == "CvT" else {}
    with torch.device("meta"), pytest.raises(ValueError, match="image_size=64.* takes 12. GiB, more than this machine"):
        vix.build(name, mixer="mlp", image_size=64, **layers, **own)
