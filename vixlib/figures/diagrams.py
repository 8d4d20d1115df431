"""Drawings of an idea, to scale, rather than of a measurement."""
from __future__ import annotations

from typing import TYPE_CHECKING

from .common import COLOURS, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Parts of a layer, by the first word of what is written on them (Okabe and Ito, as in common.py).
PART_COLOURS = {"conv": "#56B4E9", "mixer": "#D55E00", "ff": "#CC79A7", "norm": "#999999"}

# Layers from top to bottom: a text is a step, a list a branch that is added to what it started from, a tuple steps
# side by side. (before the layers, one layer, after them)
LAYERS = {
    "Hybrid ViX (03)": (["conv 3×3, three times", "CLS, positions"], [["norm", "mixer"], ["norm", "ff"]],
                        "class from CLS"),
    "CXV": (["conv 3×3, twice"], ["conv 3×3", "norm", ["mixer"], ["ff"]], "class from the mean"),
    "CvT": (["conv 3×3, norm"], [["norm", ("conv q", "conv k", "conv v"), "mixer"], ["norm", "ff"]],
            "class from the mean"),
}

# Each mixer as a product of matrices, (label, rows, columns) with sizes by name; computed from the right.
FACTORS = {
    "softmax": (r"softmax$(QK^\top\!)\,V$", [("softmax", "N", "N"), ("$V$", "N", "d")]),
    "performer": (r"$\varphi(Q)\,(\varphi(K)^\top V)$",
                  [(r"$\varphi(Q)$", "N", "m"), (r"$\varphi(K)^\top$", "m", "N"), ("$V$", "N", "d")]),
    "linformer": (r"softmax$(Q(P^\top\! K)^\top\!)\,(P^\top V)$",
                  [("softmax", "N", "m"), (r"$P^\top$", "m", "N"), ("$V$", "N", "d")]),
    "nystrom": (r"$F\,A^{+}(B\,V)$",
                [("$F$", "N", "m"), ("$A^+$", "m", "m"), ("$B$", "m", "N"), ("$V$", "N", "d")]),
}


def factor_shapes() -> Figure:
    """The products of matrices behind each mixer, drawn to scale: N tokens, m = d = a fifth of them."""
    from matplotlib.patches import Rectangle

    sizes = {"N": 1.0, "m": 0.2, "d": 0.2}
    figure, axes = new_axes(len(FACTORS), width=2.6, height=2.1)
    for ax, (name, (formula, factors)) in zip(axes.flat, FACTORS.items(), strict=True):
        left = 0.0
        for label, rows, columns in factors:
            height, width = sizes[rows], sizes[columns]
            ax.add_patch(Rectangle((left, -height), width, height, facecolor=COLOURS[name], alpha=0.25,
                                   edgecolor=COLOURS[name]))
            ax.text(left + width / 2, 0.04, label, ha="center", va="bottom", fontsize=8)
            ax.text(left + width / 2, -height - 0.03, f"{rows}×{columns}", ha="center", va="top", fontsize=8)
            left += width + 0.2
        ax.set(xlim=(-0.1, 2.3), ylim=(-1.15, 0.2), aspect="equal")
        ax.set_title(f"{name}\n{formula}", fontsize=9)
        ax.axis("off")
    return figure


def layer_stacks() -> Figure:
    """Where the convolutions are: the layers of LAYERS side by side, what is repeated in a dashed frame."""
    from matplotlib.patches import Rectangle

    ink = {"color": "#444444", "linewidth": 1.2, "zorder": 0}

    def step(ax: Axes, y: float, text: str | tuple[str, ...]) -> None:
        texts = (text,) if isinstance(text, str) else text
        width = (2.5 - 0.1 * (len(texts) - 1)) / len(texts)
        for i, one in enumerate(texts):
            left, colour = i * (width + 0.1) - 1.25, PART_COLOURS.get(one.split()[0], "white")
            for shade, alpha in (("white", 1), (colour, 0.5)):  # white first, so that no line shows through
                ax.add_patch(Rectangle((left, y - 0.3), width, 0.6, facecolor=shade, edgecolor="#444444", alpha=alpha))
            ax.text(left + width / 2, y, one, ha="center", va="center", fontsize=9)

    figure, axes = new_axes(len(LAYERS), width=2.9, height=4.4)
    for ax, (name, (before, layer, after)) in zip(axes, LAYERS.items(), strict=True):
        y = top = 0.0
        for part in (*before, *layer, after):
            if part is layer[0]:
                y = top = y - 0.35
            branch, start = part if isinstance(part, list) else [part], y + 0.45
            for text in branch:
                step(ax, y, text)
                y -= 0.85
            if isinstance(part, list):  # the way around the branch, to where the two are added
                ax.plot([0, 1.5, 1.5, 0], [start, start, y + 0.4, y + 0.4], **ink)
                ax.plot(0, y + 0.4, "o", markersize=9, color="white", markeredgecolor="#444444")
                ax.text(0, y + 0.39, "+", ha="center", va="center", fontsize=9)
                y -= 0.3
            if part is layer[-1]:
                ax.add_patch(Rectangle((-1.7, y + 0.35), 3.4, top - y + 0.2, fill=False, linestyle="--",
                                       edgecolor="#444444"))
                ax.text(-1.65, y + 0.45, "× layers", fontsize=8)
                y -= 0.35
        ax.plot([0, 0], [0.7, y + 0.85], **ink)
        ax.set(xlim=(-1.8, 1.8), ylim=(-7.3, 0.8))
        ax.set_title(name, fontsize=10)
        ax.axis("off")
    return figure
