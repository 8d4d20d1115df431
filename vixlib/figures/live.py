"""Curves of training runs, redrawn while they train."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..models.zoo import names, position_of
from ..report.paper import authors_runs, log_marks
from .common import MODEL_STYLE, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..train.run import Run


def learning_curves(ax: Axes, curves: Mapping[str, Sequence[float]], logs: Mapping[str, Sequence[float]],
                    style: Callable[[str], dict]) -> None:
    """Top-1 accuracy in percent by epoch, each curve in `style(name)`; behind them, thin and dashed, the authors' logs.
    """
    from matplotlib.ticker import MaxNLocator

    for name, values in curves.items():
        line, = ax.plot(range(1, len(values) + 1), values, **style(name))
        if log := logs.get(name):
            ax.plot(range(1, len(log) + 1), log, "--", color=line.get_color(), linewidth=0.9, alpha=0.6, zorder=0,
                    label=f"{name}, authors' log")
    ax.set(xlabel="epoch", ylabel="test top-1 accuracy (%)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, frameon=False)


def redrawn(paint: Callable[[Run], Figure]) -> Callable[[Run], None]:
    """A function for `fit(on_epoch=...)` that shows `paint(run)` after every epoch, in the place of the one before."""
    import matplotlib.pyplot as plt
    from IPython.display import display

    place = None

    def draw(run: Run) -> None:
        nonlocal place
        figure = paint(run)
        if place is None:
            place = display(figure, display_id=True)  # None outside a notebook, where nothing can be redrawn
        else:
            place.update(figure)
        plt.close(figure)  # an open figure would be drawn once more below the cell

    return draw


def live_curve() -> Callable[[Run], None]:
    """A function for `fit(on_epoch=...)` that redraws one figure of the run's loss and accuracy in place."""
    import matplotlib.pyplot as plt

    def paint(run: Run) -> Figure:
        figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
        run.plot(ax)
        return figure

    return redrawn(paint)


def live_curves(title: str = "", label: Callable[[Run], str] = lambda run: run.model,
                style: Callable[[str], dict] = MODEL_STYLE) -> Callable[[Run], None]:
    """A function for `fit(on_epoch=...)` that redraws one figure in place after every epoch, one curve a `label`, drawn
    in `style(label)`."""
    runs, logs = {}, {}

    def paint(run: Run) -> Figure:
        runs[label(run)] = [epoch["top1"] for epoch in run.history]
        logs[label(run)] = _authors_curve(run)
        figure, ax = new_axes(width=6, height=3.2)
        learning_curves(ax, runs, logs, style)
        if run.config.sgd_from and 1 < run.config.sgd_from <= run.config.epochs:
            mark_switch(ax, run.config.sgd_from)
        ax.set_title(title, fontsize=9)
        return figure

    return redrawn(paint)


def _authors_curve(run: Run) -> list[float]:
    """The authors' accuracies of the system of `run` on CIFAR-10, as many epochs as it is to have; none for other data,
    or where they published no whole log."""
    if run.dataset not in ("cifar10", "cifar10-jpg") or run.model not in names():
        return []
    logs = [log for log in authors_runs(run.model, run.options.get("position") or position_of(run.model))
            if not log_marks(log)]
    return logs[0]["top1"][:run.config.epochs] if logs else []


def mark_switch(ax: Axes, epoch: int) -> None:
    """A dotted line before `epoch`, the first of a second training phase (TrainConfig.sgd_from)."""
    ax.axvline(epoch - 0.5, linestyle=":", color="#777777", linewidth=1)
    for text, side, gap in (("AdamW", "right", -4), ("SGD", "left", 4)):
        ax.annotate(text, (epoch - 0.5, 1), (gap, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
                    ha=side, va="top", fontsize=8, color="#555555")
