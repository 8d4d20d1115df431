"""What each mixer costs as the sequence grows, and from which length on it beats fused softmax attention.

    python -m benchmarks.scaling [--device cpu] [--quick] [--batch 4] [--seconds 8]

The mixers alone, 65 to 16385 tokens (CLS and a square picture's pixels at 8² ... 128²), training (forward and
backward) and inference (forward): seconds, and the most bytes allocated at once. All mixers take turns at each length.
A length that would probably take a mixer longer than --seconds a step, or more memory than there is room for, is left
out, and so are longer ones.
"""
from __future__ import annotations

import sys
from collections.abc import Sequence
from statistics import median

import torch

from vixlib.errors import machine_memory
from vixlib.kernels import training_kernels
from vixlib.mixers import MIXERS
from vixlib.report.benchmarks import COSTS, PHASES, REFERENCE, by_precision, crossings, duration, size
from vixlib.reproduce.arguments import positive
from vixlib.table import Table

from . import record
from .stacks import Shape
from .timing import forward_backward, in_turns, inference, peak_bytes, precisions

TOKENS = [2 ** power + 1 for power in range(6, 15)]
MIXER_OPTIONS = {REFERENCE: ("softmax", {}), "softmax, materialised": ("softmax", {"fused": False}),
                 "performer": ("performer", {}), "linformer": ("linformer", {"rank": Shape.landmarks}),
                 "nystrom": ("nystrom", {"num_landmarks": Shape.landmarks}), "linear": ("linear", {}),
                 "fourier": ("fourier", {})}
STEPS = {"training": forward_backward, "inference": inference}


def expected(costs: Sequence[float]) -> float:
    """The cost of twice the length, from the last two: at least twice, at most four times as much."""
    growth = costs[-1] / costs[-2] if len(costs) > 1 else 4.0
    return costs[-1] * min(4.0, max(2.0, growth))


def room(device: torch.device) -> int:
    """Bytes that a step may take: most of what is free on a GPU, a quarter of a computer's memory."""
    if device.type == "cuda":
        return int(0.8 * torch.cuda.mem_get_info(device)[0])
    return (machine_memory() or 8 * 2**30) // 4


@training_kernels(deterministic=False)  # as fit trains
def measure_length(names: Sequence[str], shape: Shape, precision: str, device: torch.device,
                   rounds: int) -> dict[str, dict]:
    """name -> {"seconds": {phase}, "bytes": {phase}} at one length, all of them in turns."""
    x = torch.randn(shape.batch, shape.tokens, shape.dim).to(device)
    steps, found = {}, {}
    for name in names:
        kind, options = MIXER_OPTIONS[name]
        mixer = MIXERS[kind](shape.dim, heads=shape.heads, dim_head=shape.dim_head, seq_len=shape.tokens,
                             **options).to(device)
        steps |= {(name, phase): make(mixer, x, precision) for phase, make in STEPS.items()}
        found[name] = {"seconds": {}, "bytes": {phase: peak_bytes(steps[name, phase], device) for phase in PHASES}}
    for (name, phase), taken in in_turns(steps, rounds, device).items():
        found[name]["seconds"][phase] = median(taken)
    return found


def empty_rows(precision: str) -> list[dict]:
    """One row a mixer: the lengths measured, the costs at each, and the lengths left out."""
    return [{"mixer": name, "precision": precision, "tokens": [], "left_out": [],
             **{what: {phase: [] for phase in PHASES} for what in ("seconds", "bytes")}} for name in MIXER_OPTIONS]


def extend(rows: list[dict], length: int, device: torch.device, batch: int, rounds: int,
           limits: dict[str, float]) -> None:
    """Measure one length more, about twice the last. limits: "seconds" and "bytes" of a training step."""
    able = [row["mixer"] for row in rows if not row["left_out"] and (not row["tokens"] or all(
        expected(row[what]["training"]) <= limit for what, limit in limits.items()))]
    shape = Shape(batch=batch, tokens=length)
    found = measure_length(able, shape, rows[0]["precision"], device, rounds) if able else {}
    for row in rows:
        if row["mixer"] not in found:
            row["left_out"].append(length)
            continue
        row["tokens"].append(length)
        for what, phase in COSTS:
            row[what][phase].append(found[row["mixer"]][what][phase])


def costs(found: dict) -> list[Table]:
    """Seconds and bytes at every length."""
    return [Table(f"{what.capitalize()}, training | inference ({under})",
                  ["tokens", *(row["mixer"].replace(", ", ",\n") for row in rows)],
                  [[f"{n:,}", *(pair(row, what, n, text) for row in rows)] for n in found["settings"]["tokens"]])
            for rows, under in by_precision(found)
            for what, text in (("seconds", duration), ("bytes", size))]


def pair(row: dict, what: str, tokens: int, text) -> str:
    if tokens not in row["tokens"]:
        return "left out"
    place = row["tokens"].index(tokens)
    return " | ".join(text(row[what][phase][place]) for phase in PHASES)


def main(arguments: list[str] | None = None) -> int:
    parser = record.parser(__doc__.split("\n")[0], batch=(4, 16))
    parser.add_argument("--seconds", type=positive, default=8.0, help="the longest training step to measure; 8")
    chosen = parser.parse_args(arguments)
    device, batch = record.device_and_batch(chosen)
    tokens = [n for n in TOKENS if n <= 4097] if chosen.quick else TOKENS
    rounds = 3 if chosen.quick else 7
    shape = Shape(batch=batch)
    found = record.begin("scaling", device, chosen.quick, batch=batch, dim=shape.dim, heads=shape.heads,
                         dim_head=shape.dim_head, tokens=tokens, rounds=rounds, seed=chosen.seed,
                         limits={"seconds": chosen.seconds, "bytes": room(device)})
    torch.manual_seed(chosen.seed)
    for precision in precisions(device):
        rows = empty_rows(precision)
        found["rows"] += rows
        for length in tokens:
            extend(rows, length, device, batch, rounds, found["settings"]["limits"])
            record.save(found, chosen.results)
            print(".", end="", file=sys.stderr, flush=True)
    path = record.save(found, chosen.results, finished=True)
    print("", *costs(found), *crossings(found), f"written to {path}", sep="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
