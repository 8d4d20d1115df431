"""Systems in the plane of the paper's figure 4: accuracy against the memory of a training step."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from ..measure.parameters import count_parameters
from ..models.zoo import build
from ..report.comparison import Group, by_settings
from ..report.leads import recorded_by_group
from ..report.memory import predicted_peak
from ..report.paper import paper_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# How a point is drawn: the paper's are filled and pale, ours hollow.
SOURCES = {"paper": {"alpha": 0.45}, "measured": {"linewidths": 1.8},
           "predicted": {"linewidths": 1.4, "linestyles": "dotted"}}
SOURCE_LABELS = {"paper": "the paper", "measured": "recorded here, memory measured",
                 "predicted": "recorded here, memory predicted"}
AREA = 250  # of a marker, points² for a million parameters


@dataclass(frozen=True)
class Point:
    """A system in the plane of figure 4: accuracy (percent) and memory (GB of a training step at its batch size)."""

    model: str
    top1: float
    memory_gb: float
    params: int
    source: str  # a key of SOURCES


def paper_points(tables: Iterable[int]) -> list[Point]:
    """Rows of the paper's tables; parameters are the true count, not the printed."""
    return [Point(row["model"], row["top1"], row["gpu_gb"],
                  count_parameters(build(row["model"], config="paper", seed=0)).true, "paper")
            for table in tables for row in paper_table(table)["rows"]]


def recorded_points(systems: Iterable[str], results: str | Path | None = None) -> dict[Group, list[Point]]:
    """The recorded runs of `systems`, by group: last epoch's accuracy, mean over seeds, and a training step's memory.
    Runs of one system with other settings are points of their own.

    Memory is what the run measured on its GPU, else predicted in float32 from the model that the record describes.
    """
    return {group: [_point(name, own) for name, records in models.items() for own in by_settings(records)]
            for group, models in recorded_by_group(systems, results).items()}


def _point(name: str, records: list[dict]) -> Point:
    measured = [r["peak_memory_bytes"] for r in records if r["peak_memory_bytes"] is not None]
    first = records[0]
    peak = mean(measured) if measured else predicted_peak(first)
    return Point(name, mean(r["last_top1"] for r in records), peak / 2**30, first["params"]["true"],
                 "measured" if measured else "predicted")


class Look(NamedTuple):
    """How a system is drawn. side, above: of its point, where its name is."""

    colour: str
    marker: str
    line: str
    side: str
    above: bool


def scatter(ax: Axes, points: Sequence[Point], style: Callable[[str], Look], before: Mapping[str, str],
            title: str = "") -> None:
    """Top-1 against memory, area by parameters.   style: of a system, by its name.   before: system -> the one from
    which a line leads to it."""
    points = list(points)
    found = {(point.source, point.model): point for point in points}
    for point in points:
        colour, marker, line, side, above = style(point.model)
        ax.scatter(point.memory_gb, point.top1, s=AREA * point.params / 1e6, marker=marker, edgecolors=colour,
                   facecolors=colour if point.source == "paper" else "none", **SOURCES[point.source])
        _name(ax, point, above, side)
        if other := found.get((point.source, before.get(point.model))):
            ax.plot([other.memory_gb, point.memory_gb], [other.top1, point.top1], line, color=colour, linewidth=0.8,
                    alpha=0.6, zorder=0)
    _finish(ax, points, title)


def _name(ax: Axes, point: Point, above: bool, side: str) -> None:
    """The model's name above or below its point, with a white rim, since lines may pass behind it."""
    from matplotlib.patheffects import withStroke

    ax.annotate(point.model, (point.memory_gb, point.top1), fontsize=8, textcoords="offset points", ha=side,
                xytext=(0, 11 if above else -12), va="bottom" if above else "top",
                path_effects=[withStroke(linewidth=2.5, foreground="white")])


def _finish(ax: Axes, points: Sequence[Point], title: str) -> None:
    """Labels, and a legend of sources and of the area."""
    for source in dict.fromkeys(point.source for point in points):
        ax.scatter([], [], s=60, edgecolors="#555555", facecolors="#555555" if source == "paper" else "none",
                   label=SOURCE_LABELS[source], **SOURCES[source])
    ax.scatter([], [], s=AREA, marker="o", facecolors="none", edgecolors="#999999", label="area of 1 M parameters")
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), labelspacing=1.2)
    ax.margins(x=0.15, y=0.2)
    ax.set(xlabel="memory of a training step (GB)", ylabel="test top-1 accuracy (%)")
    ax.set_xlim(left=0)
    ax.set_title(title, fontsize=9)
