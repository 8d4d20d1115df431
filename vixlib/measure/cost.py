"""What one mixer costs as the number of tokens grows: bytes kept for backward, seconds of a training step."""
from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from numbers import Real
from statistics import median

import torch
from torch import Tensor, nn

from ..device import own_randomness, pick_precision, require_working
from ..errors import require_count, require_mapping, require_number, require_type, shown
from ..kernels import training_kernels
from ..precision import autocast_off, computing_in
from .live_bytes import kept_for_backward
from .speed import seconds

Builder = Callable[[int], nn.Module]


def mixer_bytes(builders: Mapping[str, Builder], tokens: Sequence[int], dim: int) -> dict[str, list[int]]:
    """Bytes each mixer keeps for backward for one image, float32: name -> one value for each of `tokens`.

    builders: name -> a function from the number of tokens to a mixer of width `dim`.
    """
    require_mapping("builders", builders)
    require_type("tokens", tokens, Collection, "a list of numbers of tokens")
    require_count(dim=dim, **{f"tokens[{i}]": count for i, count in enumerate(tokens)})
    costs: dict[str, list[int]] = {name: [] for name in builders}
    with own_randomness(torch.device("cpu")), autocast_off(torch.device("cpu")):
        for count in tokens:
            for name, build in builders.items():
                mixer, x = build(count), torch.randn(1, count, dim, requires_grad=True, device="cpu")
                costs[name].append(kept_for_backward(mixer, lambda mixer=mixer, x=x: mixer(x)))
    return costs


def mixer_seconds(builders: Mapping[str, Builder], dim: int, *, device: torch.device | str = "cpu", batch_size: int = 2,
                  smallest: int = 64, largest: int = 4096, repeats: int = 5,
                  budget: float = 20.0) -> tuple[list[int], dict[str, list[float]]]:
    """Seconds of forward and backward for batches of token counts smallest, 2·smallest, ...: (tokens, name -> seconds).

    Medians of `repeats` rounds; in each round the mixers take turns, so that a machine that slows down slows all
    of them. Precision is what `pick_precision` gives for the device. No size is begun that would probably pass
    `budget` seconds; at least three sizes are measured.
    """
    require_mapping("builders", builders)
    require_count(dim=dim, batch_size=batch_size, smallest=smallest, largest=largest, repeats=repeats)
    require_number("budget", budget, lambda seconds: seconds >= 0, "of 0 or above, in seconds")
    if 4 * smallest > largest:
        raise ValueError(f"largest={largest} must be at least four times smallest={smallest}: three sizes are "
                         "measured, each twice the one before")
    device = require_working(device)
    precision = pick_precision(device)
    tokens: list[int] = []
    costs: dict[str, list[float]] = {name: [] for name in builders}
    begun, count, last = time.perf_counter(), smallest, 0.0
    # The dearest mixer is quadratic, so the next size takes up to four times as long as this one did.
    while count <= largest and (len(tokens) < 3 or time.perf_counter() - begun + 4 * last < budget):
        round_begun = time.perf_counter()
        with own_randomness(device):
            x = torch.randn(batch_size, count, dim, device=device, requires_grad=True)
            steps = {name: _step(build(count).to(device), x, precision) for name, build in builders.items()}
            with training_kernels(deterministic=False):  # as fit trains
                for step in steps.values():
                    step()
                taken = [{name: seconds(step, device) for name, step in steps.items()} for _ in range(repeats)]
        for name in builders:
            costs[name].append(median(one[name] for one in taken))
        tokens.append(count)
        count, last = 2 * count, time.perf_counter() - round_begun
    return tokens, costs


def _step(mixer: nn.Module, x: Tensor, precision: str) -> Callable[[], None]:
    weights = [x, *(parameter for parameter in mixer.parameters() if parameter.requires_grad)]

    def step() -> None:
        with computing_in(precision, x):
            out = mixer(x)
        # Ones that are written out: expanded from one, torch 2.6 cannot take them through an FFT. Unused weights: a
        # mixer that is not finished is measured, too.
        torch.autograd.grad(out, weights, torch.ones_like(out), allow_unused=True)

    return step


def require_curves(tokens: Sequence[int], curves: Mapping[str, Sequence[float]]) -> None:
    """`tokens` and each of `curves` must be numbers above 0, as logarithmic axes take, as many as there are tokens."""
    for name, values in (("tokens", tokens), *curves.items()):
        require_type(name, values, Collection, "a list of numbers above 0")
        if not len(values) or not all(isinstance(value, Real) and 0 < value < math.inf for value in values):
            raise ValueError(f"{name}={shown(values)} must be finite numbers above 0, one or more")
        if len(values) != len(tokens):
            raise ValueError(f"{name}={shown(values)} must be {len(tokens)} numbers, one for each of "
                             f"tokens={shown(tokens)}")


def crossing(tokens: Sequence[int], reference: Sequence[float], other: Sequence[float]) -> float | None:
    """The number of tokens from which `other` stays cheaper than `reference`, interpolated on logarithmic axes.

    tokens[0] if it always was; None if it is not cheaper at the last of `tokens`.
    """
    require_curves(tokens, {"reference": reference, "other": other})
    if any(after <= before for before, after in zip(tokens, tokens[1:], strict=False)):
        raise ValueError(f"tokens={shown(tokens)} must grow from one to the next; sort them, and the costs with them")
    gaps = [math.log(b / a) for a, b in zip(reference, other, strict=True)]  # negative where `other` is cheaper
    if gaps[-1] >= 0:
        return None
    dearer = [i for i, gap in enumerate(gaps) if gap >= 0]
    if not dearer:
        return float(tokens[0])
    i = dearer[-1]
    share = gaps[i] / (gaps[i] - gaps[i + 1])
    return tokens[i] * (tokens[i + 1] / tokens[i]) ** share
