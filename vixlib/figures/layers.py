"""A Convolutional X-former's layers taken apart: one part left out, the feature maps, what one place sees."""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..embeddings import check_images
from ..errors import require_count, require_gradients, require_known, require_like
from ..measure.scoring import evaluating
from ..models import CXV
from .common import as_array, new_axes, require_place
from .diagrams import PART_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = ("conv", "mixer", "ff")
# Okabe and Ito, as in common.py: a CXV has its mixer's colour, the systems beside it what is left.
SYSTEM_COLOURS = {"CPV": "#D55E00", "CNV": "#009E73", "CLTV": "#E69F00", "CvT": "#000000", "CvP": "#CC79A7",
                  "CvN": "#56B4E9", "ResNet18": "#777777", "HybridViP-6/8": "#0072B2"}


class Nothing(nn.Module):
    """Zeros, whatever comes in: a residual branch that adds nothing."""

    def forward(self, x: Tensor, rotary=None) -> Tensor:
        return torch.zeros_like(x)


def without(model: CXV, part: str) -> CXV:
    """A copy of an untrained `model` in which every layer lacks one part; all other weights are as they were.

    part: "mixer" or "ff": that branch adds nothing.   "conv": each 3×3 convolution becomes a 1×1 one, a map of each
    place by itself, since the first layer also changes the width; the stem stays.
    Convolutions inside a mixer (CLTV's maps, Nyström's) belong to the mixer. The copy is named "CPV without conv".
    """
    _require_cxv(model)
    require_known("part", part, PARTS)
    left = copy.deepcopy(model)
    for block in left.blocks:
        if isinstance(getattr(block, part), Nothing) or (part == "conv" and block.conv.kernel_size == (1, 1)):
            raise ValueError(f"part={part!r} has already been taken out of this model; use the model before that")
        if part == "conv":
            block.conv = _without_neighbours(block.conv)
        else:
            setattr(block, part, Nothing())
    left.name = f"{getattr(model, 'name', type(model).__name__)} without {part}"
    return left


def _without_neighbours(conv: nn.Conv2d) -> nn.Conv2d:
    # Without a start of its own, which would move the caller's random numbers.
    small = nn.utils.skip_init(nn.Conv2d, conv.in_channels, conv.out_channels, 1).to(conv.weight)
    with torch.no_grad():
        # PyTorch draws weights from ±1/√(inputs): with a ninth of the inputs they have to be three times as large.
        small.weight.copy_(3 * conv.weight[:, :, 1:2, 1:2])
        small.bias.copy_(conv.bias)
    return small


def _require_cxv(model: nn.Module) -> None:
    if not isinstance(model, CXV):
        raise TypeError(f"model is a {type(model).__name__}, which has no layers of convolution, mixer and "
                        "feed-forward; use a CXV, such as vixlib.build('CPV')")


def layer_maps(model: CXV, images: Tensor) -> dict[str, Tensor]:
    """What the stem and each layer make of `images` `[B, C, H, W]`, in evaluation mode and with gradients:
    {"stem": `[B, D/2, rows, columns]`, "layer 1": `[B, D, rows, columns]`, ...}."""
    _require_cxv(model)
    check_images(images, model.channels, model)
    with evaluating(model):
        x = model.stem(images)
        maps = {"stem": x}
        for number, block in enumerate(model.blocks, start=1):
            maps[f"layer {number}"] = x = block(x)
    return maps


@torch.enable_grad()  # whatever the caller has switched off
def reach(model: CXV, image: Tensor, place: tuple[int, int] | None = None, directions: int = 16) -> dict[str, Tensor]:
    """How strongly the features of one place answer to each pixel, `[H, W]` on the CPU, after the stem and each layer.

    image: `[C, H, W]`, normalised.   place: (row, column) in the grid of tokens; None: the middle.
    The value is the root of the sum of squared derivatives over features and colours, estimated with that many
    random `directions` u, since E|Jᵀu|² = |J|²; where no path leads it is exactly zero.
    """
    require_count(directions=directions)
    require_gradients("reach")
    _require_cxv(model)
    require_like("image", image, model.head.weight)
    if image.ndim != 3 or image.shape[0] != model.channels:
        raise ValueError(f"image has shape {tuple(image.shape)}; expected one picture [{model.channels}, H, W]")
    pixels = image[None].expand(directions, *image.shape).clone().requires_grad_()
    generator = torch.Generator().manual_seed(0)  # the same directions each time
    found = {}
    with evaluating(model):  # in backward, too, where layers may be computed again
        maps = layer_maps(model, pixels)
        grid = rows, columns = next(iter(maps.values())).shape[-2:]
        place = (rows // 2, columns // 2) if place is None else place
        require_place("place", place, grid)
        row, column = place
        for name, features in maps.items():
            u = torch.randn(features.shape[:2], generator=generator, device="cpu").to(features)
            gradient, = torch.autograd.grad(features[..., row, column], pixels, u, retain_graph=True)
            found[name] = gradient.square().sum(dim=1).mean(dim=0).sqrt().cpu()
    return found


def window(strength: Tensor) -> tuple[int, int]:
    """Height and width of the smallest rectangle that holds every pixel of `[H, W]` which is not zero."""
    seen = strength != 0
    sides = (seen.any(dim=dim).nonzero().flatten() for dim in (1, 0))
    return tuple(int(side[-1] - side[0]) + 1 if len(side) else 0 for side in sides)


def reach_maps(rows: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """`reach` of several models, a row of maps each, in parts of a map's largest value; grey is exactly zero."""
    from matplotlib.colors import LogNorm

    columns = max(map(len, rows.values()))
    figure, axes = new_axes(columns, len(rows), width=1.75, height=1.9, squeeze=False)
    for line, (label, maps) in zip(axes, rows.items(), strict=True):
        for ax in line[len(maps):]:
            ax.axis("off")
        for ax, (name, strength) in zip(line, maps.items(), strict=False):
            ax.set_facecolor("#dddddd")
            shown = (strength / strength.max()).where(strength > 0, torch.nan)
            heat = ax.imshow(as_array(shown), cmap="magma", norm=LogNorm(1e-4, 1), interpolation="nearest")
            ax.set_title(f"{name}\n{' × '.join(map(str, window(strength)))} pixels", fontsize=8.5)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        line[0].set_ylabel(label, fontsize=9)
    figure.colorbar(heat, ax=axes, label="answer, in parts of the largest", shrink=0.8, aspect=12 * len(rows),
                    extend="min")
    return figure


def part_bars(ax: Axes, scores: Mapping[str, Sequence[float]], parameters: Mapping[str, int], chance: float) -> None:
    """Mean test accuracy (%) of each model as a bar, with its parameters; a dot a seed where there are several.

    scores: label -> one accuracy for each seed.   parameters: label -> how many.   chance: accuracy of guessing.
    """
    for line, (label, values) in enumerate(scores.items()):
        ax.barh(line, fmean(values), height=0.6, color=PART_COLOURS.get(label.split()[-1], "#777777"), alpha=0.6)
        if len(values) > 1:
            ax.plot(values, [line] * len(values), "o", color="black", markersize=4)
        ax.text(max(values) + 1.5, line, f"{fmean(values):.1f} %, {parameters[label]:,} parameters", va="center",
                fontsize=8)
    ax.axvline(chance, linestyle=":", color="#555555", linewidth=1)
    ax.text(chance + 0.5, -0.62, "guessing", fontsize=8, color="#555555")
    ax.set(yticks=range(len(scores)), yticklabels=list(scores), xlabel="test top-1 accuracy (%)", xlim=(0, 135),
           xticks=range(0, 101, 20), ylim=(len(scores) - 0.4, -0.9))
    ax.grid(False, axis="y")
