"""Steps to measure, measuring them in turns, their memory, and what the machine itself can do."""
from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch
from torch import Tensor, nn

from vixlib.device import pick_precision
from vixlib.measure.live_bytes import kept_for_backward
from vixlib.measure.speed import seconds
from vixlib.precision import computing_in

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's start and stop are no news
Step = Callable[[], None]
Key = TypeVar("Key")


def precisions(device: torch.device) -> list[str]:
    """"float32", and where there is a GPU what mixed precision would take there."""
    return list(dict.fromkeys(["float32", pick_precision(device)]))


def run(model: nn.Module, x: Tensor, precision: str) -> Tensor:
    """model(x) in `precision`."""
    with computing_in(precision, x):
        return model(x)


def forward_backward(model: nn.Module, x: Tensor, precision: str) -> Step:
    """A call that computes the gradients of the parameters and of `x` from a fixed gradient of the output."""
    with torch.no_grad():
        out = run(model, x, precision)
        gradient = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out)
    x = x.detach().requires_grad_()  # in a model x comes from an embedding that learns

    def step() -> None:
        model.zero_grad(set_to_none=True)
        x.grad = None
        run(model, x, precision).backward(gradient)

    return step


def training_step(model: nn.Module, x: Tensor, precision: str) -> Step:
    """The same followed by AdamW's update. In half precision without loss scaling, which no timing depends on."""
    gradients = forward_backward(model, x, precision)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        gradients()
        optimizer.step()

    return step


def compiled_steps(model: nn.Module, x: Tensor, precisions: Iterable[str], mode: str) -> dict[str, Step]:
    """precision -> the step of a copy of `model` through torch.compile in `mode`."""
    torch.compiler.reset()  # after a few models of one class the compiler would leave the next as it is
    return {precision: training_step(torch.compile(copy.deepcopy(model), mode=mode), x, precision)
            for precision in precisions}


def inference(model: nn.Module, x: Tensor, precision: str) -> Step:
    """A call that computes the output alone."""
    def step() -> None:
        with torch.inference_mode():
            run(model, x, precision)

    return step


def kept_bytes(model: nn.Module, x: Tensor, precision: str) -> int:
    """Bytes that autograd keeps between forward and backward."""
    x = x.detach().requires_grad_()
    return kept_for_backward(model, lambda: run(model, x, precision))


def in_turns(steps: Mapping[Key, Step], rounds: int, device: torch.device,
             shortest: float = 0.02) -> dict[Key, list[float]]:
    """Seconds of each step in each of `rounds`: A, B, A, B, ..., so that a slower moment slows all of them.

    A step shorter than `shortest` seconds is repeated within its turn. The first three calls are not counted: they
    choose kernels, make the optimizer's state, and record CUDA graphs where there are such.
    """
    for step in 3 * list(steps.values()):
        step()
    once = {key: seconds(step, device) for key, step in steps.items()}
    calls = {key: max(1, round(shortest / once[key])) for key in steps}
    taken: dict[Key, list[float]] = {key: [] for key in steps}
    for _ in range(rounds):
        for key, step in steps.items():
            taken[key].append(seconds(step, device, calls[key]))
    return taken


@dataclass(frozen=True)
class Ratio:
    """How many times dearer one thing is than another: the median over rounds, and the extremes."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
        """From the seconds of the same rounds."""
        each = [a / b for a, b in zip(theirs, ours, strict=True)]
        return cls(median(each), min(each), max(each))

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f}-{self.high:.2f})"


def peak_bytes(step: Step, device: torch.device) -> int:
    """The most bytes allocated at once during a call, beyond what was there before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():  # one a change: + bytes allocated, - bytes freed
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak


def peak_flops(device: torch.device, precision: str) -> float:
    """FLOP/s of the best of several square matrix products."""
    best = 0.0
    for size in (1024, 2048) if device.type == "cpu" else (2048, 4096, 8192):
        a, b = torch.randn(2, size, size, device=device).to(getattr(torch, precision))
        taken = in_turns({"product": lambda a=a, b=b: torch.mm(a, b)}, 5, device)["product"]
        best = max(best, 2 * size ** 3 / min(taken))
    return best


def peak_bandwidth(device: torch.device) -> float:
    """Bytes a second of a large copy, each byte read once and written once."""
    size = 2 ** 28 if device.type == "cpu" else 2 ** 31
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    taken = in_turns({"copy": lambda: target.copy_(source)}, 5, device)["copy"]
    return 2 * size / min(taken)
