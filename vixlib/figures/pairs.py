"""Each ViX beside its Hybrid, which differs in the embedding alone: gains in accuracy, and the figures that compare.

One style throughout: the colour is the mixer's; filled and solid is the Hybrid, hollow and dashed the plain ViX.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import require_known, require_type
from ..measure.model import count_parameters
from ..measure.probe import ShiftScores
from ..models.zoo import build, position_of, settings
from ..report.comparison import Group, run_records
from ..report.differences import THIS_RUN, compared
from ..report.memory import of_record
from ..report.paper import authors_runs, log_marks, paper_table
from ..report.records import read_records
from ..train.run import Run
from .common import MARKERS, MODEL_COLOURS, as_picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIRS = {"ViT": "HybridViT", "ViP": "HybridViP", "ViL": "HybridViL", "ViN": "HybridViN"}
SYSTEMS = (*PAIRS, *PAIRS.values())


def gains(runs: Iterable[Run] = (), results: str | Path | None = None) -> dict[str, dict[str, float]]:
    """Top-1 of each Hybrid less its plain ViX's, in points: source -> {"ViT": 18.27, ...}, pairs that are complete.

    Sources: "paper" and "authors' logs" (best epochs; of logs, whole curves alone), each group of recorded runs with
    learned positions and `runs` as "this run" (last epochs; recorded ones are means over the seeds that both have).
    A source without a pair is left out.
    """
    top1 = {"paper": {row["model"]: row["top1"] for table in (1, 3) for row in paper_table(table)["rows"]}}
    top1["authors' logs"] = {name: max(run["best_top1"] for run in logged) for name in SYSTEMS
                             if (logged := [run for run in authors_runs(name) if not log_marks(run)])}
    return leads(top1, {plain: (hybrid, plain) for plain, hybrid in PAIRS.items()}, runs, results)


def leads(top1: Mapping[str, Mapping[str, float]], wanted: Mapping[str, tuple[str, str]], runs: Iterable[Run],
          results: str | Path | None) -> dict[str, dict[str, float]]:
    """Top-1 of a less that of b for each label -> (a, b), by source: of `top1` (source -> model -> top-1), then of each
    group of recorded runs, then of `runs`.

    Runs are a pair where nothing but the system tells them apart (see report/differences.py). A label that has pairs of
    further settings in one source shows them as "this run (2)", and so on; a source without a label is left out.
    """
    found = {source: {label: of[a] - of[b] for label, (a, b) in wanted.items() if a in of and b in of}
             for source, of in top1.items()}
    systems = {system for pair in wanted.values() for system in pair}
    recorded = recorded_by_group(systems, results)
    sources = {f"recorded, {group}": [r for own in models.values() for r in own] for group, models in recorded.items()}
    live = [record for record in run_records(runs) if record["model"] in systems]
    for source, records in {**sources, THIS_RUN: live}.items():
        positions = dict.fromkeys(record["position"] for record in records)
        for label, (a, b) in wanted.items():
            pairs = [one for position in positions for one in compared(f"{a}/{position}", f"{b}/{position}", records)
                     if one.pairs]
            for number, one in enumerate(pairs, start=1):
                found.setdefault(source if number == 1 else f"{source} ({number})", {})[label] = one.mean
    return {source: gained for source, gained in found.items() if gained}


def recorded_by_group(systems: Iterable[str],
                      results: str | Path | None = None) -> dict[Group, dict[str, list[dict]]]:
    """Records of `systems` with their own kind of positions, by group and model."""
    groups: dict[Group, dict[str, list[dict]]] = {}
    for record in read_records(results):
        if record["model"] in systems and record["position"] == position_of(record["model"], record["config"]):
            groups.setdefault(Group.of(record), {}).setdefault(record["model"], []).append(record)
    return dict(sorted(groups.items()))


@dataclass(frozen=True)
class Point:
    """A system in the plane of figure 4: accuracy (percent) and memory (GB of a training step at its batch size)."""

    model: str
    top1: float
    memory_gb: float
    params: int
    source: str  # a key of SOURCES


def paper_points(tables: Iterable[int] = (1, 3)) -> list[Point]:
    """Rows of the paper's tables, figure 4's unless told otherwise; parameters are the true count, not the printed."""
    return [Point(row["model"], row["top1"], row["gpu_gb"],
                  count_parameters(build(row["model"], config="paper", seed=0)).true, "paper")
            for table in tables for row in paper_table(table)["rows"]]


def recorded_points(results: str | Path | None = None,
                    systems: Iterable[str] = SYSTEMS) -> dict[Group, list[Point]]:
    """The recorded runs of `systems`, by group: last epoch's accuracy, mean over seeds, and a training step's memory.

    Memory is what the run measured on its GPU, else predicted in float32 from the model that the record describes.
    """
    return {group: [_point(name, own) for name, own in models.items()]
            for group, models in recorded_by_group(systems, results).items()}


def _point(name: str, records: list[dict]) -> Point:
    measured = [r["peak_memory_bytes"] for r in records if r["peak_memory_bytes"] is not None]
    first = records[0]
    peak = mean(measured) if measured else of_record(first)
    return Point(name, mean(r["last_top1"] for r in records), peak / 2**30, first["params"]["true"],
                 "measured" if measured else "predicted")


def fractions_of(text: str) -> list[float]:
    """"0.5, 0.1" as [0.1, 0.5]: parts of the training pictures, each above 0 and at most 1; the ValueError says so."""
    require_type("fractions", text, str, 'a text, such as "0.5, 0.1"')
    try:
        parts = sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        parts = [math.nan]
    if not all(0 < part <= 1 for part in parts):
        raise ValueError(f"fractions={text!r} must be numbers above 0 and at most 1, such as 0.1, 0.5")
    return parts


def plain(name: str) -> str:
    """The plain ViX of a pair: "ViT" for "HybridViT" and "ViT"."""
    return name.removeprefix("Hybrid")


def line_style(name: str) -> dict:
    """How a system's curve is drawn."""
    require_known("name", name, SYSTEMS)
    colour, hybrid = MODEL_COLOURS[plain(name)], name != plain(name)
    return {"color": colour, "linestyle": "-" if hybrid else "--", "marker": MARKERS[settings(plain(name))["mixer"]],
            "markersize": 5, "markerfacecolor": colour if hybrid else "white", "label": name}


# How a point is drawn: the paper's are filled and pale, ours hollow.
SOURCES = {"paper": {"alpha": 0.45}, "measured": {"linewidths": 1.8},
           "predicted": {"linewidths": 1.4, "linestyles": "dotted"}}
SOURCE_LABELS = {"paper": "the paper", "measured": "recorded here, memory measured",
                 "predicted": "recorded here, memory predicted"}
AREA = 250  # of a marker, points² for a million parameters
# Of their points: HybridViP and HybridViN are close together in the paper's figure, all but ViP in the recorded one.
LABEL_SIDE = {"ViP": "right", "ViN": "left", "ViL": "right"}


def accuracy_against_memory(ax: Axes, points: Sequence[Point], title: str = "") -> None:
    """Figure 4: top-1 against memory, a line from each ViX (circle) to its Hybrid (square), area by parameters."""
    for point in points:
        hybrid, colour = point.model != plain(point.model), MODEL_COLOURS[plain(point.model)]
        ax.scatter(point.memory_gb, point.top1, s=AREA * point.params / 1e6, marker="s" if hybrid else "o",
                   facecolors=colour if point.source == "paper" else "none", edgecolors=colour, **SOURCES[point.source])
        name_point(ax, point, above=hybrid, side=LABEL_SIDE.get(plain(point.model), "center"))
    found = {(point.source, point.model): point for point in points}
    for (source, name), point in found.items():
        if other := found.get((source, PAIRS.get(name))):
            ax.plot([point.memory_gb, other.memory_gb], [point.top1, other.top1], color=MODEL_COLOURS[name],
                    linewidth=0.8, alpha=0.6, zorder=0)
    finish_memory_axes(ax, points, title)


def name_point(ax: Axes, point: Point, above: bool, side: str) -> None:
    """The model's name above or below its point, with a white rim, since lines may pass behind it."""
    from matplotlib.patheffects import withStroke

    ax.annotate(point.model, (point.memory_gb, point.top1), fontsize=8, textcoords="offset points", ha=side,
                xytext=(0, 11 if above else -12), va="bottom" if above else "top",
                path_effects=[withStroke(linewidth=2.5, foreground="white")])


def finish_memory_axes(ax: Axes, points: Sequence[Point], title: str) -> None:
    """What every figure of accuracy against memory shares: labels, and a legend of sources and of the area."""
    for source in dict.fromkeys(point.source for point in points):
        ax.scatter([], [], s=60, edgecolors="#555555", facecolors="#555555" if source == "paper" else "none",
                   label=SOURCE_LABELS[source], **SOURCES[source])
    ax.scatter([], [], s=AREA, marker="o", facecolors="none", edgecolors="#999999", label="area of 1 M parameters")
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    ax.margins(x=0.15, y=0.2)
    ax.set(xlabel="memory of a training step (GB)", ylabel="test top-1 accuracy (%)")
    ax.set_xlim(left=0)
    ax.set_title(title, fontsize=9)


def shift_curves(axes: Sequence[Axes], scores: Mapping[str, Sequence[ShiftScores]]) -> None:
    """Accuracy, agreement and cosine (three axes) against the shift in pixels, one curve a model."""
    labels = {"top1": "top-1 accuracy (%)", "agreement": "same class as unmoved (%)",
              "cosine": "cosine of the features"}
    for ax, (field, label) in zip(axes, labels.items(), strict=True):
        for name, found in scores.items():
            ax.plot([s.pixels for s in found], [getattr(s, field) for s in found], **line_style(name))
        ax.set(xlabel="shift (pixels)", ylabel=label, xticks=[s.pixels for s in found])
    axes[0].legend(fontsize=8, frameon=False)


def map_grid(picture: Tensor, rows: Mapping[str, Tensor], columns: int = 8, size: float = 1.15,
             titles: Sequence[str] = ()) -> Figure:
    """Feature maps beside their picture `[C, H, W]`: a line for each of `rows`, label -> maps `[K, h, w]`; the figure.

    Each map is scaled by its own largest magnitude: orange above zero, purple below.   titles: of the columns of maps.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(rows), columns + 1, figsize=(size * (columns + 1), (size + 0.2) * len(rows)),
                                squeeze=False, layout="constrained")
    for line, (label, maps) in zip(axes, rows.items(), strict=True):
        for ax in line:
            ax.axis("off")
        line[0].imshow(as_picture(picture))
        line[0].set_title(label, fontsize=8.5)
        for ax, one in zip(line[1:], maps.detach().cpu(), strict=False):
            largest = one.abs().max().clamp(min=1e-12)
            ax.imshow(one / largest, cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
    for ax, title in zip(axes[0, 1:], titles, strict=False):
        ax.set_title(title, fontsize=8.5)
    return figure


def filter_grid(rows: Mapping[str, Tensor], columns: int = 12, size: float = 0.85) -> Figure:
    """Filters as colour pictures, a line for each of `rows`: label -> `[K, C, h, w]`; grey is zero."""
    import matplotlib.pyplot as plt

    # No automatic layout: it would widen the first column to the labels, which may run over the next ones.
    figure, axes = plt.subplots(len(rows), columns, figsize=(size * columns, (size + 0.3) * len(rows)),
                                squeeze=False, gridspec_kw={"wspace": 0.1, "hspace": 0.4})
    for line, (label, filters) in zip(axes, rows.items(), strict=True):
        for ax in line:
            ax.axis("off")
        for ax, one in zip(line, filters.detach().cpu(), strict=False):
            ax.imshow(as_picture(one / one.abs().max().clamp(min=1e-12)), interpolation="nearest")
        line[0].set_title(label, fontsize=8.5, loc="left")
    return figure


def strongest(maps: Tensor, count: int) -> Tensor:
    """The `count` maps of `[K, h, w]` that vary most from place to place."""
    return maps[torch.argsort(maps.flatten(1).std(dim=1), descending=True)[:count]]
