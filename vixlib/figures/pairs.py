"""Each ViX beside its Hybrid, which differs in the embedding alone: gains in accuracy, and the figures that compare.

One style throughout: the colour is the mixer's; filled and solid is the Hybrid, hollow and dashed the plain ViX.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import require_known, require_type
from ..measure.probe import ShiftScores
from ..models.zoo import settings
from ..report.comparison import Group
from ..report.leads import leads
from ..report.paper import authors_runs, log_marks, paper_table
from ..train.run import Run
from . import accuracy_memory
from .accuracy_memory import Look, Point
from .common import MARKERS, MODEL_COLOURS, as_array, as_picture

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


# Of their points: HybridViP and HybridViN are close together in the paper's figure, ViL and ViT in the recorded one.
LABEL_SIDE = {"ViP": "right", "ViN": "left", "ViL": "right"}


def paper_points() -> list[Point]:
    """Tables 1 and 3 as points: the paper's figure 4."""
    return accuracy_memory.paper_points((1, 3))


def recorded_points(results: str | Path | None = None) -> dict[Group, list[Point]]:
    """The recorded runs of the pairs as points, by group."""
    return accuracy_memory.recorded_points(SYSTEMS, results)


def accuracy_against_memory(ax: Axes, points: Sequence[Point], title: str = "") -> None:
    """Figure 4: top-1 against memory, a line from each ViX (circle) to its Hybrid (square), area by parameters."""
    def style(name: str) -> Look:
        hybrid = name != plain(name)
        return Look(MODEL_COLOURS[plain(name)], "s" if hybrid else "o", "-", LABEL_SIDE.get(plain(name), "center"),
                    hybrid)

    accuracy_memory.scatter(ax, points, style, {hybrid: name for name, hybrid in PAIRS.items()}, title)


def shift_curves(axes: Sequence[Axes], scores: Mapping[str, Sequence[ShiftScores]]) -> None:
    """Accuracy, agreement and cosine (three axes) against the shift in pixels, one curve a model."""
    labels = {"top1": "top-1 accuracy (%)", "agreement": "same class as unmoved (%)",
              "cosine": "cosine of the features"}
    moved = sorted({score.pixels for found in scores.values() for score in found})
    for ax, (field, label) in zip(axes, labels.items(), strict=True):
        for name, found in scores.items():
            ax.plot([s.pixels for s in found], [getattr(s, field) for s in found], **line_style(name))
        ax.set(xlabel="shift (pixels)", ylabel=label, xticks=moved)
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
        line[0].imshow(as_array(as_picture(picture)))
        line[0].set(xticks=[], yticks=[])
        line[0].spines[:].set_visible(False)
        line[0].set_ylabel(label, fontsize=8.5)
        for ax in line[1:]:
            ax.axis("off")
        for ax, one in zip(line[1:], maps.detach(), strict=False):
            largest = one.abs().max().clamp(min=1e-12)
            ax.imshow(as_array(one / largest), cmap="PuOr_r", vmin=-1, vmax=1, interpolation="nearest")
    for ax, title in zip(axes[0], ("picture", *titles) if titles else (), strict=False):
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
        for ax, one in zip(line, filters.detach(), strict=False):
            ax.imshow(as_array(as_picture(one / one.abs().max().clamp(min=1e-12))), interpolation="nearest")
        line[0].set_title(label, fontsize=8.5, loc="left")
    return figure


def strongest(maps: Tensor, count: int) -> Tensor:
    """The `count` maps of `[K, h, w]` that vary most from place to place."""
    return maps[torch.argsort(maps.flatten(1).std(dim=1), descending=True)[:count]]
