"""Trying a token mixer that somebody has just written: shape, what it mixes, gradient, cost."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .cost import mixer_bytes, mixer_seconds
from .errors import require_count
from .report import Table

SHORT, LONG = 256, 1024  # tokens between which the growth of cost is measured

# Relative differences below which a gradient is what the text says; vixlib's Performer detaches what nearly cancels.
GRADIENTS = {1e-5: "right", 1e-2: "close: some small part is detached",
             math.inf: "WRONG: the backward pass is not that of the forward pass"}


@dataclass(frozen=True)
class Checkup:
    """What `check_mixer` found. A notebook shows it as a table.

    permutation: largest change of the output, less its reordering, when tokens are reordered; 0: the mixer sees a set.
    neighbours: largest change of one picture's output with another picture in its batch; 0: pictures are independent.
    reach: part of the tokens, 0 ... 1, that the output of the one in the middle depends on.
    gradient: relative difference between autograd's slope in a random direction and the one by finite differences.
    idle: parameters whose gradient is zero or missing.
    kept, seconds: bytes for backward of an image, and seconds of a forward and backward pass, at SHORT and LONG tokens.
    """

    name: str
    permutation: float
    neighbours: float
    reach: float
    gradient: float
    idle: tuple[str, ...]
    kept: tuple[int, int]
    seconds: tuple[float, float]

    @property
    def exponents(self) -> tuple[float, float]:
        """p of cost ~ N^p between SHORT and LONG tokens, of bytes kept and of seconds."""
        return tuple(math.log(long / short) / math.log(LONG / SHORT) for short, long in (self.kept, self.seconds))

    @property
    def table(self) -> Table:
        """The findings in words."""
        bytes_grow, time_grows = self.exponents
        rows = [
            ["reordered tokens give reordered outputs", _small(self.permutation),
             "a set: tell it places, or it sees none" if self.permutation < 1e-9 else "it knows an order of its own"],
            ["pictures of a batch are independent", _small(self.neighbours),
             "yes" if self.neighbours < 1e-9 else "no: what shares the batch changes the answer"],
            ["tokens that one token can see", f"{self.reach:.0%}",
             "global mixing" if self.reach == 1 else "the others only through further layers"],
            ["gradient against finite differences", f"{self.gradient:.0e}",
             next(text for limit, text in GRADIENTS.items() if self.gradient < limit)],
            ["parameters that do nothing", str(len(self.idle)), ", ".join(self.idle) or "none"],
            [f"kept for backward at {LONG:,} tokens", f"{self.kept[1] / 2**20:.2f} MiB",
             f"grows like N^{bytes_grow:.1f}"],
            [f"forward and backward at {LONG:,} tokens", f"{1e3 * self.seconds[1]:.1f} ms",
             f"grows like N^{time_grows:.1f} on this machine"]]
        return Table(f"{self.name}, looked over", ["what", "found", "that means"], rows, left=(0, 2))

    def __str__(self) -> str:
        return str(self.table)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def _small(value: float) -> str:
    return "exactly" if value == 0 else f"up to {value:.0e}"


def check_mixer(mixer: type[nn.Module], dim: int = 64, heads: int = 4, dim_head: int = 16, **own) -> Checkup:
    """Build `mixer` as a host would and look it over, on the CPU: some seconds.

    own: options of the mixer itself. Raises TypeError or ValueError that says what the interface
    `Mixer(dim, *, heads, dim_head, seq_len, **own)`, `mixer(x, rotary=None)`, `[B, N, D] -> [B, N, D]` misses.
    """
    require_count(dim=dim, heads=heads, dim_head=dim_head)
    if not (isinstance(mixer, type) and issubclass(mixer, nn.Module)):
        raise TypeError(f"mixer={mixer!r} must be a class that inherits from torch.nn.Module, not an instance of one")

    def build(tokens: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                return mixer(dim, heads=heads, dim_head=dim_head, seq_len=tokens, **own)
            except TypeError as error:
                raise TypeError(f"{error}; a host builds {mixer.__name__}(dim, heads=..., dim_head=..., seq_len=...), "
                                "so __init__ has to take all four") from error

    tokens, generator = 33, torch.Generator().manual_seed(0)
    x = torch.randn(2, tokens, dim, generator=generator, dtype=torch.float64)
    part = build(tokens).double().eval()
    out = part(x, rotary=None)
    if not isinstance(out, Tensor) or out.shape != x.shape:
        found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(f"{mixer.__name__} turned {list(x.shape)} into {found}; a mixer must return the shape "
                         "[B, N, D] that it was given")
    order = torch.randperm(tokens, generator=generator)
    with torch.no_grad():
        permutation = (part(x[:, order], rotary=None) - out[:, order]).abs().max().item()
        neighbours = (build(tokens).double().train()(x, rotary=None)[:1]
                      - build(tokens).double().train()(x[:1], rotary=None)).abs().max().item()
    gradient, idle = _gradient(part, x, generator)
    name, builders = mixer.__name__, {mixer.__name__: build}
    kept = mixer_bytes(builders, (SHORT, LONG), dim)[name]
    _, seconds = mixer_seconds(builders, dim, batch_size=1, smallest=SHORT, largest=LONG, repeats=3)
    return Checkup(name, permutation, neighbours, _reach(part, x), gradient, idle, tuple(kept),
                   (seconds[name][0], seconds[name][-1]))


def _reach(part: nn.Module, x: Tensor) -> float:
    x = x[:1].clone().requires_grad_()
    weights = torch.randn(x.shape[-1], dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    seen = torch.autograd.grad((part(x, rotary=None)[0, x.shape[1] // 2] * weights).sum(), x)[0]
    return (seen[0].abs().amax(-1) > 0).double().mean().item()


def _gradient(part: nn.Module, x: Tensor, generator: torch.Generator) -> tuple[float, tuple[str, ...]]:
    """Relative error of the slope along one random direction of input and parameters; the parameters without slope."""
    x = x.clone().requires_grad_()
    named = {name: p for name, p in part.named_parameters() if p.requires_grad}
    weights = torch.randn(x.shape, generator=generator, dtype=x.dtype)

    def value() -> Tensor:
        return (part(x, rotary=None) * weights).sum()

    variables = [x, *named.values()]
    slopes = torch.autograd.grad(value(), variables, allow_unused=True)
    idle = tuple(name for name, slope in zip(named, slopes[1:], strict=True)
                 if slope is None or slope.abs().max() < 1e-12)
    slopes = [torch.zeros_like(p) if slope is None else slope for p, slope in zip(variables, slopes, strict=True)]
    ways = [torch.randn(p.shape, generator=generator, dtype=x.dtype) for p in variables]
    step = 1e-6
    with torch.no_grad():
        for p, way in zip(variables, ways, strict=True):
            p.add_(step * way)
        after = value()
        for p, way in zip(variables, ways, strict=True):
            p.sub_(2 * step * way)
        measured = ((after - value()) / (2 * step)).item()
        for p, way in zip(variables, ways, strict=True):
            p.add_(step * way)
    promised = sum((slope * way).sum() for slope, way in zip(slopes, ways, strict=True)).item()
    return abs(promised - measured) / max(abs(measured), 1e-12), idle
