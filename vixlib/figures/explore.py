"""The figures that a reader can drag, through `interact`: they answer at once.

Everything that takes long is computed before; an answer is a few small products and a drawing of it.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..data.images import normalised, require_pictures
from ..errors import require_between, require_count, require_known, require_mapping, require_type, shown
from ..measure import lengths
from ..measure.cost import mixer_bytes
from ..measure.memory import CARD_GB
from ..measure.probe import imitated_rows, mixer_inputs, mixer_row
from ..measure.scoring import evaluating
from ..mixers import MIXERS, SoftmaxAttention
from ..models import ViX
from ..models.zoo import settings
from . import common as figures
from .controls import interact as interact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# --- Where one patch looks.

IMITATED, TRAINED = "softmax and its imitations", "every model as trained"


def looks(models: Mapping[str, nn.Module], images: Tensor) -> Callable[..., Figure]:
    """A figure to drag: where one patch of a picture looks, softmax and the three approximations side by side.

    models: trained "ViT", "ViP", "ViL" and "ViN" of one grid and depth.   images: uint8 `[B, C, H, W]`.
    The figure takes picture (an index of images), layer and head (from 1), row and column of the patch, and `shown`:
    IMITATED, what the methods make of ViT's q and k, or TRAINED, what each model does.
    """
    of_mixer = {name: settings(name)["mixer"] for name in ("ViT", "ViP", "ViL", "ViN")}
    _require_four(models, of_mixer)
    require_pictures("images", images)
    vit, grid = models["ViT"], models["ViT"].grid
    device = next(vit.parameters()).device
    heads = min(models[name].blocks[0].mixer.heads for name in of_mixer)
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
        require_between(0, len(images) - 1, picture=picture)
        require_between(1, len(vit.blocks), layer=layer)
        require_between(1, heads, head=head)
        require_between(0, grid[0] - 1, row=row)
        require_between(0, grid[1] - 1, column=column)
        token = {name: row * grid[1] + column + (models[name].cls_token is not None) for name in of_mixer}
        if shown == IMITATED:
            x, rotary = inputs("ViT", picture)[layer - 1]
            with evaluating(vit):
                q, k, _ = vit.blocks[layer - 1].mixer.split(x, rotary)
            rows = imitated_rows(q, k, token["ViT"], features, size)
        else:
            rows = {of_mixer[name]: mixer_row(models[name].blocks[layer - 1].mixer, x, token[name], rotary)
                    for name in of_mixer for x, rotary in [inputs(name, picture)[layer - 1]]}
        maps = {name: weights[0, head - 1, -grid[0] * grid[1]:].unflatten(0, grid) for name, weights in rows.items()}
        return _draw_looks(images[picture], maps, (row, column), f"layer {layer}, head {head}: {shown}")

    return looks


def _require_four(models: Mapping[str, nn.Module], of_mixer: Mapping[str, str]) -> None:
    """`models` must hold the four systems of `of_mixer` with their mixers, all of ViT's grid and depth."""
    require_mapping("models", models)
    for name, mixer in of_mixer.items():
        model = models.get(name)
        if not isinstance(model, ViX) or not isinstance(model.blocks[0].mixer, MIXERS[mixer]):
            raise ValueError(f"models[{name!r}]={type(model).__name__} must be a {name}; pass a dict of trained models "
                             f"{', '.join(of_mixer)}")
        if (model.grid, len(model.blocks)) != (models["ViT"].grid, len(models["ViT"].blocks)):
            raise ValueError(f"models[{name!r}] has another grid or depth than models['ViT']; build all of them alike")


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
    for i, (name, one) in enumerate(zip(["the patch that asks", *maps], place, strict=True)):
        left = i * (width + gap)
        ax.imshow(figures.as_array(one), extent=(left, left + width, height, 0), interpolation="nearest")
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
    if not isinstance(vit, ViX) or not isinstance(vit.blocks[0].mixer, SoftmaxAttention):
        raise ValueError(f"vit={type(vit).__name__} must be a ViX with softmax attention, such as vixlib.build('ViT')")
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
    _require_sizes(sizes, errors, kept)
    middle = sizes[len(sizes) // 2]

    def trade_off(features: int = middle, rank: int = middle, landmarks: int = middle) -> Figure:
        for name, size in {"features": features, "rank": rank, "landmarks": landmarks}.items():
            require_known(name, size, sizes)
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
               ylabel=f"relative error of the matrix\n({SMALLEST:g} or less at the bottom)")
        _logarithmic(ax)
        ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        return _placed(figure, BESIDE_LEGEND)

    return trade_off


def _require_sizes(sizes: Sequence[int], errors: Mapping, kept: Mapping) -> None:
    """`sizes` must be some, and `errors` and `kept` have a value for each of them; softmax has one without a size."""
    require_type("sizes", sizes, Sequence, "a list of sizes")
    if not sizes:
        raise ValueError(f"sizes={sizes!r} holds nothing to choose from; give at least one")
    by_size = dict.fromkeys(OPTIONS, len(sizes))
    for what, given, counts in (("errors", errors, by_size),
                                ("kept", kept, {**by_size, "softmax": 1, "softmax materialised": 1})):
        require_mapping(what, given)
        for name, count in counts.items():
            if len(given.get(name, ())) < count:
                raise ValueError(f"{what}[{name!r}]={shown(given.get(name))} must hold {count} value(s), for "
                                 f"sizes={shown(sizes)}")


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

    From a fit (measure/lengths.py) to predictions at 257 and 1025 tokens: four layers, width 128, m = 64; nothing is
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
        _, options, precision = lengths.WAYS[way]
        fewest = max((value for name, value in options.items() if name in ("rank", "num_landmarks")), default=1)
        drawn = [n for n in reach if n >= fewest]  # with fewer tokens than landmarks there is no such model
        ax.plot(drawn, [needs.bytes(n, batch_size) / 2**30 for n in drawn], dashes, color=figures.COLOURS[kind])
        here = needs.bytes(tokens, batch_size) / 2**30 if tokens >= fewest else math.nan
        said = f"{here:,.1f} GB" + ("" if here < CARD_GB else " (too much)") if tokens >= fewest else \
            f"takes {fewest} tokens or more"
        # One point, so that the line style stands in the legend alone.
        ax.plot(tokens, here, figures.MARKERS[kind], color=figures.COLOURS[kind], markersize=8, linestyle=dashes,
                label=f"{figures.FUSED.get(way, way)}, {precision}: {said}")
    ax.axhline(CARD_GB, color="#777777", linestyle=":")
    ax.annotate(f"{CARD_GB} GB", (reach[0], CARD_GB), xytext=(0, 3), textcoords="offset points", fontsize=8)
    ax.set(xlabel="tokens N", ylabel="predicted for a step (GB)",
           title=f"{image_side}×{image_side} pixels in patches of {patch_size}: {tokens:,} tokens; batch {batch_size}")
    _logarithmic(ax)
    # Handles long enough for dashes to be seen beside the markers.
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), handlelength=4)
    return _placed(figure, BESIDE_LEGEND)
