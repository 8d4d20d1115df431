"""What the figures of positions compute: similarities of a table's vectors, with what all share taken off."""
from __future__ import annotations

import pytest
import torch

from vixlib.figures.places import neighbour_similarity, similarity, similarity_maps


def test_similarity_is_a_cosine_that_no_common_part_can_hide():
    torch.manual_seed(0)
    table = torch.randn(4, 6, 32, dtype=torch.float64)
    cosines = similarity(table)
    every = cosines.flatten(2).flatten(0, 1)
    assert torch.allclose(every, every.mT) and torch.allclose(every.diagonal(), torch.ones(24, dtype=torch.float64))
    assert torch.allclose(similarity(table + 100), cosines)
    vectors = (table - table.mean(dim=(0, 1))).flatten(0, 1)
    assert torch.isclose(cosines[1, 2, 3, 4], torch.cosine_similarity(vectors[8], vectors[22], dim=0))


def test_a_place_is_drawn_as_like_itself_and_the_scale_ends_at_what_others_reach():
    cosines = similarity(torch.randn(3, 3, 8, generator=torch.Generator().manual_seed(0)))
    before = cosines.clone()
    drawn = similarity_maps(cosines).axes[0].images[0]
    assert torch.equal(cosines, before)
    assert drawn.get_array()[0, 0] == pytest.approx(1) and drawn.get_clim()[1] < 0.99


def test_neighbours_are_told_from_the_rest():
    torch.manual_seed(0)
    rows, columns = torch.linspace(-1, 1, 5)[:, None], torch.linspace(-1, 1, 7)[None]
    smooth = torch.stack([rows.expand(5, 7), columns.expand(5, 7)], dim=-1)
    touching, everywhere = neighbour_similarity(similarity(smooth))
    assert touching > 0.7 and abs(everywhere) < 0.1
    touching, _ = neighbour_similarity(similarity(torch.randn(5, 7, 512)))
    assert abs(touching) < 0.1


def test_touching_means_above_below_left_and_right():
    cosines = torch.zeros(3, 3, 3, 3)
    cosines[1, 1, 0, 1] = cosines[1, 1, 1, 2] = 1.0  # two of the 24 directed neighbour relations on a 3×3 grid
    cosines[1, 1, 2, 2] = 9.0                        # a diagonal one is none
    touching, everywhere = neighbour_similarity(cosines)
    assert abs(touching - 2 / 24) < 1e-6 and abs(everywhere - 11 / 72) < 1e-6
