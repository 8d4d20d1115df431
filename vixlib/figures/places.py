"""Figures of positions: angles as dials, scores over a picture's grid, what a position table has learned."""
from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .common import as_array, new_axes, require_place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito, as in common.py, but not a colour of a mixer that stands beside them.
COLOURS = {"none": "#999999", "learned": "#CC79A7", "rope": "#56B4E9", "rope2d": "#E69F00"}


def dials(angles: Tensor, titles: list[str]) -> Figure:
    """One dial a feature pair: where its hand points at positions 0, 1, ...; angles `[positions, pairs]` in radians."""
    import matplotlib.pyplot as plt

    count = len(angles)
    shades = plt.get_cmap("viridis")(torch.linspace(0, 0.9, count).numpy())
    figure, axes = new_axes(len(titles), width=2.1, height=2.4, squeeze=False)
    for ax, title, turned in zip(axes[0], titles, angles.mT, strict=True):
        ax.add_patch(plt.Circle((0, 0), 1, fill=False, color="#999999", linewidth=0.8))
        for position, (angle, shade) in enumerate(zip(turned, shades, strict=True)):
            tip = float(angle.cos()), float(angle.sin())
            ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "-|>", "color": shade, "shrinkA": 0, "shrinkB": 0})
            apart = abs(float(angle - turned[max(0, position - 1)])), abs(float(angle - turned[0]))
            if position == 0 or apart[0] > 0.15 or (position == count - 1 and apart[1] > 0.15):  # would not collide
                ax.text(1.17 * tip[0], 1.17 * tip[1], str(position), ha="center", va="center", fontsize=8)
        ax.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal")
        ax.set_title(title, fontsize=9)
        ax.axis("off")
    return figure


def score_maps(rows: Mapping[str, Mapping[str, Tensor]], query: tuple[int, int]) -> Figure:
    """Scores of one query place with every place of the grid: a row of maps `[rows, columns]` for each entry.

    Orange is a positive score, purple a negative one, each row of maps on a scale of its own, in units of its
    largest score; the query is framed.
    """
    from matplotlib.patches import Rectangle

    columns = len(next(iter(rows.values())))
    figure, axes = new_axes(columns, len(rows), width=3.1, height=2.9, squeeze=False)
    for line, (label, maps) in zip(axes, rows.items(), strict=True):
        largest = max(float(scores.abs().max()) for scores in maps.values())
        for ax, (name, scores) in zip(line, maps.items(), strict=True):
            require_place("query", query, tuple(scores.shape))
            heat = ax.imshow(as_array(scores / largest), cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
            corner = query[1] - 0.5, query[0] - 0.5
            ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.5))
            ax.set_title(name, fontsize=9)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        line[0].set_ylabel(label, fontsize=9)
    figure.colorbar(heat, ax=axes, label="score, in units of the row's largest", shrink=0.7)
    return figure


def similarity(table: Tensor) -> Tensor:
    """Cosine of every place's vector with every other's, less their mean: `[R, C, D] -> [R, C, R, C]`.

    What all places share says nothing about where they are, and would hide what they do not share.
    """
    rows, columns = table.shape[:2]
    vectors = table.detach().flatten(0, 1)
    vectors = torch.nn.functional.normalize(vectors - vectors.mean(dim=0), dim=-1)
    return (vectors @ vectors.mT).unflatten(1, (rows, columns)).unflatten(0, (rows, columns))


def similarity_maps(cosines: Tensor, title: str = "", most: int = 8) -> Figure:
    """A small map a place, at most `most` a side, evenly chosen: its similarity `[R, C, R, C]` with all others."""
    rows, columns = (torch.linspace(0, n - 1, min(n, most)).round().long().tolist() for n in cosines.shape[:2])
    figure, axes = new_axes(len(columns), len(rows), width=0.72, height=0.72, squeeze=False)
    # A place is always like itself; the scale ends at what is seen between different ones.
    different = cosines.flatten(2).flatten(0, 1).clone().fill_diagonal_(0)
    largest = float(different.abs().max())
    for line, row in zip(axes, rows, strict=True):
        for ax, column in zip(line, columns, strict=True):
            heat = ax.imshow(as_array(cosines[row, column]), cmap="PuOr_r", vmin=-largest, vmax=largest,
                             interpolation="nearest")
            ax.plot(column, row, "k+", markersize=4)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
    figure.colorbar(heat, ax=axes, label="cosine similarity", shrink=0.8, extend="max")
    figure.suptitle(title, fontsize=9)
    return figure


def neighbour_similarity(cosines: Tensor) -> tuple[float, float]:
    """Mean similarity of places that touch (above, below, left, right), and of all pairs of different places."""
    rows, columns = cosines.shape[:2]
    all_pairs = cosines.flatten(2).flatten(0, 1)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(cosines)
    touching = torch.cdist(places, places, p=1).round() == 1
    others = ~torch.eye(rows * columns, dtype=torch.bool, device=cosines.device)
    return all_pairs[touching].mean().item(), all_pairs[others].mean().item()
