"""How near each model's training step comes to what this machine could do at best.

    python -m benchmarks.roofline [--device cpu] [--quick] [--batch 8] [--models ViT ViN] [--compile reduce-overhead]

The floor of a step is the larger of two times: its multiplications at the machine's best matrix product, and the bytes
that have to move at the machine's best copy. Both bests are measured in the same run.
  FLOPs: what torch's counter sees in forward and backward: matrix products, convolutions, fused attention.
  bytes that have to move: each tensor kept for backward is written and read once, and so is its gradient; AdamW reads
  four and writes three numbers for each parameter.
Beside it, the bytes that the operators read and write when each runs alone, which is what eager mode does. With
--compile the step is measured a second time, through torch.compile: on a fast GPU an eager step of models this small is
the time that it takes to launch its kernels.
"""
from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vixlib.kernels import training_kernels
from vixlib.models import build, names
from vixlib.report.benchmarks import duration, where
from vixlib.table import Table
from vixlib.train.compiling import MODES

from . import record
from .stacks import MODELS
from .timing import compiled_steps, in_turns, kept_bytes, peak_bandwidth, peak_flops, precisions, training_step

ADAMW_BYTES = 7 * 4  # a parameter: reads weight, gradient and both moments, writes all but the gradient


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operators read and write while it is active; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view and not func.__name__.startswith(("empty", "new_empty", "_unsafe_view")):
            read = {name: value for name, value in (kwargs or {}).items() if name not in ("out", "grad_input")}
            self.bytes += sum(t.numel() * t.element_size() for t in tree_leaves((args, read, out))
                              if isinstance(t, Tensor))
        return out


def convolution_backward(gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], *others, **_) -> int:
    """FLOPs by shapes; torch's own formula forgets the groups and counts a depthwise one `channels` times over."""
    *_, output_mask = others
    return sum(output_mask[:2]) * 2 * math.prod(gradient) * math.prod(weight[1:])


def flops(model: nn.Module, images: Tensor, precision: str) -> int:
    """Floating-point operations of a training step, a multiplication and an addition each."""
    step = training_step(model, images, precision)
    with FlopCounterMode(display=False,
                         custom_mapping={torch.ops.aten.convolution_backward: convolution_backward}) as counter:
        step()
    return counter.get_total_flops()


@training_kernels(deterministic=False)  # as fit trains
def measure(name: str, batch: int, device: torch.device, precision: str, machine: dict, rounds: int,
            seed: int, mode: str | None = None) -> dict:
    """One row: seconds of each round, FLOPs, bytes, the floor and which of the two sets it.

    mode: of torch.compile; the row then has "compiled_seconds", too.
    """
    model = build(name, seed=seed).to(device).train()
    images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed)).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    # All grow with the batch alone, so that two images tell, and the counters' overhead stays small.
    few = images[:2]
    operations = flops(model, few, precision) * batch / len(few)
    least = 4 * kept_bytes(model, images, precision) + ADAMW_BYTES * parameters
    step = training_step(model, images, precision)
    step()
    with Traffic() as traffic:
        step()
    steps = {"seconds": step}
    if mode:
        steps["compiled_seconds"] = compiled_steps(model, images, [precision], mode)[precision]
    taken = in_turns(steps, rounds, device)
    compute, memory = operations / machine["flops"], least / machine["bandwidth"]
    return {"model": name, "precision": precision, **taken, "flops": operations, "least_bytes": least,
            "moved_bytes": traffic.bytes, "floor_seconds": max(compute, memory),
            "bound": "compute" if compute > memory else "memory"}


def table(found: dict) -> Table:
    """Each model's step beside its floor."""
    machines = [f"{precision}: {best['flops'] / 1e12:.3g} TFLOP/s, {best['bandwidth'] / 1e9:.3g} GB/s"
                for precision, best in found["machine"].items()]
    mode = found["settings"].get("compile")
    lines = [[row["model"], row["precision"], *_against_floor(row, "seconds"), f"{row['flops'] / 1e9:.1f}",
              f"{row['least_bytes'] / 1e9:.2f}", f"{duration(row['floor_seconds'])}, {row['bound']}",
              f"{row['moved_bytes'] / 1e9:.2f}", *(_against_floor(row, "compiled_seconds") if mode else [])]
             for row in found["rows"]]
    return Table(f"A training step of whole models against the machine's floor, batch {found['settings']['batch']}, "
                 "1025 tokens",
                 ["model", "precision", "step", "floor\nachieved", "GFLOP", "GB that\nhave to move", "floor",
                  "GB moved\nby operators", *(["compiled\nstep", "floor\nachieved"] if mode else [])],
                 lines, (f"machine's best, measured: {'; '.join(machines)}",
                         *([f"compiled: by torch.compile, mode {mode!r}"] if mode else []), where(found)), left=(0, 1))


def _against_floor(row: dict, which: str) -> list[str]:
    """Cells: the seconds of a step, and how much of them the floor is."""
    return [duration(median(row[which])), f"{100 * row['floor_seconds'] / median(row[which]):.0f} %"]


def main(arguments: list[str] | None = None) -> int:
    parser = record.parser(__doc__.split("\n")[0], batch=(8, 64))
    parser.add_argument("--models", nargs="+", choices=names(), default=list(MODELS), metavar="NAME",
                        help=f"of the zoo; {' '.join(MODELS)}")
    parser.add_argument("--compile", choices=MODES.values(), help="also measure the step through torch.compile so")
    chosen = parser.parse_args(arguments)
    device, batch = record.device_and_batch(chosen)
    rounds = 3 if chosen.quick else 9
    found = record.begin("roofline", device, chosen.quick, batch=batch, rounds=rounds, seed=chosen.seed,
                         compile=chosen.compile)
    found["machine"] = {precision: {"flops": peak_flops(device, precision), "bandwidth": peak_bandwidth(device)}
                        for precision in precisions(device)}
    for name in chosen.models:
        for precision, machine in found["machine"].items():
            found["rows"].append(measure(name, batch, device, precision, machine, rounds, chosen.seed, chosen.compile))
            record.save(found, chosen.results)
        print(".", end="", file=sys.stderr, flush=True)
    path = record.save(found, chosen.results, finished=True)
    print(f"\n{table(found)}\nwritten to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
