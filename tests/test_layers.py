"""Parts taken out of a CXV layer, what one place sees of the picture, and the figures of both."""
from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import vixlib as vix
from vixlib.figures import live, new_axes
from vixlib.figures.layers import PARTS, SYSTEM_COLOURS, layer_maps, part_bars, reach, reach_maps, window, without
from vixlib.report.differences import claims
from vixlib.report.rows import table_rows

TINY = {"dim": 16, "depth": 2, "heads": 2, "dim_head": 8, "mlp_dim": 24}


def cpv(**options):
    return vix.build("CPV", seed=0, **{**TINY, **options})


def shuffled_after_the_stem(model, images):
    """Class scores of `images` [B, C, H, W] and of the same with the places mixed up before the first layer."""
    x = model.eval().stem(images)
    order = torch.randperm(x.shape[2] * x.shape[3], generator=torch.Generator().manual_seed(1))
    scores = []
    for tokens in (x, x.flatten(2)[..., order].unflatten(2, x.shape[2:])):
        for block in model.blocks:
            tokens = block(tokens)
        scores.append(model.head(tokens.mean(dim=(2, 3))))
    return scores


@pytest.mark.parametrize("part", PARTS)
def test_the_part_is_gone_and_everything_else_is_as_it_was(part):
    model = cpv()
    left = without(model, part)
    kept = {"conv": "conv.weight", "mixer": "mixer.", "ff": "ff."}[part]
    mine, theirs = left.state_dict(), model.state_dict()
    for name, value in theirs.items():
        inner = name.split(".", 2)[2] if name.startswith("blocks.") else name
        if not inner.startswith(kept):
            assert torch.equal(mine[name], value), name
        else:
            assert name not in mine or mine[name].shape[-2:] == (1, 1)
    assert left.name == f"CPV without {part}" and model.name == "CPV"
    assert vix.count_parameters(left).true < vix.count_parameters(model).true


@pytest.mark.parametrize("part", PARTS)
def test_the_model_itself_is_not_touched(part):
    model, images = cpv().eval(), torch.randn(2, 3, 8, 8)
    before = model(images)
    nn.init.zeros_(without(model, part).head.weight)
    assert torch.equal(model(images), before)


def test_without_mixer_and_ff_only_the_norms_are_not_linear():
    model = without(without(cpv(), "mixer"), "ff").double().eval()
    x, y = torch.randn(2, 2, 3, 8, 8, dtype=torch.float64)
    maps = layer_maps(model, x)
    normed = model.blocks[0].norm(model.blocks[0].conv(maps["stem"]).movedim(1, -1)).movedim(-1, 1)
    assert torch.allclose(maps["layer 1"], normed, atol=1e-12)
    assert not torch.allclose(model(x + y), model(x) + model(y) - model(torch.zeros_like(x)), atol=1e-6)
    for block in model.blocks:
        block.norm = nn.Identity()
    assert torch.allclose(model(x + y), model(x) + model(y) - model(torch.zeros_like(x)), atol=1e-12)


def test_only_without_conv_the_order_of_the_places_is_of_no_account():
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for model, alike in ((cpv(), False), (without(cpv(), "mixer"), False), (without(cpv(), "conv"), True)):
        here, there = shuffled_after_the_stem(model.double(), images)
        assert torch.allclose(here, there, atol=1e-10) == alike, model.name


def test_the_1x1_weights_are_spread_as_pytorch_would_draw_them():
    block = without(vix.build("CPV", seed=0, depth=2), "conv").blocks[1].conv
    bound = 1 / math.sqrt(block.in_channels)
    assert block.weight.abs().max() <= bound
    assert block.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("part", PARTS)
def test_a_model_without_a_part_trains_a_step_with_all_its_parameters(part):
    model = without(cpv(dropout=0.0), part).train()
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(("name", "part"), [("CNV", "conv"), ("CLTV", "mixer"), ("CLTV", "conv")])
def test_other_mixers_too(name, part):
    left = without(vix.build(name, seed=0, **vix.applicable(name, {**TINY, "num_landmarks": 8, "image_size": 8})), part)
    assert left.eval()(torch.randn(1, 3, 8, 8)).isfinite().all()


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: without(cpv(), "attention"), ValueError, "part='attention' is unknown; use one of 'conv', 'mixer', 'ff'"),
    (lambda: without(vix.build("ViT", depth=1), "mixer"), TypeError, "model is a ViX.*use a CXV"),
    (lambda: without(without(cpv(), "conv"), "conv"), ValueError, "part='conv' has already been taken out"),
    (lambda: without(without(cpv(), "ff"), "ff"), ValueError, "part='ff' has already been taken out"),
    (lambda: layer_maps(vix.build("ViT", depth=1), torch.randn(1, 3, 32, 32)), TypeError, "model is a ViX"),
    (lambda: reach(cpv(), torch.randn(3, 8, 8), place=(8, 0)), ValueError, r"place=\(8, 0\) is outside .* 8x8 tokens"),
    (lambda: reach(cpv(), torch.randn(3, 8, 8), place=(1.5, 0)), TypeError, r"place=\(1.5, 0\) must be a pair of int"),
    (lambda: reach(cpv(), torch.randn(3, 8, 8), place=()), TypeError, r"place=\(\) must be a pair of integers"),
    (lambda: reach(cpv(), torch.zeros(3, 8, 8, dtype=torch.uint8)), TypeError, "image has type torch.uint8"),
    (lambda: reach(cpv(), torch.randn(1, 3, 8, 8)), ValueError, r"image has shape \(1, 3, 8, 8\)"),
    (lambda: reach(cpv(), torch.randn(1, 8, 8)), ValueError, r"image has shape \(1, 8, 8\); expected .*3"),
    (lambda: layer_maps(cpv(), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)), TypeError, "images has type torch.uint8"),
    (lambda: layer_maps(cpv(), torch.randn(1, 1, 8, 8)), ValueError, r"images has shape \(1, 1, 8, 8\)"),
    (lambda: reach(cpv(), torch.randn(3, 8, 8), directions=0), ValueError, "directions=0"),
])
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_layer_maps_end_in_what_the_head_reads():
    model, images = cpv(), torch.randn(2, 3, 8, 8)
    maps = layer_maps(model.train(), images)  # dropout stays off, the mode comes back
    assert list(maps) == ["stem", "layer 1", "layer 2"] and model.training
    assert torch.allclose(model.head(maps["layer 2"].mean(dim=(2, 3))), model.eval()(images), atol=1e-6)


@pytest.mark.parametrize(("patch_size", "sides"), [(1, (5, 7, 9)), (2, (7, 11, 15)), (4, (7, 15, 23))])
def test_convolutions_alone_see_a_window_that_grows_with_depth(patch_size, sides):
    model = without(cpv(patch_size=patch_size), "mixer")
    found = [window(strength) for strength in reach(model, torch.randn(3, 32, 32)).values()]
    assert found == [(side, side) for side in sides]


def test_the_mixer_sees_everything_in_the_first_layer_already():
    sees = reach(cpv(), torch.randn(3, 16, 12))
    assert [window(s) for s in sees.values()] == [(5, 5), (16, 12), (16, 12)]
    assert window(reach(cpv(), torch.randn(3, 16, 12), place=(0, 0))["stem"]) == (3, 3)  # cut by the border


def test_reach_estimates_the_exact_derivatives():
    model, image = without(cpv(), "mixer").double(), torch.randn(3, 8, 8, dtype=torch.float64)
    exact = torch.autograd.functional.jacobian(lambda x: layer_maps(model, x[None])["layer 1"][0, :, 4, 4], image)
    exact = exact.square().sum(dim=(0, 1)).sqrt()
    estimate = reach(model, image, directions=4000)["layer 1"]
    assert torch.equal(estimate == 0, exact == 0)
    assert torch.allclose(estimate, exact, rtol=0.15)
    assert torch.equal(reach(model, image)["layer 1"], reach(model, image)["layer 1"])  # the same directions each time


def test_reach_has_gradients_where_the_caller_has_none():
    image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = reach(cpv(), image)
    assert torch.equal(found["layer 2"], reach(cpv(), image)["layer 2"])
    with torch.inference_mode(), pytest.raises(ValueError, match="reach computes gradients"):
        reach(cpv(), image)


def test_reach_of_layers_that_are_computed_again_is_the_same_while_training():
    model, image = cpv(checkpointing=True), torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
    again, plain = reach(model.train(), image), reach(cpv(), image)
    assert model.training and all(torch.allclose(again[name], plain[name], atol=1e-7) for name in plain)


def test_without_leaves_the_random_numbers_alone():
    model, state = cpv(), torch.get_rng_state()
    without(model, "conv")
    assert torch.equal(state, torch.get_rng_state())


def test_window_of_nothing_and_of_a_corner():
    strength = torch.zeros(4, 6)
    assert window(strength) == (0, 0)
    strength[1, 2] = strength[3, 5] = 1.0
    assert window(strength) == (3, 4)


def test_figures_show_every_model_once():
    model, image = cpv(), torch.randn(3, 8, 8)
    figure = reach_maps({"whole": reach(model, image), "without mixer": reach(without(model, "mixer"), image)})
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(titles) == 6 and titles[0] == "stem\n5 × 5 pixels" and titles[1].endswith("8 × 8 pixels")
    _, ax = new_axes()
    part_bars(ax, {"whole": [80.0, 90.0], "without ff": [30.0]}, {"whole": 1000, "without ff": 500}, chance=10)
    assert [text.get_text() for text in ax.texts] == ["85.0 %, 1,000 parameters", "30.0 %, 500 parameters", "guessing"]
    assert [bar.get_width() for bar in ax.patches] == [85.0, 30.0]


def test_every_system_of_the_table_has_a_colour_of_its_own():
    assert set(SYSTEM_COLOURS) == {row.model for row in table_rows("cxv")}
    assert len(set(SYSTEM_COLOURS.values())) == len(SYSTEM_COLOURS)


def test_the_switch_of_optimisers_is_marked_in_live_curves(monkeypatch):
    painted = []
    monkeypatch.setattr(live, "redrawn", lambda paint: lambda run: painted.append(paint(run)))
    draw = live.live_curves()
    for sgd_from, marks in ((2, ["AdamW", "SGD"]), (None, []), (9, [])):
        history = [{"epoch": e, "loss": 1.0, "top1": 20.0, "top5": 90.0, "seconds": 1.0} for e in (1, 2)]
        draw(vix.Run("CPV", "uniform", {}, "shapes", 100, vix.TrainConfig(epochs=2, sgd_from=sgd_from), "CPU",
                     "float32", history))
        assert [text.get_text() for text in painted[-1].axes[0].texts] == marks


def test_a_name_with_a_slash_can_be_compared(tmp_path):
    assert claims([("CPV", "HybridViP-6/8"), ("CPV", "ResNet18")], tmp_path) == [
        "not measured: CPV against HybridViP-6/8", "not measured: CPV against ResNet18"]
