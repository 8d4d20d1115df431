"""Figures say which picture, size or curve they cannot draw."""
from __future__ import annotations

import matplotlib.pyplot
import pytest
import torch

from vixlib.figures import common as figures
from vixlib.figures import hosts

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
    (lambda: figures.show_pictures(PICTURE), r"image has shape \(32, 32\)"),
    (lambda: curves([4], [1.0]), r"tokens=\[4\] must end in two different sizes"),
    (lambda: curves([4, 4], [1.0, 2.0]), r"tokens=\[4, 4\] must end in two different sizes"),
    (lambda: curves([4, 8], [1.0, 0]), r"softmax=\[1.0, 0\] must be numbers above 0"),
    (lambda: curves([0, 8], [1.0, 2.0]), r"tokens=\[0, 8\] must be numbers above 0"),
    (lambda: curves([4, 8], [1.0]), r"softmax=\[1.0\] must be 2 numbers"),
    (lambda: figures.cut_into_patches(PICTURE, 5), "patch_size=5 does not divide a picture of 32x32"),
    (lambda: figures.cut_into_patches(PICTURE, 0), "patch_size=0 must be at least 1"),
    (lambda: figures.cut_into_patches(PICTURE, 8, gap=0), "gap=0 must be at least 1"),
    (lambda: figures.slope_guides(None, [], {1: 2.0}), r"tokens=\[\] must be numbers above 0"),
    (lambda: figures.slope_guides(None, [4, 8], {1: 0.0}), r"ends\[1\]=\[0.0, 0.0\] must be numbers above 0"),
    (lambda: hosts.stage_drawing({}), "traces={} holds nothing to draw"),
    (lambda: figures.attention_grid(PICTURE, torch.zeros(2, 0, 4, 4), ""), r"weights has shape \(2, 0, 4, 4\)"),
    (lambda: figures.attention_grid(PICTURE, torch.zeros(2, 4, 4), ""), r"weights has shape \(2, 4, 4\)"),
])
def test_what_cannot_be_drawn_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_what_can_be_drawn_is():
    assert len(figures.show_pictures(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), columns=2).axes) == 4
    assert figures.cut_into_patches(PICTURE, 8, pixel=2, gap=1).shape == (3, 67, 67)
    curves([4, 8], [1.0, 2.0])
    assert len(figures.attention_grid(PICTURE, torch.ones(1, 2, 4, 4), "").axes) == 4
