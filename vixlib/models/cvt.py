"""CvT as a host: a convolution before each of three stages, pre-norm blocks, no positions, no CLS."""
from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from ..embeddings import Size, as_pair, check_images, features_last
from ..errors import require_count, require_depth, require_known, require_rate, require_room
from ..precision import as_residual
from .norms import ChannelNorm
from .options import distribute, knows_places, mixer_class, over_grid, require_own_grid, stacked, start_convolutions
from .vix import Block


class CvT(nn.Module):
    """Images `[B, C, H, W]` -> class scores `[B, num_classes]`, with any mixer; any image size if the mixer allows.

    Wu et al., "CvT: Introducing Convolutions to Vision Transformers", in the paper's sizes: three stages of one
    width, depths 1, 1, 2, each begun by a 3×3 convolution.
    projection: "separable", CvT's own queries, keys and values from separable convolutions (mixers that have
    queries and keys, one image size), or "linear", as the authors' CvN and CvP have them.
    patch_size: the stride p of the first stage's convolution; the others keep the number of tokens. Its windows are
    2p - 1 pixels wide (3 at least), so that they overlap: 7×7 at stride 4, as CvT's own.
    conv_init: how convolutions start, "torch" (the authors') or "he"; see options.start_convolutions.
    """

    def __init__(self, *, mixer: str | type[nn.Module] = "softmax", projection: str = "separable",
                 image_size: Size = 32, patch_size: int = 1, num_classes: int = 10, channels: int = 3, dim: int = 128,
                 depths: tuple[int, ...] = (1, 1, 2), heads: int = 4, dim_head: int = 32, mlp_dim: int = 256,
                 dropout: float = 0.0, conv_init: str = "torch", **options) -> None:
        super().__init__()
        if not isinstance(depths, (tuple, list)) or not depths:
            raise TypeError(f"depths={depths!r} must be a tuple with the blocks of each stage, such as (1, 1, 2)")
        require_count(num_classes=num_classes, channels=channels, dim=dim, patch_size=patch_size, heads=heads,
                      dim_head=dim_head, mlp_dim=mlp_dim)
        require_depth(**{f"depths[{i}]": depth for i, depth in enumerate(depths)})
        require_known("projection", projection, ("linear", "separable"))
        require_rate("dropout", dropout)
        mixing = mixer_class(mixer)
        own, = distribute(type(self).__name__, options, mixing)

        self.image_size, self.channels, self.num_classes = as_pair("image_size", image_size), channels, num_classes
        grid = self.grid = tuple(-(-side // patch_size) for side in self.image_size)
        require_room(max(grid[0] * grid[1], num_classes) * dim, image_size=image_size, num_classes=num_classes, dim=dim)
        require_room(9 * dim * dim, dim=dim)
        require_room(4 * patch_size**2 * channels * dim, patch_size=patch_size, channels=channels, dim=dim)
        own |= over_grid(mixing, projection, grid)
        self.embed, self.norms, self.stages = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage, depth in enumerate(depths):
            before, stride = (dim, 1) if stage else (channels, patch_size)
            window = max(3, 2 * stride - 1)
            self.embed.append(nn.Conv2d(before, dim, window, stride=stride, padding=window // 2))
            self.norms.append(ChannelNorm(dim))
            self.stages.append(stacked(
                lambda _: Block(dim, mixing(dim, heads=heads, dim_head=dim_head, seq_len=grid[0] * grid[1], **own),
                                mlp_dim, dropout, norm=ChannelNorm),
                depth, sum(depths), depths=depths, image_size=image_size, dim=dim, heads=heads, dim_head=dim_head,
                mlp_dim=mlp_dim))
        self.one_grid = knows_places(self.stages)
        self.head = nn.Linear(dim, num_classes)
        start_convolutions(self, conv_init)

    @staticmethod
    def parts(settings: dict) -> tuple[type, ...]:
        """The mixer class."""
        return (mixer_class(settings["mixer"]),)

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks, first to last."""
        return [block for stage in self.stages for block in stage]

    def forward(self, images: Tensor) -> Tensor:
        check_images(images, self.channels, self)
        x = features_last(images)
        for embed, norm, blocks in zip(self.embed, self.norms, self.stages, strict=True):
            x = embed(x)
            require_own_grid(self, x.shape[2:])
            rows = x.shape[2]
            tokens = as_residual(norm(rearrange(x, "b d h w -> b (h w) d")))
            for block in blocks:
                tokens = block(tokens)
            x = rearrange(tokens, "b (h w) d -> b d h w", h=rows)
        return self.head(x.mean(dim=(2, 3)))
