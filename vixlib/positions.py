"""Positions: how tokens know their place, either added to the tokens or turned into queries and keys.

Each has two methods: `embed(x, grid)` acts once on the tokens `[B, N, D]`, `rotary(grid, device)` gives what every
mixer applies to its queries and keys (`[B, H, N, d]`), or None. grid = (rows, columns) of the picture's
tokens. A CLS token, where there is one, comes first and is no place in the picture.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .errors import require_count, require_grid, require_like, require_number, require_room

Grid = tuple[int, int]
Rotary = Callable[[Tensor], Tensor]  # turns queries or keys, [B, H, N, d] -> [B, H, N, d]


class NoPosition(nn.Module):
    """Tokens are a set: only what the mixer itself does with their order tells them apart."""

    rotates = False

    def __init__(self, *, dim: int, dim_head: int, grid: Grid, cls: bool) -> None:
        super().__init__()
        require_grid("grid", grid)
        require_count(dim=dim, dim_head=dim_head)
        self.cls = cls

    def embed(self, x: Tensor, grid: Grid) -> Tensor:
        return x

    def rotary(self, grid: Grid, device: torch.device) -> Rotary | None:
        return None


class LearnedPosition(NoPosition):
    """One learned vector a token, CLS included, added once.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", eq. (1).

    position_std: of the normal start values; 1 as in the paper's code (tokens themselves start near 0.5).
    The table fits one picture size; `resize(grid)` interpolates it to another.
    """

    def __init__(self, *, dim: int, dim_head: int, grid: Grid, cls: bool, position_std: float = 1.0) -> None:
        super().__init__(dim=dim, dim_head=dim_head, grid=grid, cls=cls)
        require_number("position_std", position_std, lambda value: 0 <= value <= 1e6, "from 0 to 1e6")
        self.grid = tuple(grid)
        self.table = nn.Parameter(torch.randn(1, cls + grid[0] * grid[1], dim) * position_std)

    def embed(self, x: Tensor, grid: Grid) -> Tensor:
        if tuple(grid) != self.grid:
            raise ValueError(f"the image gives {grid[0]}x{grid[1]} tokens but the learned positions are for "
                             f"{self.grid[0]}x{self.grid[1]}; build the model with this image_size, call "
                             f"model.position.resize({grid}), or use position='rope'")
        if x.shape[1:] != self.table.shape[1:]:  # a single token would be taken for all of them
            raise ValueError(f"x has shape {tuple(x.shape)}; expected [B, N, D] = [B, {self.table.shape[1]}, "
                             f"{self.table.shape[2]}], a vector for each place" + (" and CLS" if self.cls else ""))
        return x + self.table

    @torch.no_grad()
    def resize(self, grid: Grid) -> None:
        """Interpolate the table bicubically to another grid (rows, columns), in place; CLS keeps its vector."""
        require_grid("grid", grid)
        grid = tuple(grid)
        require_room(grid[0] * grid[1] * self.table.shape[-1], grid=grid)
        picture = self.table[:, self.cls:].unflatten(1, self.grid).permute(0, 3, 1, 2)
        picture = nn.functional.interpolate(picture, size=grid, mode="bicubic", align_corners=False)
        self.table = nn.Parameter(torch.cat([self.table[:, :self.cls], picture.flatten(2).mT], dim=1),
                                  self.table.requires_grad)
        self.grid = grid


def unit_circle(angles: Tensor) -> Tensor:
    """exp(i·angle), of angles in float64, which at the end of a long sequence need more digits than float32 has."""
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn neighbouring features (x₂ᵢ, x₂ᵢ₊₁) of `[..., N, d]` as complex numbers by `angles` `[N, d/2]` (radians)."""
    require_like("x", x, None)
    require_like("angles", angles, None)
    if x.ndim < 2 or x.shape[-1] % 2 or angles.shape != (x.shape[-2], x.shape[-1] // 2):
        raise ValueError(f"angles has shape {tuple(angles.shape)} and x {tuple(x.shape)}; expected angles [N, d/2] for "
                         "x [..., N, d], d even")
    return turned(x, unit_circle(angles))


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """The same by numbers on the unit circle, for many `x` and the same angles."""
    pairs = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (-1, 2))  # half precision turns in float32
    *steps, last = pairs.stride()
    odd = any(step % 2 for step in steps) or (not torch.compiler.is_compiling() and pairs.storage_offset() % 2)
    if last != 1 or odd:  # not as complex numbers lie
        pairs = pairs.clone(memory_format=torch.contiguous_format)
    numbers = torch.view_as_complex(pairs)
    return torch.view_as_real(numbers * turns.to(numbers.dtype)).flatten(-2).to(x.dtype)


def frequencies(count: int, base: float, device: torch.device) -> Tensor:
    """base^(-i/count) for i < count, in radians a step: from one radian down to 1/base."""
    return base ** (-torch.arange(count, dtype=torch.float64, device=device) / count)


class RotaryPosition(NoPosition):
    """1-D rotary positions over the unrolled picture: Su et al., "RoFormer: Enhanced Transformer with Rotary
    Position Embedding", eq. (34), as the paper uses them: CLS is token 0, the pixels follow row by row.

    No parameters and any picture size. A score q·k depends on the tokens' distance in the sequence alone, so
    two pixels one row apart are a whole row's width of steps apart.
    """

    rotates = True
    heads_divisible_by = 2

    def __init__(self, *, dim: int, dim_head: int, grid: Grid, cls: bool, rope_base: float = 10_000.0) -> None:
        super().__init__(dim=dim, dim_head=dim_head, grid=grid, cls=cls)
        if dim_head % self.heads_divisible_by:
            raise ValueError(f"dim_head={dim_head} must be divisible by {self.heads_divisible_by} for rotary positions")
        require_number("rope_base", rope_base, lambda value: 1e-6 <= value <= 1e12,
                       "from 1e-6 to 1e12, for instance 100")
        self.dim_head, self.base = dim_head, rope_base

    def angles(self, grid: Grid, device: torch.device) -> Tensor:
        """The angle of every token and feature pair, `[N, d/2]`, float64 radians."""
        steps = torch.arange(self.cls + grid[0] * grid[1], dtype=torch.float64, device=device)
        return torch.outer(steps, frequencies(self.dim_head // 2, self.base, device))

    def rotary(self, grid: Grid, device: torch.device) -> Rotary:
        turns = unit_circle(self.angles(grid, device))
        return lambda x: turned(x, turns)


class AxialRotaryPosition(RotaryPosition):
    """2-D rotary positions: the row turns the first half of the head's features, the column the second: Heo et
    al., "Rotary Position Embedding for Vision Transformer", the axial form, with its base 100.

    A score depends on the offset (rows, columns) alone. CLS is no place in the picture and is not turned.
    """

    heads_divisible_by = 4

    def __init__(self, *, dim: int, dim_head: int, grid: Grid, cls: bool, rope_base: float = 100.0) -> None:
        super().__init__(dim=dim, dim_head=dim_head, grid=grid, cls=cls, rope_base=rope_base)

    def angles(self, grid: Grid, device: torch.device) -> Tensor:
        """The angle of every token and feature pair, `[N, d/2]`, float64 radians."""
        turns = frequencies(self.dim_head // 4, self.base, device)
        rows, columns = (torch.arange(n, dtype=torch.float64, device=device) for n in grid)
        by_row = torch.outer(rows, turns).repeat_interleave(grid[1], dim=0)
        by_column = torch.outer(columns, turns).repeat(grid[0], 1)
        places = torch.cat([by_row, by_column], dim=1)
        return torch.cat([places.new_zeros(int(self.cls), places.shape[1]), places])


POSITIONS = {"none": NoPosition, "learned": LearnedPosition, "rope": RotaryPosition, "rope2d": AxialRotaryPosition}
