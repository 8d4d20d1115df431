"""Embeddings: how a picture becomes tokens, `[B, C, H, W] -> [B, N, D]`, N = rows · columns."""
from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from .errors import require_count, require_known

Size = int | tuple[int, int]


def as_pair(name: str, size: Size) -> tuple[int, int]:
    """`size` as (height, width), both at least 1; a single number means a square."""
    height, width = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)
    require_count(**{f"{name} height": height, f"{name} width": width})
    return height, width


class LinearEmbedding(nn.Module):
    """Non-overlapping patches, flattened and mapped linearly.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", eq. (1).

    patch_size: pixels a side, one number or (height, width); 1 makes every pixel a token, as the paper does.
    """

    def __init__(self, channels: int, dim: int, patch_size: Size = 1) -> None:
        super().__init__()
        require_count(channels=channels, dim=dim)
        self.patch = as_pair("patch_size", patch_size)
        self.project = nn.Linear(channels * self.patch[0] * self.patch[1], dim)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens for a picture of height × width pixels."""
        rows, columns = self.patch
        if height % rows or width % columns:
            raise ValueError(f"patch_size={rows if rows == columns else self.patch} does not divide the image "
                             f"size {height}x{width}; use a divisor of both sides, or resize the images")
        return height // rows, width // columns

    def forward(self, images: Tensor) -> Tensor:
        self.grid(*images.shape[-2:])
        rows, columns = self.patch
        return self.project(rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=rows, q=columns))


ACTIVATIONS = {None: nn.Identity, "relu": nn.ReLU, "gelu": nn.GELU}
NORMS = {None: nn.Identity, "batch": nn.BatchNorm2d}
STRIDES = {1: (1, 1, 1), 2: (2, 1, 1), 4: (2, 2, 1), 8: (2, 2, 2)}  # early strides: fewest multiplications


class ConvEmbedding(nn.Module):
    """Three 3×3 convolutions, dim/4 → dim/2 → dim channels (32-64-128 in the paper), padding 1, one token a place.

    The paper's has nothing between the convolutions: three linear maps in a row that see 7×7 pixels.
    activation: None, "relu" or "gelu" after each but the last;  normalisation: None or "batch" before it.
    patch_size: the total stride, 1 (the paper's), 2, 4 or 8, taken by stride 2 in the first stages.
    """

    def __init__(self, channels: int, dim: int, patch_size: int = 1, activation: str | None = None,
                 normalisation: str | None = None) -> None:
        super().__init__()
        require_count(channels=channels, dim=dim)
        require_known("activation", activation, ACTIVATIONS)
        require_known("normalisation", normalisation, NORMS)
        if patch_size not in STRIDES:
            raise ValueError(f"patch_size={patch_size!r} is no total stride of a convolutional embedding; "
                             f"use one of {', '.join(map(str, STRIDES))}")
        if dim % 4:
            raise ValueError(f"dim={dim} must be divisible by 4: the stages have dim/4, dim/2 and dim channels")
        self.strides = STRIDES[patch_size]
        widths = (channels, dim // 4, dim // 2, dim)
        stages = []
        for i, stride in enumerate(self.strides):
            last = i == len(self.strides) - 1
            stages += [nn.Conv2d(widths[i], widths[i + 1], 3, stride=stride, padding=1),
                       nn.Identity() if normalisation is None else NORMS[normalisation](widths[i + 1]),
                       nn.Identity() if last else ACTIVATIONS[activation]()]
        self.stages = nn.Sequential(*stages)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tokens for a picture of height × width pixels; sides are rounded up."""
        for stride in self.strides:
            height, width = -(-height // stride), -(-width // stride)
        return height, width

    def forward(self, images: Tensor) -> Tensor:
        return rearrange(self.stages(images), "b d h w -> b (h w) d")


EMBEDDINGS = {"linear": LinearEmbedding, "conv": ConvEmbedding}
