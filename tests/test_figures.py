"""Figures say which picture, size or curve they cannot draw."""
from __future__ import annotations

import matplotlib.pyplot
import pytest
import torch

from vixlib.figures import common as figures
from vixlib.figures import hosts, pairs, places
from vixlib.measure.probe import ShiftScores

matplotlib.use("Agg")
PICTURE = torch.zeros(3, 32, 32)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def curves(tokens, values):
    figures.cost_curves(figures.new_axes()[1], tokens, {"softmax": values}, "cost")


@pytest.mark.parametrize(("call", "words"), [
    (lambda: figures.show_pictures(torch.zeros(0, 3, 8, 8)), "images=.* holds no picture"),
    (lambda: figures.show_pictures([]), r"images=\[\] holds no picture"),
    (lambda: figures.show_pictures([PICTURE], columns=0), "columns=0 must be at least 1"),
    (lambda: figures.show_pictures(PICTURE), r"images has shape \(3, 32, 32\); expected pictures \[B, C, H, W\]"),
    (lambda: figures.show_pictures(torch.tensor(1.0)), r"images has shape \(\); expected pictures"),
    (lambda: figures.show_pictures([PICTURE * torch.nan]), "image has NaN or infinite pixels"),
    (lambda: figures.show_pictures([torch.zeros(3, 0, 8)]), r"image has shape \(3, 0, 8\) and no pixel"),
    (lambda: curves([4], [1.0]), r"tokens=\[4\] must end in two different sizes"),
    (lambda: curves([4, 4], [1.0, 2.0]), r"tokens=\[4, 4\] must end in two different sizes"),
    (lambda: curves([4, 8], [1.0, 0]), r"softmax=\[1.0, 0\] must be finite numbers above 0"),
    (lambda: curves([0, 8], [1.0, 2.0]), r"tokens=\[0, 8\] must be finite numbers above 0"),
    (lambda: curves([4, 8], [1.0]), r"softmax=\[1.0\] must be 2 numbers"),
    (lambda: figures.cut_into_patches(PICTURE, 5), "patch_size=5 does not divide a picture of 32x32"),
    (lambda: figures.cut_into_patches(PICTURE, 0), "patch_size=0 must be at least 1"),
    (lambda: figures.cut_into_patches(PICTURE, 8, gap=0), "gap=0 must be at least 1"),
    (lambda: figures.show_pictures([torch.full((3, 4, 4), 255.0)]), "pixels up to 255, far from -1 ... 1"),
    (lambda: figures.slope_guides(None, [], {1: 2.0}), r"tokens=\[\] must be finite numbers above 0"),
    (lambda: figures.slope_guides(None, [4, 8], {1: 0.0}), r"ends\[1\]=\[0.0, 0.0\] must be finite numbers above 0"),
    (lambda: hosts.stage_drawing({}), "traces={} holds nothing to draw"),
    (lambda: figures.attention_grid(PICTURE, torch.zeros(2, 0, 4, 4), ""), r"weights has shape \(2, 0, 4, 4\)"),
    (lambda: figures.attention_grid(PICTURE, torch.ones(1, 1, 4, 4), "", (0, 4)), r"query=\(0, 4\) is outside the"),
    (lambda: heat_map((-1, 0)), r"query=\(-1, 0\) is outside the grid of 4x4"),
    (lambda: places.score_maps({"a": {"b": torch.ones(2, 3)}}, (2, 0)), r"query=\(2, 0\) is outside the grid of 2x3"),
    (lambda: figures.attention_grid(PICTURE, torch.zeros(2, 4, 4), ""), r"weights has shape \(2, 4, 4\)"),
])
def test_what_cannot_be_drawn_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_grey_pictures_are_drawn_grey():
    image = figures.show_pictures(torch.full((1, 1, 8, 8), 128, dtype=torch.uint8)).axes[0].images[0]
    assert image.get_array().shape == (8, 8, 3) and abs(image.get_array() - 128 / 255).max() < 1e-6


def test_titles_that_are_no_list_are_named():
    with pytest.raises(TypeError, match="titles=7 must be a list of texts"):
        figures.show_pictures([PICTURE], titles=7)


def heat_map(query):
    figures.heat_maps([figures.new_axes()[1]], PICTURE, {"softmax": torch.ones(4, 4)}, query)


def test_what_cannot_be_shown_leaves_no_figure_behind():
    with pytest.raises(ValueError, match="2 channels"):
        figures.show_pictures(torch.zeros(3, 2, 8, 8))
    assert not matplotlib.pyplot.get_fignums()


def test_weights_with_a_gradient_or_of_half_precision_are_drawn():
    weights = torch.ones(1, 1, 4, 4, dtype=torch.bfloat16, requires_grad=True)
    assert len(figures.attention_grid(PICTURE, weights, "", (3, 3)).axes) == 3


def test_one_dial_is_drawn_as_many_are():
    assert len(places.dials(torch.rand(4, 1), ["pair 0"]).axes) == 1


def test_shifts_of_every_model_are_on_the_axis():
    scores = {name: [ShiftScores(pixels, 50.0, 60.0, 0.7) for pixels in shifts]
              for name, shifts in (("ViT", (0, 4)), ("ViP", (0,)))}
    axes = figures.new_axes(3)[1]
    pairs.shift_curves(axes, scores)
    assert [list(ax.get_xticks()) for ax in axes] == [[0, 4]] * 3


def test_what_can_be_drawn_is():
    assert len(figures.show_pictures(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), columns=2).axes) == 4
    assert figures.cut_into_patches(PICTURE, 8, pixel=2, gap=1).shape == (3, 67, 67)
    curves([4, 8], [1.0, 2.0])
    assert len(figures.attention_grid(PICTURE, torch.ones(1, 2, 4, 4), "").axes) == 4
