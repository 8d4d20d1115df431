"""Drawings of an idea, to scale, rather than of a measurement."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .figures import COLOURS, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def factor_shapes(mixers: Sequence[str] = tuple(FACTORS), tokens: float = 1.0, small: float = 0.2) -> Figure:
    """The products of matrices behind each mixer, drawn to scale: N tokens, m = d = `small` of them."""
    from matplotlib.patches import Rectangle

    sizes = {"N": tokens, "m": small, "d": small}
    figure, axes = new_axes(len(mixers), width=2.6, height=2.1)
    for ax, name in zip(axes.flat if len(mixers) > 1 else [axes], mixers, strict=True):
        formula, factors = FACTORS[name]
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
