"""Table 4, the mixers in LeViT and in CCT: what a host does to shapes, gains over its softmax, and the figures.

One style throughout: the colour is the mixer's; circles and dashed lines are LeViT's, squares and solid ones CCT's.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..embeddings import LinearEmbedding
from ..errors import require_known, require_mapping, require_type
from ..measure.scoring import uncompiled
from ..models.levit import LeViT, LeViTBlock, ShrinkingAttention
from ..models.vix import Block, ViX
from ..models.zoo import settings
from ..report.comparison import Group
from ..report.leads import leads
from ..report.paper import paper_table
from ..train.run import Run
from . import accuracy_memory
from .accuracy_memory import Look, Point
from .common import COLOURS, as_array, as_picture, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HOSTS = {"LeViT": ("LeViP", "LeViL", "LeViN"), "CCT": ("CCP", "CCL", "CCN")}  # softmax -> the same host's swaps
HOST_OF = {name: host for host, swaps in HOSTS.items() for name in (host, *swaps)}
SWAPS = tuple((swap, host) for host, swaps in HOSTS.items() for swap in swaps)
MIXER_OF = {name: settings(name)["mixer"] for name in HOST_OF}
STYLES = {"LeViT": ("--", "o"), "CCT": ("-", "s")}
LABEL_SIDE = {"CCL": "right"}  # of its point: CCP is close in the paper's figure


class Stage(NamedTuple):
    """What one step of a model gives for one picture: `[C, H, W]`, `[N, D]` or `[D]`; `times` equal ones in a row."""

    kind: str
    shape: tuple[int, ...]
    times: int = 1

    def __str__(self) -> str:
        shape = self.shape[1:] + self.shape[:1] if len(self.shape) == 3 else self.shape  # channels last, as in tokens
        return "×".join(map(str, shape))


KINDS = {nn.Conv2d: "conv", nn.MaxPool2d: "max-pool", LinearEmbedding: "linear map", Block: "block",
         LeViTBlock: "block", ShrinkingAttention: "shrink"}
STAGE_COLOURS = {"conv": "#56B4E9", "max-pool": "#CC79A7", "linear map": "#F0E442", "block": "#999999",
                 "shrink": "#E69F00"}


@torch.no_grad()
def trace(model: nn.Module) -> list[Stage]:
    """The shapes that one picture of `model.image_size` takes on its way, seen by forward hooks.

    model: a ViX, LeViT or CCT; it is left in the mode it was in. "one vector" is what the head is called with.
    """
    require_type("model", model, (ViX, LeViT), "a ViX, LeViT or CCT")  # a CCT is a ViX
    picture = torch.zeros(1, model.channels, *model.image_size, device=next(model.parameters()).device)
    stages = [Stage("picture", tuple(picture.shape[1:]))]

    def note(kind: str, x: Tensor) -> None:
        step, last = Stage(kind, tuple(x.shape[1:])), stages[-1]
        if (step.kind, step.shape) == (last.kind, last.shape):
            stages[-1] = last._replace(times=last.times + 1)
        else:
            stages.append(step)

    parts = (*model.embedding.modules(), *model.blocks, *getattr(model, "shrink", {}).values())
    with ExitStack() as hooks, uncompiled(model):
        for part, kind in ((part, kind) for part in parts for of, kind in KINDS.items() if isinstance(part, of)):
            hooks.enter_context(part.register_forward_hook(lambda _part, _x, out, kind=kind: note(kind, out)))
        hooks.enter_context(model.head.register_forward_pre_hook(lambda _part, x: note("one vector", x[0])))
        hooks.enter_context(model.head.register_forward_hook(lambda _part, _x, out: note("classes", out)))
        model(picture)
    return stages


def stage_drawing(traces: Mapping[str, Sequence[Stage]]) -> Figure:
    """A line of rectangles for each model: height is √places (the side of a square grid), width the features."""
    from matplotlib.patches import Rectangle

    require_mapping("traces", traces)
    if not traces:
        raise ValueError(f"traces={traces!r} holds nothing to draw; pass what `trace` gives of a model, by its name")
    longest = max(map(len, traces.values()))
    figure, axes = new_axes(rows=len(traces), width=1.02 * longest, height=1.75, squeeze=False)
    for ax, (name, stages) in zip(axes[:, 0], traces.items(), strict=True):
        for i, stage in enumerate(stages):
            features = stage.shape[0] if len(stage.shape) == 3 else stage.shape[-1]
            places = torch.Size(stage.shape).numel() / features
            width, height = max(features / 180, 0.03), places**0.5 / 32
            ax.add_patch(Rectangle((i - width / 2, -height / 2), width, height, edgecolor="#333333", linewidth=0.8,
                                   facecolor=STAGE_COLOURS.get(stage.kind, "white")))
            times = f"{stage.times} × " if stage.times > 1 else ""
            ax.text(i, 0.6, f"{times}{stage.kind}", ha="center", va="bottom", fontsize=8)
            ax.text(i, -0.6, str(stage), ha="center", va="top", fontsize=8)
        ax.set(xlim=(-0.6, longest - 0.4), ylim=(-0.95, 0.9))
        ax.set_title(name, fontsize=9, loc="left", fontweight="bold")
        ax.axis("off")
    return figure


def gains(runs: Iterable[Run] = (), results: str | Path | None = None) -> dict[str, dict[str, float]]:
    """Top-1 of each swap less that of its host's softmax, in points: source -> {"LeViP": 2.44, ...}.

    Sources: "paper" (best epochs), each group of recorded runs (last epochs, means over the seeds that both have) and
    `runs` as "this run" (last epochs); see `leads`. A swap without its softmax is left out, and so is a source
    without any.
    """
    top1 = {"paper": {row["model"]: row["top1"] for row in paper_table(4)["rows"]}}
    return leads(top1, {swap: (swap, host) for swap, host in SWAPS}, runs, results)


def line_style(name: str) -> dict:
    """How a system's curve is drawn."""
    require_known("name", name, HOST_OF)
    line, marker = STYLES[HOST_OF[name]]
    colour = COLOURS[MIXER_OF[name]]
    return {"color": colour, "linestyle": line, "marker": marker, "markersize": 5, "label": name,
            "markerfacecolor": "white" if line == "--" else colour}


def paper_points() -> list[Point]:
    """Table 4 as points."""
    return accuracy_memory.paper_points((4,))


def recorded_points(results: str | Path | None = None) -> dict[Group, list[Point]]:
    """The hosts' recorded runs as points, by group."""
    return accuracy_memory.recorded_points(HOST_OF, results)


def accuracy_against_memory(ax: Axes, points: Sequence[Point], title: str = "") -> None:
    """Top-1 against memory, a line from each host's softmax to its swaps; circles are LeViT's, squares CCT's."""
    def style(name: str) -> Look:
        line, marker = STYLES[HOST_OF[name]]
        above = marker == "s" and name not in HOSTS  # lines lead up from a host to what gains
        return Look(COLOURS[MIXER_OF[name]], marker, line, LABEL_SIDE.get(name, "center"), above)

    accuracy_memory.scatter(ax, points, style, dict(SWAPS), title)


def overlays(pictures: Tensor, weights: Tensor, evidence: Mapping[str, Tensor], titles: Sequence[str] = ()) -> Figure:
    """Pictures `[B, C, H, W]`, over them what each place weighs when tokens are pooled, and what it says.

    weights: `[B, rows, columns]` in multiples of an even weight, on a logarithmic scale, orange above 1.
    evidence: label -> `[B, rows, columns]`, additions to a class score, orange for, purple against; each line of
    pictures ends with its own scale, which a few single places may exceed.
    """
    from matplotlib.colors import LogNorm, Normalize

    # Weights may be 0, which no logarithm takes.
    weights = weights.clamp(min=1e-6)
    height, width = pictures.shape[-2:]
    lines = {"pooling weight\n(1: the mean's)": (weights, LogNorm(1 / 16, 16))}
    for label, maps in evidence.items():
        largest = float(maps.abs().flatten().quantile(0.98)) or 1.0  # one loud place would leave the rest white
        lines[label] = maps, Normalize(-largest, largest)
    figure, axes = new_axes(len(pictures), 1 + len(lines), width=1.35, height=1.4, squeeze=False)
    for ax, picture, title in zip(axes[0], pictures, [*titles, *[""] * len(pictures)], strict=False):
        ax.imshow(as_array(as_picture(picture)))
        ax.set_title(title, fontsize=7)
    for line, (label, (maps, norm)) in zip(axes[1:], lines.items(), strict=True):
        for ax, picture, one in zip(line, pictures, maps, strict=True):
            grey = as_array(as_picture(picture).mean(-1))
            ax.imshow(grey, cmap="gray", vmin=-0.5, vmax=1, extent=(0, width, height, 0))  # no black under the colours
            heat = ax.imshow(as_array(one), cmap="PuOr_r", norm=norm, alpha=0.7, extent=(0, width, height, 0),
                             interpolation="nearest")
        line[0].set_ylabel(label, fontsize=8)
        bar = figure.colorbar(heat, ax=list(line), pad=0.01, aspect=12, extend="both")
        bar.set_label("weight × N" if isinstance(norm, LogNorm) else "added to the score", fontsize=7)
        if isinstance(norm, LogNorm):
            bar.set_ticks([1 / 16, 1 / 4, 1, 4, 16], labels=["1/16", "1/4", "1", "4", "16"])
            bar.minorticks_off()
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
    return figure
