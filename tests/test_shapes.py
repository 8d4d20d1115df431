"""The embedded data set: reproducible, split cleanly, too hard for a linear model, learnt by a small ViT."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vixlib.data.shapes import CLASSES, PLACES, _arrange, make_shapes


@pytest.fixture(scope="module")
def shapes():
    return make_shapes(train=4000, test=1000)


def digests(images):
    return {image.numpy().tobytes() for image in images}


def test_same_seed_gives_the_same_bits_and_another_seed_other_pictures():
    first, again, other = (make_shapes(200, 50, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.train_images, again.train_images)
    assert torch.equal(first.test_images, again.test_images)
    assert not digests(first.train_images) & digests(other.train_images)
    assert not digests(first.train_images) & digests(make_shapes(200, 50, seed=2**31 - 1).train_images)


def test_global_generator_is_neither_used_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    make_shapes(20, 10)
    assert torch.equal(before, torch.get_rng_state())


def test_a_larger_set_begins_with_the_smaller_one():
    small, large = make_shapes(150, 10), make_shapes(1200, 10)
    assert torch.equal(large.train_images[:150], small.train_images)
    assert torch.equal(large.train_labels[:150], small.train_labels)


def test_train_and_test_share_no_picture_not_even_across_seeds(shapes):
    train, test = digests(shapes.train_images), digests(shapes.test_images)
    assert len(train) == 4000 and len(test) == 1000
    neighbour = make_shapes(1000, 1000, seed=1)
    for others in (test, digests(neighbour.train_images), digests(neighbour.test_images)):
        assert not train & others


def test_classes_are_equally_frequent_and_readable(shapes):
    assert shapes.classes == CLASSES and len(set(CLASSES)) == 10
    assert "vertical stripes above the frame" in CLASSES
    assert shapes.train_labels.bincount().tolist() == [400] * 10


def test_other_sizes_fill_the_picture():
    data = make_shapes(50, 10, size=48)
    assert data.image_size == (48, 48) and data.num_classes == 10


@pytest.mark.parametrize(("options", "message"), [
    ({"size": 16}, "size=16.*at least 24"),
    ({"train": 0}, "train=0"),
    ({"seed": -1}, "seed=-1"), ({"seed": 2**31}, r"seed=2147483648 .* below 2\*\*31"),
])
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_shapes(**options)


def accuracy(model, data):
    with torch.no_grad():
        images, labels = data.batch(torch.arange(len(data.test_labels)), split="test")
        return (model(images).argmax(1) == labels).float().mean().item()


def train_for(model, data, epochs, rate):
    torch.manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(epochs):
        for index in torch.randperm(len(data.train_labels)).split(50):
            images, labels = data.batch(index)
            optimiser.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimiser.step()
    return accuracy(model, data)


def test_a_linear_model_of_the_pixels_stays_near_chance(shapes):
    torch.manual_seed(0)
    assert train_for(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), shapes, epochs=4, rate=1e-3) < 0.20


def test_stripes_are_a_local_detail(shapes):
    """Differences of neighbouring pixels tell how the stripes run: no need to know where anything is."""
    images = shapes.train_images.float()
    down, right = images.diff(dim=2).abs(), images.diff(dim=3).abs()
    # In patches, as stripes are strong only inside the figure.
    down, right = (F.avg_pool2d(change.mean(1), 6, stride=2).flatten(1)
                   for change in (down[..., :31], right[..., :31, :]))
    contrast = down - right
    strongest = contrast.gather(1, contrast.abs().argmax(1, keepdim=True)).squeeze(1)
    says_vertical = (strongest < 0).long()
    assert (says_vertical == shapes.train_labels // 5).float().mean() > 0.9


def test_the_figures_place_in_the_picture_gives_the_relation_in_four_cases_of_five():
    """The best guess from one centre alone, by counting in cells of two pixels; from both centres it is certain."""
    count, cells, generator = 50_000, 16, torch.Generator().manual_seed(0)
    place = torch.arange(count) % len(PLACES)
    _, figure, _, frame = _arrange(place, 32, lambda low, high, *shape: low + (high - low) * torch.rand(
        count, *(shape or (1, 1)), generator=generator))

    def guessed(centre):
        right, down = (centre / 2).long().clamp(0, cells - 1).unbind(1)
        seen = torch.bincount((right * cells + down) * len(PLACES) + place, minlength=cells**2 * len(PLACES))
        return seen.view(-1, len(PLACES)).max(1).values.sum().item() / count

    assert 0.78 < guessed(figure) < 0.83
    assert guessed(frame) < 0.55 and guessed(figure - frame + 16) == 1


def test_a_vit_learns_it_and_needs_positions_for_it(shapes):
    """Few steps, so no mark of the full accuracy: clearly above the 20 % that the stripes alone give."""
    from vixlib.models.zoo import build

    size = {"patch_size": 4, "dim": 64, "depth": 1, "heads": 4, "seed": 0}
    with_positions = train_for(build("ViT", **size), shapes, epochs=3, rate=2e-3)
    without = train_for(build("ViT", position="none", **size), shapes, epochs=3, rate=2e-3)
    assert with_positions > 0.35
    assert without < 0.28
    assert with_positions > without + 0.15
