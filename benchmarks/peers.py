"""vixlib's blocks against the authors' forms and against other packages: same shapes, same weights, taking turns.

    python -m benchmarks.peers [--device cpu] [--quick] [--tokens 1025] [--batch 8] [--seed 0] [--compile default]

For each pair: seconds of a training step (forward, backward, AdamW) in every round, bytes that autograd keeps, peak
bytes of a step, and how far outputs and input gradients are apart in float64 with the same weights. With --compile
vixlib's step is measured a second time, through torch.compile, against the authors' forms. The exit status is 1 when a
pair with these raises an error.

Each pair has a process of its own, as a training has: what the memory allocator hands out at once and what it asks the
system for depends on what ran before, and changed a pair's ratio on a CPU by a third.
"""
from __future__ import annotations

import copy
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from vixlib.kernels import training_kernels
from vixlib.report.benchmarks import duration, size, where
from vixlib.reproduce.arguments import count
from vixlib.table import Table
from vixlib.train.compiling import MODES

from . import record
from .packages import PACKAGES, Package, installed, load_weights
from .stacks import MODELS, Shape, textbook_stack, vixlib_stack
from .timing import (
    Ratio,
    compiled_steps,
    forward_backward,
    in_turns,
    kept_bytes,
    peak_bytes,
    precisions,
    training_step,
)

TEXTBOOK = "authors' form"
NOTES = ("times faster: the median of the rounds' ratios; both take turns in each round",
         "kept: bytes from forward to backward; peak: the most at once in both, beyond weights; difference: of output "
         "and input gradient with the same weights",
         "ViN: others pad zeros in front, so vixlib's difference is with padding=\"front\", its time and bytes without")


def differences(theirs: nn.Module, ours: nn.Module, x: Tensor) -> dict[str, float]:
    """The largest difference of the output and of the input's gradient, in float64, relative to vixlib's largest."""
    results = []
    for model in (ours, theirs):
        inputs = x.detach().double().requires_grad_()
        out = copy.deepcopy(model).double()(inputs)
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype).to(out)
        results.append((out.detach(), torch.autograd.grad(out, inputs, direction)[0]))
    return {name: float((a - b).abs().max() / a.abs().max())
            for name, a, b in zip(("difference", "gradient_difference"), *results, strict=True)}


def measure(theirs: nn.Module, ours: nn.Module, x: Tensor, rounds: int, mode: str | None = None) -> dict:
    """precision -> {"seconds", "kept", "peak"}, each {"theirs", "vixlib"}; all precisions take turns together.

    mode: of torch.compile; "seconds" then has "compiled", too.
    """
    models = {"theirs": theirs, "vixlib": ours}
    result = {precision: {"seconds": {},
                          "kept": {side: kept_bytes(model, x, precision) for side, model in models.items()},
                          "peak": {side: peak_bytes(forward_backward(model, x, precision), x.device)
                                   for side, model in models.items()}}
              for precision in precisions(x.device)}
    steps = {(precision, side): training_step(model, x, precision)
             for precision in result for side, model in copy.deepcopy(models).items()}
    if mode:
        steps |= {(precision, "compiled"): step for precision, step in compiled_steps(ours, x, result, mode).items()}
    for (precision, side), taken in in_turns(steps, rounds, x.device).items():
        result[precision]["seconds"][side] = taken
    return result


def compare(model: str, against: str, shape: Shape, device: torch.device, seed: int, rounds: int,
            build: Callable[[nn.Sequential], nn.Module], options: dict | None = None, mode: str | None = None) -> dict:
    """One row. build: makes their stack with the weights of vixlib's. options: of vixlib's for the difference.
    mode: see `measure`."""
    torch.manual_seed(seed)
    ours = vixlib_stack(model, shape).to(device)
    x = torch.randn(shape.batch, shape.tokens, shape.dim).to(device)
    row = {"model": model, "against": against, "mlp_dim": shape.mlp_dim, "status": "measured"}
    try:
        with training_kernels(deterministic=False):  # as fit trains; after the first use of a GPU, which it asks
            theirs = build(ours).to(device)
            twin = vixlib_stack(model, shape, **(options or {})).to(device)
            twin.load_state_dict(ours.state_dict())
            row |= differences(theirs, twin, x[:2])
            return {**row, "measured": measure(theirs, ours, x, rounds, mode)}
    except torch.OutOfMemoryError:
        return {**row, "status": "out of memory"}


def against_textbook(model: str, shape: Shape, device: torch.device, seed: int, rounds: int,
                     mode: str | None = None) -> dict:
    def build(ours: nn.Sequential) -> nn.Module:
        theirs = textbook_stack(model, shape)
        theirs.load_state_dict(ours.state_dict())
        return theirs

    return compare(model, TEXTBOOK, shape, device, seed, rounds, build,
                   {"padding": "front"} if model == "ViN" else {}, mode)


def against_package(package: Package, shape: Shape, device: torch.device, seed: int, rounds: int) -> dict:
    """A row as the others; a package that is absent or fails is a row that says so."""
    row = {"model": package.model, "against": package.name, "version": installed(package.name)}
    if row["version"] is None:
        return {**row, "status": "not installed"}
    if package.ff_factor is not None:
        shape = replace(shape, mlp_dim=package.ff_factor * shape.dim)

    def build(ours: nn.Sequential) -> nn.Module:
        theirs = package.build(shape)
        load_weights(theirs, ours, package.names)
        return theirs

    try:
        return {**row, "differs": package.differs,
                **compare(package.model, package.name, shape, device, seed, rounds, build, package.options)}
    except Exception as error:  # whatever an old package does with today's torch is the row's result
        return {**row, "status": why(error)}


def why(error: Exception) -> str:
    """The status of a row that could not be measured."""
    return f"raises {type(error).__name__}: {(str(error).strip() or ' ').splitlines()[0].strip()}"


def in_own_process(measured: Callable[..., dict], *arguments) -> dict:
    """measured(*arguments), in a new process with as many threads as this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), torch.set_num_threads,
                             (torch.get_num_threads(),)) as process:
        return process.submit(measured, *arguments).result()


def measured_row(measured: Callable[..., dict], what: str | Package, *arguments) -> dict:
    """The row of a model against the authors' form, or of a package. An error, or the end of its process, is a row
    that says so: the minutes of the other pairs must not be lost with it."""
    try:
        return in_own_process(measured, what, *arguments)
    except Exception as error:
        model, against = (what.model, what.name) if isinstance(what, Package) else (what, TEXTBOOK)
        return {"model": model, "against": against, "status": why(error)}


def table(found: dict) -> Table:
    """The rows of a record; on a GPU also their float32 against our mixed precision, as each would be trained."""
    lines, notes = [], []
    for row in found["rows"]:
        name = f"{row['against']} {row.get('version') or ''}".strip()
        if row["status"] != "measured":
            status, _, reason = row["status"].partition(" ")
            raises = status == "raises"
            lines.append([row["model"], name, "raises, see below" if raises else row["status"], *[""] * 8])
            notes += [f"{name} {row['model']} raises {reason.split('. ')[0]}"] if raises else []
            continue
        each = row["measured"]
        pairs = [(precision, precision) for precision in each]
        pairs += [("float32", precision) for precision in each if precision != "float32"]
        apart = f"{row['difference']:.0e} / {row['gradient_difference']:.0e}"
        lines += [[row["model"], name, theirs if theirs == ours else f"{theirs} / {ours}",
                   *cells(each[theirs], each[ours]), apart] for theirs, ours in pairs]
        lines += [[row["model"], name, f"{theirs} / compiled {ours}", *times(each[theirs], each[ours], "compiled"),
                   *[""] * 5] for theirs, ours in pairs if "compiled" in each[ours]["seconds"]]
    shape = found["settings"]
    notes += dict.fromkeys(f"{row['model']} of others {row['differs']}" for row in found["rows"] if row.get("differs"))
    notes += [f"compiled: by torch.compile, mode {shape['compile']!r}"] if shape.get("compile") else []
    return Table(
        f"A training step of {shape['depth']} block(s), batch {shape['batch']}, {shape['tokens']} tokens, width "
        f"{shape['dim']}, {shape['heads']} heads of {shape['dim_head']}: theirs against vixlib",
        ["model", "against", "precision", "theirs", "vixlib", "times faster\n(min-max)", "kept\ntheirs / vixlib",
         "times\nless", "peak\ntheirs / vixlib", "times\nless", "difference, float64\noutput / gradient"],
        lines, (*NOTES, *notes, where(found)), left=(0, 1, 2))


def times(theirs: dict, ours: dict, side: str = "vixlib") -> list[str]:
    """Cells: their seconds, those of `side`, the ratio."""
    a, b = theirs["seconds"]["theirs"], ours["seconds"][side]
    return [duration(median(a)), duration(median(b)), str(Ratio.of(a, b))]


def cells(theirs: dict, ours: dict) -> list[str]:
    """Those of `times`, and of the bytes kept and at the peak."""
    bytes_ = [(theirs[what]["theirs"], ours[what]["vixlib"]) for what in ("kept", "peak")]
    return [*times(theirs, ours),
            *(cell for pair in bytes_ for cell in (" / ".join(map(size, pair)), f"{pair[0] / pair[1]:.2f}"))]


def main(arguments: list[str] | None = None) -> int:
    parser = record.parser(__doc__.split("\n")[0], batch=(8, 64))
    parser.add_argument("--tokens", type=count, default=Shape.tokens, help="of the sequence; 1025")
    parser.add_argument("--depth", type=count, help="blocks; 4, with --quick 1")
    parser.add_argument("--compile", choices=MODES.values(), help="also measure vixlib through torch.compile so")
    parser.add_argument("--rounds", type=count, help="15, with --quick 7")
    chosen = parser.parse_args(arguments)
    device, batch = record.device_and_batch(chosen)
    shape = Shape(batch=batch, tokens=chosen.tokens, depth=chosen.depth or (1 if chosen.quick else 4),
                  landmarks=min(Shape.landmarks, chosen.tokens))
    rounds = chosen.rounds or (7 if chosen.quick else 15)
    found = record.begin("peers", device, chosen.quick, **asdict(shape), seed=chosen.seed, rounds=rounds,
                         compile=chosen.compile)
    for measured, what in [*((partial(against_textbook, mode=chosen.compile), model) for model in MODELS),
                           *((against_package, package) for package in PACKAGES)]:
        found["rows"].append(measured_row(measured, what, shape, device, chosen.seed, rounds))
        print(".", end="", file=sys.stderr, flush=True)
        record.save(found, chosen.results)
    path = record.save(found, chosen.results, finished=True)
    print(f"\n{table(found)}\nwritten to {path}")
    return int(any(row["against"] == TEXTBOOK and row["status"].startswith("raises") for row in found["rows"]))


if __name__ == "__main__":
    raise SystemExit(main())
