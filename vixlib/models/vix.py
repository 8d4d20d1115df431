"""The ViX host: a Vision Transformer (Dosovitskiy et al.) whose token mixer, embedding and positions are parts."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..embeddings import EMBEDDINGS, Size, as_pair, check_images
from ..errors import require_count, require_depth, require_known, require_mixed, require_rate, require_room
from ..lean import untouched
from ..positions import POSITIONS, Rotary
from .feedforward import FeedForward
from .norms import apply_norm, lean_norm
from .options import distribute, embedded, knows_places, mixer_class, require_own_grid, stacked


class Block(nn.Module):
    """x + mixer(norm(x)), then x + ff(norm(x)): the pre-norm block, `[B, N, D] -> [B, N, D]`."""

    def __init__(self, dim: int, mixer: nn.Module, mlp_dim: int, dropout: float = 0.0,
                 norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        self.mixer_norm, self.mixer = norm(dim), mixer
        self.mixer_dropout = nn.Dropout(dropout)
        self.ff_norm, self.ff = norm(dim), FeedForward(dim, mlp_dim, dropout)

    def forward(self, x: Tensor, rotary: Rotary | None = None) -> Tensor:
        x = x + self.mixed(x, rotary)
        if untouched(self.ff, FeedForward):
            return self.ff(x, self.ff_norm, residual=True)
        return x + self.ff(apply_norm(self.ff_norm, x))  # somebody's own, or with hooks, which expect this

    def mixed(self, x: Tensor, rotary: Rotary | None) -> Tensor:
        """mixer(norm(x)), what the first branch adds."""
        mixed = self.mixer(lean_norm(self.mixer_norm, x), rotary=rotary)
        require_mixed(mixed, x, self.mixer)
        return self.mixer_dropout(mixed)


class SequencePool(nn.Module):
    """A weighted mean of the tokens, weights from a learned score: `[B, N, D] -> [B, D]`.

    Hassani et al., "Escaping the Big Data Paradigm with Compact Transformers", sequence pooling.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def weights(self, x: Tensor) -> Tensor:
        """Each token's weight, `[B, N]`, summing to one."""
        return self.score(x).squeeze(-1).softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bn,bnd->bd", self.weights(x), x)


class ViX(nn.Module):
    """Images `[B, C, H, W]` (normalised) -> class scores `[B, num_classes]`.

    mixer: a name of `mixers.MIXERS` or any class with the mixers' interface.
    embedding: "linear", "conv" or "convpool".   position: "none", "learned", "rope" or "rope2d".
    pool: "cls" reads the class from an extra first token; "mean" averages the tokens, "sequence" weights them by
    a learned score (see SequencePool), and there is no CLS then.
    mlp_dim: hidden width of the feed-forward.   image_size, patch_size: one number or (height, width).
    options: whatever the chosen mixer, embedding or position takes, e.g. num_landmarks=16.
    """

    block: type[Block] = Block

    def __init__(self, *, mixer: str | type[nn.Module] = "softmax", embedding: str = "linear",
                 position: str = "learned", image_size: Size = 32, patch_size: Size = 1,
                 num_classes: int = 10, channels: int = 3, dim: int = 128, depth: int = 4,
                 heads: int = 4, dim_head: int = 32, mlp_dim: int = 256,
                 pool: str = "cls", dropout: float = 0.0, emb_dropout: float = 0.0, **options) -> None:
        super().__init__()
        require_count(num_classes=num_classes, channels=channels, dim=dim, heads=heads, dim_head=dim_head,
                      mlp_dim=mlp_dim)
        require_depth(depth=depth)
        require_known("pool", pool, ("cls", "mean", "sequence"))
        require_rate("dropout", dropout)
        require_rate("emb_dropout", emb_dropout)
        require_room(num_classes * dim, num_classes=num_classes, dim=dim)
        mixing, embedding_class, position_class = self.parts(
            {"mixer": mixer, "embedding": embedding, "position": position})
        if position_class.rotates and not getattr(mixing, "uses_rotary", True):
            raise ValueError(f"position={position!r} rotates queries and keys, but mixer {mixing.__name__} has "
                             "none; use position='learned' or 'none'")
        mixer_options, embedding_options, position_options = distribute(
            type(self).__name__, options, mixing, embedding_class, position_class)

        self.image_size, self.channels, self.num_classes = as_pair("image_size", image_size), channels, num_classes
        self._dim = dim
        self.embedding = embedding_class(channels, dim, patch_size, **embedding_options)
        self.grid = self.embedding.grid(*self.image_size)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim)) if pool == "cls" else None
        self.seq_len = self.grid[0] * self.grid[1] + (pool == "cls")
        require_room(self.seq_len * dim, image_size=image_size, patch_size=patch_size, dim=dim)
        self.position = position_class(dim=dim, dim_head=dim_head, grid=self.grid, cls=pool == "cls",
                                       **position_options)
        self.dropout = nn.Dropout(emb_dropout)
        self.blocks = stacked(lambda _: self.block(dim, mixing(dim, heads=heads, dim_head=dim_head,
                                                               seq_len=self.seq_len, **mixer_options),
                                                   mlp_dim, dropout),
                              depth, depth=depth, image_size=image_size, dim=dim, heads=heads, dim_head=dim_head,
                              mlp_dim=mlp_dim)
        self.one_grid = knows_places(self.blocks)
        self.norm = nn.LayerNorm(dim)
        self.pool = SequencePool(dim) if pool == "sequence" else None
        self.head = nn.Linear(dim, num_classes)

    @staticmethod
    def parts(settings: dict) -> tuple[type, type, type]:
        """The mixer, embedding and position classes that constructor arguments choose, checked by name."""
        embedding, position = settings["embedding"], settings["position"]
        require_known("embedding", embedding, EMBEDDINGS)
        require_known("position", position, POSITIONS)
        return mixer_class(settings["mixer"]), EMBEDDINGS[embedding], POSITIONS[position]

    def forward(self, images: Tensor) -> Tensor:
        x = self.tokens(images)
        if self.cls_token is not None:
            return self.head(apply_norm(self.norm, x[:, 0].clone()))  # a slice would keep the other tokens alive
        x = apply_norm(self.norm, x)
        return self.head(x.mean(dim=1) if self.pool is None else self.pool(x))

    def tokens(self, images: Tensor) -> Tensor:
        """The tokens after the last block, `[B, N, D]`, CLS first where there is one."""
        check_images(images, self.channels, self)
        x, grid = embedded(self, images, self._dim)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        require_own_grid(self, grid)
        x = self.dropout(self.position.embed(x, grid))
        rotary = self.position.rotary(grid, x.device)
        for block in self.blocks:
            x = block(x, rotary)
        return x
