"""Convolutional X-formers for Vision: a convolution inside every layer, no CLS token, no positions."""
from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from ..embeddings import Size, as_pair, check_images, features_last, halvings
from ..errors import require_count, require_depth, require_known, require_mixed, require_rate, require_room
from ..precision import as_residual
from .feedforward import FeedForward
from .norms import ChannelNorm, lean_norm
from .options import distribute, knows_places, mixer_class, over_grid, require_own_grid, stacked, start_convolutions


class CXVLayer(nn.Module):
    """norm(conv(x)), then x + mixer(x), then x + ff(x): `[B, D', H, W] -> [B, D, H, W]`.

    Unlike a Block's, the norm stands in the line itself and not in a branch, as in the authors' published code.
    mixer_dropout: None for `dropout`, which the feed-forward has.
    """

    def __init__(self, channels: int, dim: int, mixer: nn.Module, mlp_dim: int, dropout: float,
                 mixer_dropout: float | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, 3, padding=1)
        self.norm, self.mixer = ChannelNorm(dim), mixer
        self.dropout = nn.Dropout(dropout if mixer_dropout is None else mixer_dropout)
        self.ff = FeedForward(dim, mlp_dim, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        rows = x.shape[2]
        x = rearrange(x, "b d h w -> b (h w) d")  # as tokens: as a picture it would be laid out anew
        # In float32 before the norm, which then keeps half of it, and behind it, whatever type its weights have.
        x = as_residual(lean_norm(self.norm, as_residual(x)))
        mixed = self.mixer(x)
        require_mixed(mixed, x, self.mixer)
        x = x + self.dropout(mixed)
        x = x + self.ff(x)
        return rearrange(x, "b (h w) d -> b d h w", h=rows)


class CXV(nn.Module):
    """Images `[B, C, H, W]` -> class scores `[B, num_classes]`, with any mixer; any image size if the mixer allows.

    Jeevan and Sethi, "Convolutional Xformers for Vision": a stem of 3×3 convolutions to dim/4 and dim/2 channels,
    then layers of convolution, mixer and feed-forward; the convolutions tell places apart.
    dropout: after mixer and feed-forward.   mixer_dropout: another one after the mixer, where not None (CLTV).
    projection: "linear", or "conv" for 3×3 convolutions as the mixer's maps (CLTV), for one image size.
    patch_size: the stride of the stem, 1, 2 or 4.
    conv_init: how convolutions start, "torch" (the authors') or "he"; see options.start_convolutions.
    """

    def __init__(self, *, mixer: str | type[nn.Module] = "performer", projection: str = "linear",
                 image_size: Size = 32, patch_size: int = 1, num_classes: int = 10, channels: int = 3, dim: int = 128,
                 depth: int = 5, heads: int = 4, dim_head: int = 32, mlp_dim: int = 256, dropout: float = 0.5,
                 mixer_dropout: float | None = None, conv_init: str = "torch", **options) -> None:
        super().__init__()
        require_count(num_classes=num_classes, channels=channels, dim=dim, heads=heads, dim_head=dim_head,
                      mlp_dim=mlp_dim)
        require_depth(depth=depth)
        if dim % 4:
            raise ValueError(f"dim={dim} must be divisible by 4: the stem has dim/4 and dim/2 channels")
        require_known("projection", projection, ("linear", "conv"))
        require_rate("dropout", dropout)
        if mixer_dropout is not None:
            require_rate("mixer_dropout", mixer_dropout)
        mixing = mixer_class(mixer)
        own, = distribute(type(self).__name__, options, mixing)

        self.image_size, self.channels, self.num_classes = as_pair("image_size", image_size), channels, num_classes
        strides = halvings(patch_size, 2)
        require_room(9 * max(channels, dim) * dim // 4, channels=channels, dim=dim)
        self.stem = nn.Sequential(nn.Conv2d(channels, dim // 4, 3, stride=strides[0], padding=1),
                                  nn.Conv2d(dim // 4, dim // 2, 3, stride=strides[1], padding=1))
        grid = self.grid = tuple(-(-side // patch_size) for side in self.image_size)
        require_room(max(grid[0] * grid[1], num_classes) * dim, image_size=image_size, num_classes=num_classes, dim=dim)
        own |= over_grid(mixing, projection, grid)
        self.blocks = stacked(
            lambda i: CXVLayer(dim if i else dim // 2, dim, mixing(dim, heads=heads, dim_head=dim_head,
                                                                   seq_len=grid[0] * grid[1], **own), mlp_dim, dropout,
                               mixer_dropout),
            depth, depth=depth, image_size=image_size, dim=dim, heads=heads, dim_head=dim_head, mlp_dim=mlp_dim)
        self.one_grid = knows_places(self.blocks)
        self.head = nn.Linear(dim, num_classes)
        start_convolutions(self, conv_init)

    @staticmethod
    def parts(settings: dict) -> tuple[type, ...]:
        """The mixer class."""
        return (mixer_class(settings["mixer"]),)

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.channels, self)
        x = self.stem(features_last(images))
        require_own_grid(self, x.shape[2:])
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(dim=(2, 3)))
