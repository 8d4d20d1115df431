"""LeViT as a host: convolutional embedding, blocks without layer normalisation, global average pooling."""
from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..embeddings import ConvEmbedding, Size, as_pair, check_images
from ..errors import (
    require_count,
    require_depth,
    require_flag,
    require_known,
    require_mixed,
    require_rate,
    require_room,
)
from ..mixers import BatchNormTokens
from ..precision import as_residual
from .feedforward import FeedForward
from .options import constructor_arguments, distribute, embedded, knows_places, mixer_class, require_own_grid, stacked


class LeViTBlock(nn.Module):
    """x + mixer(x), then x + ff(x), `[B, N, D] -> [B, N, D]`; what normalisation there is, is in the mixer."""

    def __init__(self, mixer: nn.Module, dim: int, mlp_dim: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.mixer = mixer
        self.ff = FeedForward(dim, mlp_dim, dropout, activation)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixer(x)
        require_mixed(mixed, x, self.mixer)
        x = x + mixed
        return x + self.ff(x)


class ShrinkingAttention(nn.Module):
    """Softmax attention from every second row and column to all tokens: a quarter of the tokens, a new width.

    Graham et al., "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference", shrinking attention.
    """

    def __init__(self, dim: int, out_dim: int, heads: int, dim_head: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.heads = grid, heads
        self.to_q = nn.Sequential(nn.Linear(dim, heads * dim_head, bias=False), BatchNormTokens(heads * dim_head))
        self.to_kv = nn.Sequential(nn.Linear(dim, 2 * heads * dim_head, bias=False),
                                   BatchNormTokens(2 * heads * dim_head))
        self.to_out = nn.Sequential(nn.Hardswish(), nn.Linear(heads * dim_head, out_dim), BatchNormTokens(out_dim))

    def forward(self, x: Tensor) -> Tensor:
        kept = x.unflatten(1, self.grid)[:, ::2, ::2].flatten(1, 2)
        q = rearrange(self.to_q(kept), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.to_kv(x), "b n (two h d) -> two b h n d", two=2, h=self.heads)
        return self.to_out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class LeViT(nn.Module):
    """Images `[B, C, H, W]` -> class scores `[B, num_classes]`, with any mixer.

    As the paper used it: one stage, a convolutional embedding, no positions but what convolution tells, no
    positional bias. Options of Graham et al.'s own design:
    dim, depth: tuples, one entry a stage, with shrinking attention between stages.
    activation: of the feed-forward, "gelu" or "hardswish".
    attention_bias: a learned bias for every distance between tokens; only softmax forms the matrix that it
    is added to, which is why the paper dropped it.
    options: whatever the mixer and the embedding take, e.g. num_landmarks, qkv_norm.
    """

    def __init__(self, *, mixer: str | type[nn.Module] = "softmax", image_size: Size = 32, patch_size: int = 1,
                 num_classes: int = 10, channels: int = 3, dim: int | tuple[int, ...] = 128,
                 depth: int | tuple[int, ...] = 4, heads: int = 4, dim_head: int = 32, mlp_dim: int = 256,
                 activation: str = "gelu", attention_bias: bool = False, dropout: float = 0.0, **options) -> None:
        super().__init__()
        dims, depths = (tuple(value) if isinstance(value, (tuple, list)) else (value,) for value in (dim, depth))
        if len(dims) != len(depths) or not dims:
            raise ValueError(f"dim={dim} and depth={depth} must have one entry for each stage")
        require_count(num_classes=num_classes, channels=channels, heads=heads, dim_head=dim_head, mlp_dim=mlp_dim,
                      **{f"dim of stage {i + 1}": d for i, d in enumerate(dims)})
        require_depth(**{f"depth of stage {i + 1}": d for i, d in enumerate(depths)})
        require_known("activation", activation, FeedForward.ACTIVATIONS)
        require_flag(attention_bias=attention_bias)
        require_rate("dropout", dropout)
        require_room(num_classes * dims[-1], num_classes=num_classes, dim=dim)
        mixing, embedding = self.parts({"mixer": mixer})
        mixer_options, embedding_options = distribute(type(self).__name__, options, mixing, embedding)
        if attention_bias and "bias_grid" not in constructor_arguments(mixing):
            raise ValueError(f"attention_bias=True needs the attention matrix that {mixing.__name__} never forms: the "
                             "bias is added to its scores; use mixer='softmax' or attention_bias=False")
        if attention_bias and "bias_grid" in options:
            raise ValueError(f"bias_grid={options['bias_grid']!r} is what attention_bias=True chooses for each stage; "
                             "leave out one of them")

        self.image_size, self.channels, self.num_classes = as_pair("image_size", image_size), channels, num_classes
        self._dim = dims[0]
        self.embedding = embedding(channels, dims[0], patch_size, **embedding_options)
        grid = self.grid = self.embedding.grid(*self.image_size)
        require_room(grid[0] * grid[1] * dims[0], image_size=image_size, patch_size=patch_size, dim=dim)
        self.blocks, self.shrink = nn.ModuleList(), nn.ModuleDict()  # shrink: by the number of the block it precedes
        for stage, (width, blocks) in enumerate(zip(dims, depths, strict=True)):
            if stage:
                self.shrink[str(len(self.blocks))] = ShrinkingAttention(dims[stage - 1], width, heads, dim_head, grid)
                grid = (-(-grid[0] // 2), -(-grid[1] // 2))
            own = {**mixer_options, **({"bias_grid": grid} if attention_bias else {})}
            self.blocks += stacked(
                lambda _, width=width, grid=grid, own=own: LeViTBlock(
                    mixing(width, heads=heads, dim_head=dim_head, seq_len=grid[0] * grid[1], **own), width, mlp_dim,
                    activation, dropout),
                blocks, depth=depth, image_size=image_size, dim=dim, heads=heads, dim_head=dim_head, mlp_dim=mlp_dim)
        self.one_grid = bool(self.shrink) or knows_places(self.blocks)
        self.head = nn.Linear(dims[-1], num_classes)

    @staticmethod
    def parts(settings: dict) -> tuple[type, ...]:
        """The mixer and embedding classes."""
        return mixer_class(settings["mixer"]), ConvEmbedding

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.tokens(images).mean(dim=1))

    def tokens(self, images: Tensor) -> Tensor:
        """The tokens after the last block, `[B, N, D]`."""
        check_images(images, self.channels, self)
        x, grid = embedded(self, images, self._dim)
        require_own_grid(self, grid)
        for i, block in enumerate(self.blocks):
            if str(i) in self.shrink:
                x = as_residual(self.shrink[str(i)](x))
            x = block(x)
        return x
