"""Figures that answer while one drags: `interact`, and what the series has to be dragged.

Everything that takes long is computed before; an answer is a few small products and a drawing of it.
"""
from __future__ import annotations

import inspect
import math
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import figures, lengths
from .cost import mixer_bytes
from .errors import require_count, require_known
from .images import normalised
from .measure import CARD_GB
from .mixers import MIXERS
from .models.zoo import settings
from .probe import imitated_rows, mixer_inputs, mixer_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Choices = Sequence  # the values that a control offers


def interact(function: Callable[..., Figure], **choices: Choices) -> None:
    """Show the figure `function(**values)` with a control for each of `choices`, argument -> the values it may take.

    A control starts at the function's own default for its argument, else at the first value. Numbers get a slider,
    other values a list. Without ipywidgets or outside a notebook the figure of the starting values is drawn, once.

    Raises TypeError for an argument that `function` does not have, ValueError for a default that is not offered.
    """
    values = starting_values(function, choices)
    widgets = _widgets()
    if widgets is None:
        function(**values)
        print(f"With ipywidgets, in a running notebook, this figure has controls: {', '.join(choices)}.")
        return
    from IPython.display import display

    panel, picture = build_panel(widgets, function, choices, values)
    # Where nothing can draw widgets, as on GitHub or in a page made of the notebook, the picture stands in.
    display({**panel._repr_mimebundle_(), "image/png": b64encode(picture.value).decode()}, raw=True)


def starting_values(function: Callable[..., Figure], choices: Mapping[str, Choices]) -> dict:
    """What `function` is first called with: its default for each argument of `choices`, else the first choice."""
    parameters = inspect.signature(function).parameters
    values = {}
    for name, offered in choices.items():
        if name not in parameters:
            raise TypeError(f"{name} is no argument of {getattr(function, '__name__', function)!s}; it takes "
                            f"{', '.join(parameters) or 'none'}")
        if not len(offered):
            raise ValueError(f"{name}={offered!r} offers nothing to choose from; give at least one value")
        default = parameters[name].default
        values[name] = offered[0] if default is inspect.Parameter.empty else default
        if values[name] not in offered:
            raise ValueError(f"{name}={default!r}, where its control would start, is not among the choices "
                             f"{offered!r}; add it, or change the default")
    return values


def _widgets():
    """The module ipywidgets if it is installed and a notebook's kernel runs this, else None."""
    try:
        import ipywidgets
        from IPython import get_ipython
    except ImportError:
        return None
    return ipywidgets if hasattr(get_ipython(), "kernel") else None


def build_panel(widgets: ModuleType, function: Callable[..., Figure], choices: Mapping[str, Choices],
                values: Mapping) -> tuple[object, object]:
    """The controls above the picture of `function(**values)`, redrawn with every change: (panel, picture)."""
    style, layout = {"description_width": "7em"}, {"width": "24em"}
    controls = {}
    for name, offered in choices.items():
        numbers = all(isinstance(value, (int, float)) for value in offered)
        kind = widgets.SelectionSlider if numbers and len(offered) > 1 else widgets.Dropdown
        controls[name] = kind(options=[(str(value), value) for value in offered], value=values[name],
                              description=name.replace("_", " "), style=style, layout=layout)
    picture = widgets.Image(value=_png(function(**values)), format="png", layout={"max_width": "100%"})

    def redraw(_change) -> None:
        picture.value = _png(function(**{name: control.value for name, control in controls.items()}))

    for control in controls.values():
        control.observe(redraw, names="value")
    box = widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"})
    return widgets.VBox([box, picture]), picture


def _png(figure: Figure) -> bytes:
    import matplotlib.pyplot as plt

    file = BytesIO()
    figure.savefig(file, format="png", dpi=80)
    plt.close(figure)  # an open one would be shown a second time below the cell
    return file.getvalue()


# --- Where one patch looks.

IMITATED, TRAINED = "softmax and its imitations", "every model as trained"


def looks(models: Mapping[str, nn.Module], images: Tensor) -> Callable[..., Figure]:
    """A figure to drag: where one patch of a picture looks, softmax and the three approximations side by side.

    models: trained "ViT", "ViP", "ViL" and "ViN" of one grid and depth.   images: uint8 `[B, C, H, W]`.
    The figure takes picture (an index of images), layer and head (from 1), row and column of the patch, and `shown`:
    IMITATED, what the methods make of ViT's q and k, or TRAINED, what each model does.
    """
    vit, grid = models["ViT"], models["ViT"].grid
    device = next(vit.parameters()).device
    of_mixer = {name: settings(name)["mixer"] for name in ("ViT", "ViP", "ViL", "ViN")}
    features, size = models["ViP"].blocks[0].mixer.num_features, models["ViN"].blocks[0].mixer.num_landmarks

    @lru_cache(maxsize=16)
    def inputs(name: str, picture: int) -> list[tuple[Tensor, object]]:
        return mixer_inputs(models[name], normalised(images[picture:picture + 1].to(device)))

    for name in of_mixer:  # so that the first answer comes as fast as any
        inputs(name, 0)

    @torch.no_grad()
    def looks(picture: int = 0, layer: int = max(1, len(vit.blocks) - 1), head: int = 1, row: int = grid[0] // 2,
              column: int = grid[1] // 2, shown: str = IMITATED) -> Figure:
        require_known("shown", shown, (IMITATED, TRAINED))
        token = row * grid[1] + column + (vit.cls_token is not None)
        if shown == IMITATED:
            x, rotary = inputs("ViT", picture)[layer - 1]
            q, k, _ = vit.blocks[layer - 1].mixer.split(x, rotary)
            rows = imitated_rows(q, k, token, features, size)
        else:
            rows = {of_mixer[name]: mixer_row(models[name].blocks[layer - 1].mixer, x, token, rotary)
                    for name in of_mixer for x, rotary in [inputs(name, picture)[layer - 1]]}
        maps = {name: weights[0, head - 1, -grid[0] * grid[1]:].unflatten(0, grid) for name, weights in rows.items()}
        return _draw_looks(images[picture], maps, (row, column), f"layer {layer}, head {head}: {shown}")

    return looks


def _draw_looks(image: Tensor, maps: Mapping[str, Tensor], query: tuple[int, int], title: str) -> Figure:
    """The picture and the maps over it on one scale, in the colours of `figures.heat_maps`, as a single strip.

    One axis rather than five, because five take longer to draw than an answer may.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    (height, width), (rows, columns), gap = image.shape[-2:], maps["softmax"].shape, image.shape[-1] / 8
    figure, ax = figures.new_axes(width=2.0 * (len(maps) + 1), height=2.4)
    largest = max(float(weights.abs().max()) for weights in maps.values())
    place = [figures.as_picture(image)]
    for weights in maps.values():
        colours = torch.tensor(plt.get_cmap("PuOr_r")((0.5 + weights.cpu() / (2 * largest)).numpy())[..., :3])
        wide = torch.nn.functional.interpolate(colours.permute(2, 0, 1)[None], (height, width))[0].permute(1, 2, 0)
        grey = (figures.as_picture(image).mean(-1, keepdim=True) + 1) / 2.3  # pale, so that colour is weight
        place.append(0.6 * wide + 0.4 * grey)
    for i, (name, pixels) in enumerate(zip(["the patch that asks", *maps], place, strict=True)):
        left = i * (width + gap)
        ax.imshow(pixels, extent=(left, left + width, height, 0), interpolation="nearest")
        ax.add_patch(Rectangle((left + query[1] * width / columns, query[0] * height / rows), width / columns,
                               height / rows, fill=False, edgecolor="black", linewidth=1.5))
        label = name if i == 0 else f"{name}\nsum {maps[name].sum():.2f}"
        ax.text(left + width / 2, -0.05 * height, label, ha="center", va="bottom", fontsize=8.5,
                color=figures.COLOURS.get(name.split(",")[0], "#333333"))
    ax.set(xlim=(0, (len(place) - 1) * (width + gap) + width), ylim=(height, 0))
    ax.axis("off")
    ax.text(0, 1.08 * height, title, fontsize=9, va="top")
    return _placed(figure, (0.01, 0.1, 0.98, 0.72))


def _placed(figure: Figure, where: tuple[float, float, float, float]) -> Figure:
    """The figure with its only axis at `where` (left, bottom, width, height): finding a place takes longest of all."""
    figure.set_layout_engine(None)
    figure.axes[0].set_position(where)
    return figure


# --- What a size costs and brings.

SMALLEST = 1e-3
BESIDE_LEGEND = (0.08, 0.15, 0.5, 0.75)
OPTIONS = {"performer": "num_features", "linformer": "rank", "nystrom": "num_landmarks"}


def kept_by_size(vit: nn.Module, sizes: Sequence[int]) -> dict[str, list[int]]:
    """Bytes kept for backward by one layer for one image, float32, counted: mixer -> one value for each of `sizes`.

    The layers have the width, heads and tokens of `vit`, a softmax model; "softmax" and "softmax materialised", which
    have no size, get a single value.
    """
    softmax = vit.blocks[0].mixer
    inner, dim = softmax.to_qkv.out_features // 3, softmax.to_qkv.in_features
    shape = {"heads": softmax.heads, "dim_head": inner // softmax.heads, "seq_len": vit.seq_len}

    def count(name: str, **own) -> int:
        return mixer_bytes({name: lambda _n: MIXERS[name](dim, **shape, **own)}, [vit.seq_len], dim)[name][0]

    separate = {"linformer": {"shared_head": False, "shared_kv": False}}  # as `vit` has them, whose error is drawn
    kept = {name: [count(name, **{option: m}, **separate.get(name, {})) for m in sizes]
            for name, option in OPTIONS.items()}
    return {"softmax": [count("softmax")], "softmax materialised": [count("softmax", fused=False)], **kept}


def trade_off(errors: Mapping[str, Sequence[float]], kept: Mapping[str, Sequence[int]],
              sizes: Sequence[int]) -> Callable[..., Figure]:
    """A figure to drag: the error of the attention matrix against the bytes that its mixer keeps.

    errors: "performer", "linformer" and "nystrom" -> relative error at each of `sizes`.   kept: of `kept_by_size`.
    Errors below SMALLEST, such as the rounding error of an exact result, are drawn at SMALLEST.
    """
    middle = sizes[len(sizes) // 2]

    def trade_off(features: int = middle, rank: int = middle, landmarks: int = middle) -> Figure:
        figure, ax = figures.new_axes(width=9, height=3.6)
        for name, m in {"performer": features, "linformer": rank, "nystrom": landmarks}.items():
            at, kib = sizes.index(m), [count / 2**10 for count in kept[name]]
            look = {"color": figures.COLOURS[name], "marker": figures.MARKERS[name]}
            drawn = [max(error, SMALLEST) for error in errors[name][:len(sizes)]]
            ax.plot(kib, drawn, markersize=3, alpha=0.35, **look)
            ax.plot(kib[at], drawn[at], markersize=10, linestyle="none", **look,
                    label=f"{name}, m = {m:,}: error {errors[name][at]:.1%}, {kib[at]:,.0f} KiB")
        for name, dashes in (("softmax", "-"), ("softmax materialised", "--")):
            kib = kept[name][0] / 2**10
            ax.axvline(kib, color=figures.COLOURS["softmax"], linestyle=dashes, linewidth=1,
                       label=f"{name}: no error, {kib:,.0f} KiB")
        ax.set(xlabel="kept for backward, one layer (KiB an image)",
               ylabel=f"relative error of the matrix (from {SMALLEST:g})")
        _logarithmic(ax)
        ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        return _placed(figure, BESIDE_LEGEND)

    return trade_off


def _logarithmic(ax: Axes) -> None:
    """Both axes logarithmic, with ticks at powers of ten, and at round numbers between where these are too few."""
    for axis, scale, limits in ((ax.xaxis, ax.set_xscale, ax.dataLim.intervalx),
                                (ax.yaxis, ax.set_yscale, ax.dataLim.intervaly)):
        scale("log")
        powers = range(math.floor(math.log10(limits[0])), math.ceil(math.log10(limits[1])) + 1)
        for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
            ticks = [factor * 10.0**power for power in powers for factor in factors]
            ticks = [tick for tick in ticks if limits[0] <= tick <= limits[1]]
            if len(ticks) >= 3:
                break
        axis.set_ticks(ticks, [f"{tick:,g}" for tick in ticks])
    ax.minorticks_off()


def memory_by_patch(patch_size: int = 1, image_side: int = 32, batch_size: int = 64) -> Figure:
    """A figure to drag: the predicted memory of a training step against tokens, with a card's 16 GB.

    From a fit (see lengths.py) to predictions at 257 and 1025 tokens: four layers, width 128, m = 64; nothing is
    measured. A ValueError where patches do not fill the picture.
    """
    require_count(patch_size=patch_size, image_side=image_side, batch_size=batch_size)
    if image_side % patch_size:
        raise ValueError(f"patch_size={patch_size} does not divide image_side={image_side}; use a divisor")
    tokens = (image_side // patch_size) ** 2 + 1
    reach = sorted({tokens, *(4**i + 1 for i in range(2, 9))})
    figure, ax = figures.new_axes(width=9, height=3.6)
    for way, needs in lengths.stored().items():
        kind, dashes = way.split()[0], "--" if "materialised" in way else "-"
        here = needs.bytes(tokens, batch_size) / 2**30
        ax.plot(reach, [needs.bytes(n, batch_size) / 2**30 for n in reach], dashes, color=figures.COLOURS[kind])
        # One point, so that the line style stands in the legend alone.
        ax.plot(tokens, here, figures.MARKERS[kind], color=figures.COLOURS[kind], markersize=8, linestyle=dashes,
                label=f"{way}, {lengths.WAYS[way][2]}: {here:,.1f} GB" + ("" if here < CARD_GB else " (too much)"))
    ax.axhline(CARD_GB, color="#777777", linestyle=":")
    ax.annotate(f"{CARD_GB} GB", (reach[0], CARD_GB), xytext=(0, 3), textcoords="offset points", fontsize=8)
    ax.set(xlabel="tokens N", ylabel="predicted for a step (GB)",
           title=f"{image_side}×{image_side} pixels in patches of {patch_size}: {tokens:,} tokens; batch {batch_size}")
    _logarithmic(ax)
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _placed(figure, BESIDE_LEGEND)
