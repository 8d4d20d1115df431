"""Embeddings: how a picture becomes tokens, `[B, C, H, W] -> [B, N, D]`, N = rows · columns."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from .errors import is_integer, require_count, require_known, require_like, require_room, require_several

Size = int | tuple[int, int]


def as_pair(name: str, size: Size) -> tuple[int, int]:
    """`size` as (height, width), both at least 1; a single number means a square."""
    height, width = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)
    require_count(**{f"{name} height": height, f"{name} width": width})
    return height, width


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of torch.compile, DataParallel and DistributedDataParallel: what a model says of
    itself is said there."""
    while (inner := getattr(model, "_orig_mod", None)) is not None or isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module if inner is None else inner
    return model


def built_for(model: nn.Module, name: str) -> int | tuple[int, int] | None:
    """What `model` says that its pictures are: "image_size" as (height, width), "channels" or "num_classes" as a
    number. None where it says nothing: in a model of one's own an attribute of that name may be anything."""
    value = getattr(unwrapped(model), name, None)
    if name == "image_size" and isinstance(value, (tuple, list)):
        return tuple(value) if len(value) == 2 and all(isinstance(side, int) for side in value) else None
    if not is_integer(value):
        return None
    return (value, value) if name == "image_size" else value


def check_images(images: Tensor, channels: int, model: nn.Module) -> None:
    """`images` must be `[B, channels, H, W]`, B, H, W >= 1, floating-point, like `model`'s weights in type and device;
    the ValueError or TypeError says what it is instead."""
    first, *_ = (*model.parameters(), None)  # torch 2.6 cannot compile next(..., None)
    require_like("images", images, first)
    if images.ndim != 4 or images.shape[1] != channels or 0 in images.shape:
        raise ValueError(f"images has shape {tuple(images.shape)}; expected [B, {channels}, H, W], at least one image")


def features_last(images: Tensor) -> Tensor:
    """The same `[B, C, H, W]` with a place's features side by side in memory, as tokens have them.

    Convolutions keep that layout, so that neither they nor the way to tokens has to copy into another.
    """
    return images.contiguous(memory_format=torch.channels_last)


class LinearEmbedding(nn.Module):
    """Non-overlapping patches, flattened and mapped linearly.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", eq. (1).

    patch_size: pixels a side, one number or (height, width); 1 makes every pixel a token, as the paper does.
    """

    def __init__(self, channels: int, dim: int, patch_size: Size = 1) -> None:
        super().__init__()
        require_count(channels=channels, dim=dim)
        self.channels, self.patch = channels, as_pair("patch_size", patch_size)
        require_room(channels * self.patch[0] * self.patch[1] * dim, patch_size=patch_size, channels=channels, dim=dim)
        self.project = nn.Linear(channels * self.patch[0] * self.patch[1], dim)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens for a picture of height × width pixels."""
        rows, columns = self.patch
        if height % rows or width % columns:
            raise ValueError(f"patch_size={rows if rows == columns else self.patch} does not divide the image "
                             f"size {height}x{width}; use a divisor of both sides, or resize the images")
        return height // rows, width // columns

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.channels, self)
        self.grid(*images.shape[-2:])
        rows, columns = self.patch
        return self.project(rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=rows, q=columns))


ACTIVATIONS = {None: nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU}
NORMS = {None: nn.Identity, "batch": nn.BatchNorm2d}
HALVINGS = {1: 0, 2: 1, 4: 2, 8: 3}


def halvings(patch_size: int, stages: int) -> list[int]:
    """The stride of each stage, patch_size in all: the first ones halve, which leaves the others the least to compute.
    """
    # Only an integer is looked up: a pair of sides cannot be, and True counts as 1.
    if type(patch_size) is not int or patch_size not in HALVINGS or HALVINGS[patch_size] > stages:
        allowed = [str(size) for size, count in HALVINGS.items() if count <= stages]
        raise ValueError(f"patch_size={patch_size!r} is no total stride of {stages} convolution(s), stride 1 or 2; "
                         f"use one of {', '.join(allowed)}")
    return [2] * HALVINGS[patch_size] + [1] * (stages - HALVINGS[patch_size])


def stage_widths(dim: int, widths: Sequence[float]) -> list[int]:
    """Channels after each stage, for `widths` given as parts of dim, which must come out whole."""
    if not isinstance(widths, (list, tuple)) or not widths or any(
            isinstance(part, bool) or not isinstance(part, (int, float)) or not math.isfinite(part) for part in widths):
        raise ValueError(f"widths={widths!r} must be parts of dim, one a stage, for instance (0.25, 0.5, 1)")
    channels = [dim * part for part in widths]
    if channels[-1] != dim or any(count != int(count) or count < 1 for count in channels):
        raise ValueError(f"dim={dim} and widths={widths!r} must give whole numbers of channels, ending with dim")
    return [int(count) for count in channels]


class ConvStages(nn.Module):
    """What the convolutional embeddings share: `stages` of given `strides`, whose places become the tokens."""

    def __init__(self, channels: int, stages: Sequence[nn.Module], strides: Sequence[int],
                 normalised: bool = False) -> None:
        super().__init__()
        self.channels, self.strides, self.normalised = channels, strides, normalised
        self.stages = nn.Sequential(*stages)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens for a picture of height × width pixels; sides are rounded up."""
        for stride in self.strides:
            height, width = -(-height // stride), -(-width // stride)
        return height, width

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.channels, self)
        rows, columns = self.grid(*images.shape[-2:])
        if self.normalised:
            require_several(images.shape[0] * rows * columns, self.training, images.shape)
        return rearrange(self.stages(features_last(images)), "b d h w -> b (h w) d")


def stage_sizes(channels: int, dim: int, widths: Sequence[float]) -> list[tuple[int, int]]:
    """(channels before, channels after) of each stage of 3×3 convolutions."""
    require_count(channels=channels, dim=dim)
    sizes = [channels, *stage_widths(dim, widths)]
    pairs = list(zip(sizes, sizes[1:], strict=False))
    require_room(9 * sum(before * after for before, after in pairs), channels=channels, dim=dim, widths=widths)
    return pairs


class ConvEmbedding(ConvStages):
    """3×3 convolutions, dim/4 → dim/2 → dim channels (32-64-128 in the paper), padding 1, one token a place.

    The paper's has nothing between the convolutions: three linear maps in a row that see 7×7 pixels.
    activation: None, "relu" or "gelu" after each but the last;  normalisation: None or "batch" before it.
    widths: channels of each stage as parts of dim.
    patch_size: the total stride, 1 (the paper's), 2, 4 or 8, taken by stride 2 in the first stages.
    """

    def __init__(self, channels: int, dim: int, patch_size: int = 1, activation: str | None = None,
                 normalisation: str | None = None, widths: Sequence[float] = (0.25, 0.5, 1)) -> None:
        require_known("activation", activation, ACTIVATIONS)
        require_known("normalisation", normalisation, NORMS)
        sizes = stage_sizes(channels, dim, widths)
        strides, stages = halvings(patch_size, len(sizes)), []
        for (before, after), stride in zip(sizes, strides, strict=True):
            stages += [nn.Conv2d(before, after, 3, stride=stride, padding=1),
                       nn.Identity() if normalisation is None else NORMS[normalisation](after),
                       ACTIVATIONS[activation]()]
        stages[-1] = nn.Identity()  # no activation after the last
        super().__init__(channels, stages, strides, normalised=normalisation is not None)


class ConvPoolEmbedding(ConvStages):
    """Stages of 3×3 convolution without bias, ReLU, 3×3 max-pooling: Hassani et al., "Escaping the Big Data
    Paradigm with Compact Transformers", the convolutional tokenizer.

    64-64-128 channels at dim 128, as the paper's rows.   patch_size: the total stride, taken by the pooling.
    """

    def __init__(self, channels: int, dim: int, patch_size: int = 1, widths: Sequence[float] = (0.5, 0.5, 1)) -> None:
        sizes = stage_sizes(channels, dim, widths)
        strides = halvings(patch_size, len(sizes))
        stages = [nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.ReLU(),
                                nn.MaxPool2d(3, stride=stride, padding=1))
                  for (before, after), stride in zip(sizes, strides, strict=True)]
        super().__init__(channels, stages, strides)


EMBEDDINGS = {"linear": LinearEmbedding, "conv": ConvEmbedding, "convpool": ConvPoolEmbedding}
