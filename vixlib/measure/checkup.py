"""Trying a token mixer that somebody has just written: shape, what it mixes, gradient, cost."""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import require_count, require_gradients, require_mixed
from ..precision import HALF
from ..table import Table
from .cost import mixer_bytes, mixer_seconds

TOKENS = 65  # in the sequences that are mixed
SHORT, LONG = 256, 1024  # tokens between which the growth of cost is measured
DIRECTIONS = 8  # in which slopes are compared; in a single one a wrong gradient may come out right

WRONG = "WRONG: the backward pass is not that of the forward pass, or much of it is detached"


class Tells(NamedTuple):
    """What can be told of a mixer, by the precision that it computes in.

    same: differences between outputs up to which they count as equal.   step: of finite differences.
    gradients: relative differences below which a gradient is what the text says.
    """

    same: float
    step: float
    gradients: dict[float, str]


# vixlib's Nyström detaches a starting value.
FLOAT64 = Tells(1e-9, 1e-6, {1e-5: "right", 1e-2: "close: some small part is detached", math.inf: WRONG})
COARSE = Tells(1e-3, 1e-3, {1e-2: "right, as far as its coarser part lets tell", math.inf: WRONG})


@dataclass(frozen=True)
class Checkup:
    """What `check_mixer` found. A notebook shows it as a table.

    permutation: largest difference between the output of reordered tokens and the reordered output; 0: the mixer sees
        a set. None where it draws random numbers in evaluation, so that nothing can be told.
    neighbours: largest change of one picture's output with another picture in its batch; 0: pictures are independent.
    reach: part of the tokens, 0 ... 1, that the output of the one in the middle depends on.
    gradient: relative difference between autograd's slopes in random directions and those by finite differences.
    idle: parameters whose gradient is zero or missing.
    coarse: whether a part of it computes in float32 or less when its tokens are float64, which leaves rounding.
    kept, seconds: bytes for backward of an image, and seconds of a forward and backward pass, at SHORT and LONG tokens.
    """

    name: str
    permutation: float | None
    neighbours: float
    reach: float
    gradient: float
    idle: tuple[str, ...]
    coarse: bool
    kept: tuple[int, int]
    seconds: tuple[float, float]

    @property
    def exponents(self) -> tuple[float, float]:
        """p of cost ~ N^p between SHORT and LONG tokens, of bytes kept (0 where it keeps none) and of seconds."""
        return tuple(math.log(long / short) / math.log(LONG / SHORT) if short else 0.0
                     for short, long in (self.kept, self.seconds))

    @property
    def table(self) -> Table:
        """The findings in words."""
        bytes_grow, time_grows = self.exponents
        tells = COARSE if self.coarse else FLOAT64
        if self.permutation is None:
            order = ["-", "not told: it draws random numbers in evaluation, too"]
        else:
            order = [_small(self.permutation), "a set: tell it places, or it sees none"
                     if self.permutation < tells.same else "it knows an order of its own"]
        rows = [
            ["reordered tokens give reordered outputs", *order],
            ["pictures of a batch are independent", _small(self.neighbours),
             "yes" if self.neighbours < tells.same else "no: what shares the batch changes the answer"],
            ["tokens that one token can see", f"{self.reach:.0%}",
             "global mixing" if self.reach == 1 else "the others only through further layers"
             if self.reach * TOKENS > 1 else "itself alone: nothing passes between tokens"],
            ["gradient against finite differences", f"{self.gradient:.0e}",
             next(text for limit, text in tells.gradients.items() if self.gradient < limit)],
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

    own: options of the mixer itself. Random numbers that it draws are the same in each call that is compared. Raises
    TypeError or ValueError that says what the interface
    `Mixer(dim, *, heads, dim_head, seq_len, **own)`, `mixer(x, rotary=None)`, `[B, N, D] -> [B, N, D]` misses.
    """
    require_count(dim=dim, heads=heads, dim_head=dim_head)
    require_gradients("check_mixer")
    if not (isinstance(mixer, type) and issubclass(mixer, nn.Module)):
        raise TypeError(f"mixer={mixer!r} must be a class that inherits from torch.nn.Module, not an instance of one")
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.device("cpu"):
        return _looked_over(mixer, dim, {"heads": heads, "dim_head": dim_head, **own})


def _looked_over(mixer: type[nn.Module], dim: int, options: dict) -> Checkup:
    name = mixer.__name__

    def build(tokens: int) -> nn.Module:
        torch.default_generator.manual_seed(0)  # torch.manual_seed would also seed the GPUs
        try:
            return mixer(dim, seq_len=tokens, **options)
        except TypeError as error:
            given = ", ".join(f"{key}=..." for key in (*options, "seq_len"))
            raise TypeError(f"{error}; it was built as {name}(dim, {given}), as a host does") from error

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, TOKENS, dim, generator=generator, dtype=torch.float64)
    part, trained = _double(build(TOKENS)).eval(), _double(build(TOKENS)).train()
    with Narrowing() as narrowing:
        out = _first_output(part, x, name)
    coarse = narrowing.seen
    order = torch.randperm(TOKENS, generator=generator)
    with torch.no_grad():
        random = not torch.equal(_mixed(part, x), _mixed(part, x, seed=1))
        permutation = None if random else (_mixed(part, x[:, order]) - out[:, order]).abs().max().item()
        # Batches of one size, so that what is drawn at random is the same for the first picture of both.
        other, both = torch.randn(x[1].shape, generator=generator, dtype=x.dtype), _mixed(trained, x)
        beside = [_mixed(_double(build(TOKENS)).train(), torch.stack(pair)) for pair in ((x[0], other), (other, x[1]))]
        neighbours = max((both[i] - beside[i][i]).abs().max().item() for i in (0, 1))
    gradient, idle = _gradient(part, x, generator, (COARSE if coarse else FLOAT64).step)
    builders = {name: build}
    kept = mixer_bytes(builders, (SHORT, LONG), dim)[name]
    _, seconds = mixer_seconds(builders, dim, batch_size=1, smallest=SHORT, largest=LONG, repeats=3)
    return Checkup(name, permutation, neighbours, _reach(part, x), gradient, idle, coarse,
                   tuple(kept), (seconds[name][0], seconds[name][-1]))


class Narrowing(TorchDispatchMode):
    """Notes in `seen` whether, while it is entered, an operation makes coarser numbers of float64 ones."""

    seen = False

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        before, after = ({value.dtype for value in tree_leaves(values) if isinstance(value, Tensor)}
                         for values in ((args, kwargs), result))
        self.seen |= torch.float64 in before and bool(after & {torch.float32, *HALF})
        return result


def _double(part: nn.Module) -> nn.Module:
    """`part` in float64; complex numbers, which .double() passes over, in complex128."""
    wide = {torch.complex64: torch.complex128}
    for tensor in (*part.double().parameters(), *part.buffers()):
        tensor.data = tensor.data.to(wide.get(tensor.dtype, tensor.dtype))
    return part


def _mixed(part: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    torch.default_generator.manual_seed(seed)
    return part(x, rotary=None)


def _first_output(part: nn.Module, x: Tensor, name: str) -> Tensor:
    given = x.clone()
    try:
        out = _mixed(part, x)
    except RuntimeError as error:
        if "dtype" not in str(error) and "scalar type" not in str(error):
            raise
        raise TypeError(f"{name} cannot mix float64 tokens, with which gradients are checked ({error}); make tensors "
                        "of its own in the type and on the device of x, torch.ones(n, n).to(x), and keep its layers in "
                        "nn.ModuleList, not in a list") from error
    except TypeError as error:
        if "rotary" not in str(error):
            raise
        raise TypeError(f"{error}; a mixer is called as mixer(x, rotary=None)") from error
    if not torch.equal(x, given):
        raise ValueError(f"{name} writes into the tokens that it is given, which the layers around it use as well; "
                         "give back a new tensor: x + y instead of x += y")
    require_mixed(out, x, part)
    if not out.isfinite().all():
        raise ValueError(f"{name} turned ordinary tokens into NaN or infinite numbers; look for a division by zero, or "
                         "an exponential of large scores")
    if not _mixed(part, x.clone().requires_grad_()).requires_grad:
        raise ValueError(f"{name}'s output depends on nothing that could be trained; look for a detach or no_grad")
    return out.detach()


def _reach(part: nn.Module, x: Tensor) -> float:
    x = x[:1].clone().requires_grad_()
    weights = torch.randn(x.shape[-1], dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    seen, = torch.autograd.grad((_mixed(part, x)[0, x.shape[1] // 2] * weights).sum(), x, allow_unused=True)
    return 0.0 if seen is None else (seen[0].abs().amax(-1) > 0).double().mean().item()


def _gradient(part: nn.Module, x: Tensor, generator: torch.Generator, step: float) -> tuple[float, tuple[str, ...]]:
    """Relative error of the slopes along random directions of input and parameters; the parameters without slope."""
    x = x.clone().requires_grad_()
    named = {name: p for name, p in part.named_parameters() if p.requires_grad}
    weights = torch.randn(x.shape, generator=generator, dtype=x.dtype)

    def value() -> Tensor:
        return (_mixed(part, x) * weights).sum()

    variables = [x, *named.values()]
    slopes = torch.autograd.grad(value(), variables, allow_unused=True)
    idle = tuple(name for name, slope in zip(named, slopes[1:], strict=True)
                 if slope is None or slope.abs().max() < 1e-12)
    slopes = [torch.zeros_like(p) if slope is None else slope for p, slope in zip(variables, slopes, strict=True)]

    def after(step: float, ways: list[Tensor]) -> float:
        with torch.no_grad():
            for p, way in zip(variables, ways, strict=True):
                p.add_(step * way)
            result = value().item()
            for p, way in zip(variables, ways, strict=True):
                p.sub_(step * way)
        return result

    promised, measured = [], []
    for _ in range(DIRECTIONS):
        ways = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in variables]
        measured.append((after(step, ways) - after(-step, ways)) / (2 * step))
        # Of complex parameters autograd gives the conjugate: the change is the real part of the product.
        promised.append(sum((slope.conj() * way).sum().real for slope, way in zip(slopes, ways, strict=True)).item())
    return math.dist(promised, measured) / max(math.hypot(*measured), 1e-12), idle
