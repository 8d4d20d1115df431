"""The figures of the series: one style and one colour per mixer throughout, told apart with any colour vision."""
from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import require_count, require_mapping, require_pair, require_type, shown
from ..measure.cost import require_curves

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008; markers tell the mixers apart in print, too.
COLOURS = {"softmax": "#000000", "performer": "#D55E00", "linformer": "#0072B2", "nystrom": "#009E73",
           "linear": "#E69F00", "fourier": "#CC79A7", "mlp": "#56B4E9"}
MARKERS = {"softmax": "o", "performer": "s", "linformer": "^", "nystrom": "D",
           "linear": "P", "fourier": "v", "mlp": "X"}
MODEL_COLOURS = {"ViT": COLOURS["softmax"], "ViP": COLOURS["performer"], "ViL": COLOURS["linformer"],
                 "ViN": COLOURS["nystrom"]}


def new_axes(columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.2,
             **options) -> tuple[Figure, Axes | np.ndarray]:
    """A figure with rows × columns axes in the house style: (figure, axes); width and height are inches an axis."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), layout="constrained",
                                **options)
    for ax in axes.flat if hasattr(axes, "flat") else [axes]:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def show_pictures(images: Tensor, titles: Sequence[str] = (), columns: int = 8, size: float = 1.25) -> Figure:
    """A grid of pictures, uint8 `[B, C, H, W]` or float in [-1, 1]; returns the figure."""
    import matplotlib.pyplot as plt

    require_count(columns=columns)
    require_type("images", images, (Tensor, Sequence), "a tensor [B, C, H, W] or a list of pictures")
    require_type("titles", titles, Sequence, "a list of texts, one a picture")
    if isinstance(images, Tensor) and images.ndim != 4:
        raise ValueError(f"images has shape {tuple(images.shape)}; expected pictures [B, C, H, W]")
    pictures = [as_picture(image) for image in images]  # before there is a figure, which an error would leave behind
    if not pictures:
        raise ValueError(f"images={shown(images)} holds no picture to show; pass at least one")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(size * columns, (size + 0.25) * rows), squeeze=False,
                                layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for i, (ax, picture) in enumerate(zip(axes.flat, pictures)):  # noqa: B905 - the last row may be short
        ax.imshow(as_array(picture))
        if i < len(titles):
            ax.set_title(titles[i], fontsize=9)
    return figure


FAR = 10.0  # noise may leave -1 ... 1 by some units; beyond this it is not normalised


def as_array(values: Tensor) -> np.ndarray:
    """What imshow takes: an array, of numbers wherever and of whatever precision they are. (A tensor it takes by way of
    a call that numpy is giving up.)"""
    return values.detach().cpu().to(torch.float32).numpy()


def as_picture(image: Tensor) -> Tensor:
    """`[C, H, W]` as uint8 or normalised float -> `[H, W, 3]` in [0, 1] for imshow."""
    require_type("image", image, Tensor, "a tensor [C, H, W]")
    if image.ndim != 3:
        raise ValueError(f"image has shape {tuple(image.shape)}; expected one picture [C, H, W]")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise TypeError(f"image is {image.dtype}; pass pixels of 0 ... 255 as torch.uint8, normalised ones as floats")
    if image.shape[0] not in (1, 3):
        raise ValueError(f"image has {image.shape[0]} channels; a picture that can be shown has 1 or 3")
    if 0 in image.shape:
        raise ValueError(f"image has shape {tuple(image.shape)} and no pixel to show")
    if not image.isfinite().all():
        raise ValueError("image has NaN or infinite pixels, which have no colour; replace them, for instance by "
                         "torch.nan_to_num(image)")
    if image.is_floating_point() and image.abs().max() > FAR:
        raise ValueError(f"image has pixels up to {image.abs().max():.0f}, far from -1 ... 1, as normalised ones are; "
                         "pass pixels of 0 ... 255 as torch.uint8")
    image = image.detach().cpu()
    image = image.float() / 255 if image.dtype == torch.uint8 else image.float() / 2 + 0.5
    return image.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0)  # imshow gives a single channel colours of its own


FUSED = {"softmax": "softmax, fused"}  # what vixlib's is, and what no reader of the name alone would know


def cost_curves(ax: Axes, tokens: Sequence[int], curves: Mapping[str, Sequence[float]], label: str) -> None:
    """Measured cost against the number of tokens, both logarithmic, one curve a mixer, with the slope of its end.

    curves: mixer name (of `mixers.MIXERS`, or any text beginning with one) -> a value for each of `tokens`; dashed
    where the mixer's own is drawn, too.
    The slope in the legend is the exponent p in cost ~ N^p over the last two points; plain "softmax" is the fused one.
    """
    import math

    require_curves(tokens, curves)
    if len(tokens) < 2 or tokens[-2] == tokens[-1]:
        raise ValueError(f"tokens={shown(tokens)} must end in two different sizes, between which there is a slope")
    for name, values in curves.items():
        mixer = name.split()[0]
        slope = math.log(values[-1] / values[-2]) / math.log(tokens[-1] / tokens[-2])
        ax.plot(tokens, values, color=COLOURS.get(mixer, "#777777"), marker=MARKERS.get(mixer, "o"), markersize=4,
                linestyle="--" if mixer in curves and mixer != name else "-",
                label=f"{FUSED.get(name, name)}  ($N^{{{slope:.1f}}}$)")
    ax.set(xscale="log", yscale="log", xlabel="tokens N", ylabel=label)
    ax.set_xticks(tokens, [f"{n:,}" for n in tokens])
    ax.minorticks_off()
    ax.legend(fontsize=8, frameon=False, handlelength=3)


def in_colours(colours: Mapping[str, str]) -> Callable[[str], dict]:
    """For `live_curves`: each curve in its colour of `colours`, with a marker for those who cannot tell the colours."""
    markers = dict(zip(colours, itertools.cycle(MARKERS.values())))
    return lambda name: {"color": colours.get(name), "marker": markers.get(name, "o"), "markersize": 4, "label": name}


MODEL_STYLE = in_colours(MODEL_COLOURS)


def cut_into_patches(image: Tensor, patch_size: int, pixel: int = 8, gap: int = 3) -> Tensor:
    """The picture `[C, H, W]` with its patches pulled apart by white lines, each pixel drawn `pixel` wide."""
    require_count(patch_size=patch_size, pixel=pixel, gap=gap)
    large = as_picture(image).permute(2, 0, 1)
    channels, height, width = large.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"patch_size={patch_size} does not divide a picture of {height}x{width}; use a divisor")
    large = large.repeat_interleave(pixel, 1).repeat_interleave(pixel, 2)
    side = patch_size * pixel
    tiles = large.reshape(channels, height // patch_size, side, width // patch_size, side)
    tiles = torch.nn.functional.pad(tiles.permute(0, 1, 3, 2, 4), (0, gap, 0, gap), value=1.0)
    return tiles.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)[:, :-gap, :-gap] * 2 - 1


def slope_guides(ax: Axes, tokens: Sequence[int], ends: Mapping[int, float]) -> None:
    """Thin dotted lines of cost ~ N^p for each exponent p of `ends`, drawn at half the value given for the last N, so
    that they run beside the curve that the value is taken from."""
    require_mapping("ends", ends)
    require_curves(tokens, {f"ends[{exponent}]": [end] * len(tokens) for exponent, end in ends.items()})
    for exponent, end in ends.items():
        values = [end / 2 * (n / tokens[-1]) ** exponent for n in tokens]
        ax.plot(tokens, values, ":", color="#777777", linewidth=1, zorder=0)
        # Lines that cross have their labels apart: the steepest at its lower end, others under their upper one.
        at, offset, side = (0, (20, -5), "left") if exponent == max(ends) else (-1, (0, -20), "right")
        ax.annotate(f"slope {exponent}", (tokens[at], values[at]), xytext=offset, textcoords="offset points", ha=side,
                    fontsize=8, color="#555555")


def attention_grid(picture: Tensor, weights: Tensor, label: str, query: tuple[int, int] | None = None) -> Figure:
    """Where attention goes, over the picture in grey: a row a layer, a column a head; returns the figure.

    picture: `[C, H, W]`, uint8 or normalised.   weights: `[layers, heads, rows, columns]`, one value a patch, in
    multiples of even attention: orange above 1, purple below, on a logarithmic scale that ends at 16 and 1/16.
    query: (row, column) of the patch that looks, ringed in the coloured picture; None for CLS.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    require_type("weights", weights, Tensor, "a tensor [layers, heads, rows, columns]")
    if weights.ndim != 4 or 0 in weights.shape:
        raise ValueError(f"weights has shape {tuple(weights.shape)}; expected [layers, heads, rows, columns], at least "
                         "one of each")
    layers, heads, rows, columns = weights.shape
    if query is not None:
        require_place("query", query, (rows, columns))
    seen = as_picture(picture)
    height, width = seen.shape[:2]
    place = {"extent": (0, width, height, 0)}
    figure, axes = plt.subplots(layers, heads + 1, figsize=(1.5 * (heads + 1) + 0.9, 1.6 * layers + 0.2),
                                squeeze=False, layout="constrained")
    for layer, line in enumerate(axes):
        line[0].imshow(as_array(seen), **place)
        line[0].set_ylabel(f"layer {layer + 1}", fontsize=9)
        for head, ax in enumerate(line[1:]):
            ax.imshow(as_array(seen.mean(dim=-1)), cmap="gray", vmin=-0.5, vmax=1, **place)  # no black under colours
            heat = ax.imshow(as_array(weights[layer, head].clamp(min=1e-6)), cmap="PuOr_r", alpha=0.7,
                             norm=LogNorm(1 / 16, 16), **place)
            if layer == 0:
                ax.set_title(f"head {head + 1}", fontsize=9)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            if query is not None:
                centre = ((query[1] + 0.5) * width / columns, (query[0] + 0.5) * height / rows)
                for colour, thickness in (("white", 3.5), ("black", 1.5)):  # visible on any ground
                    ax.plot(*centre, "o", markersize=9, markerfacecolor="none", markeredgecolor=colour,
                            markeredgewidth=thickness)
    bar = figure.colorbar(heat, ax=axes, label=label, extend="both")
    bar.set_ticks([1 / 16, 1 / 4, 1, 4, 16], labels=["1/16", "1/4", "1", "4", "16"])
    bar.minorticks_off()
    return figure


def require_place(name: str, value: object, grid: tuple[int, int]) -> None:
    """`value` must be (row, column) of a place in `grid`, (rows, columns)."""
    require_pair(name, value, "(row, column)")
    if not all(0 <= at < size for at, size in zip(value, grid, strict=True)):
        raise ValueError(f"{name}={value} is outside the grid of {grid[0]}x{grid[1]} tokens; rows and columns count "
                         "from 0")


def heat_maps(axes: Sequence[Axes], image: Tensor, maps: Mapping[str, Tensor], query: tuple[int, int]) -> None:
    """Weights `[rows, columns]` of one query token over its picture, one of `axes` each, all on one scale.

    query: its (row, column) in the token grid, framed. Orange is weight, purple negative weight. The scale ends at the
    largest, but not below four times 1/N, so that even attention is pale.
    """
    from matplotlib.patches import Rectangle

    height, width = image.shape[-2:]
    largest = max(max(float(weights.abs().max()), 4 / weights.numel()) for weights in maps.values())
    for ax, (name, weights) in zip(axes, maps.items(), strict=True):
        rows, columns = weights.shape
        require_place("query", query, (rows, columns))
        ax.imshow(as_array(as_picture(image).mean(-1)), cmap="gray", vmin=-1.0, vmax=1.3)  # pale: colour is weight
        ax.imshow(as_array(weights), cmap="PuOr_r", vmin=-largest, vmax=largest, alpha=0.6,
                  extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
        corner = (query[1] * width / columns - 0.5, query[0] * height / rows - 0.5)
        ax.add_patch(Rectangle(corner, width / columns, height / rows, fill=False, edgecolor="black", linewidth=1.5))
        ax.set_title(name, fontsize=8.5)
        ax.axis("off")
