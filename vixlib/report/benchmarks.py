"""The recorded benchmarks of data/benchmarks: reading them, and from how many tokens on a mixer beats fused softmax."""
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression

from ..errors import require_kinds, require_mapping
from ..files import DATA, listed
from ..measure.cost import crossing
from ..table import Table

BENCHMARKS = DATA / "benchmarks"
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
LONG = 512  # slopes are fitted from here on, where the work outweighs the calls
REFERENCE = "softmax, fused"
PHASES = ("training", "inference")
KINDS = {"benchmark": str, "device": str, "kind": str, "quick": bool, "versions": dict, "started": str,
         "settings": dict, "rows": list}  # of a record
COSTS = [(what, phase) for what in ("seconds", "bytes") for phase in PHASES]


def read(folder: Path = BENCHMARKS, benchmark: str | None = None) -> list[dict]:
    """The records of a folder (of one benchmark) by file name; where a device has a full one, not its quick one."""
    records = [_record(path) for path in listed(Path(folder), ".json")]
    full = {(record["benchmark"], record["device"]) for record in records if not record["quick"]}
    return [record for record in records
            if benchmark in (None, record["benchmark"])
            and (not record["quick"] or (record["benchmark"], record["device"]) not in full)]


def _record(path: Path) -> dict:
    """The benchmark in the file `path`; the ValueError for something else names it."""
    try:
        record = json.loads(path.read_bytes())
        require_mapping("it", record)
        require_kinds(record, KINDS, "it")
    except (OSError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no benchmark ({error}); restore it or delete it") from error
    return record


def published_peaks() -> list[tuple[dict[str, int], str]]:
    """(each model's peak bytes of a float32 training step by the authors' formulas, how measured) for each device on
    which benchmarks.peers has run."""
    return [({row["model"]: row["measured"]["float32"]["peak"]["theirs"] for row in found["rows"]
              if row["against"] == "authors' form" and row["status"] == "measured"},
             "measured: batch {batch}, {tokens:,} tokens, {heads} heads of {dim_head}; ".format(**found["settings"])
             + where(found)) for found in read(benchmark="peers")]


def where(record: dict) -> str:
    """One line for a table's foot: when, where and with what it was measured."""
    stopped = "" if record["finished"] else "; stopped before its end"
    return (f"{record['device']}, torch {record['versions']['torch']}, {record['started'][:10]}, "
            f"commit {(record['commit'] or 'unknown')[:12]}{stopped}")


def size(bytes_: float) -> str:
    """"24.1 MiB"."""
    unit, name = next(((unit, name) for unit, name in UNITS if bytes_ >= unit), (1, "B"))
    return f"{bytes_ / unit:.{0 if unit == 1 else 1}f} {name}"


def duration(seconds: float) -> str:
    """"12.3 ms", "1.20 s"."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.{1 if seconds >= 0.01 else 2}f} ms"


def slope(tokens: Sequence[int], costs: Sequence[float]) -> float | None:
    """The exponent p of cost = c·Nᵖ by least squares on logarithms; None for fewer than three lengths."""
    if len(tokens) < 3:
        return None
    return linear_regression([math.log(n) for n in tokens], [math.log(cost) for cost in costs]).slope


def begins(reference: dict, row: dict, what: str, phase: str) -> str:
    """From which number of tokens on `row` is cheaper than `reference`, in words."""
    tokens = [n for n in row["tokens"] if n in reference["tokens"]]
    found = crossing(tokens, reference[what][phase][:len(tokens)], row[what][phase][:len(tokens)])
    if found is None:
        return f"not up to {tokens[-1]:,}"
    return "always" if found == tokens[0] else f"{found:,.0f}"


def by_precision(found: dict) -> list[tuple[list[dict], str]]:
    """The rows of each precision, and the words that say what they share."""
    shape = found["settings"]
    return [([row for row in found["rows"] if row["precision"] == precision],
             f"{precision}, batch {shape['batch']}, width {shape['dim']}, {shape['heads']} heads")
            for precision in dict.fromkeys(row["precision"] for row in found["rows"])]


def crossings(found: dict) -> list[Table]:
    """From how many tokens on each mixer beats fused softmax, and the slopes; a table a precision."""
    result = []
    for rows, under in by_precision(found):
        reference = next(row for row in rows if row["mixer"] == REFERENCE)
        result.append(Table(
            f"From how many tokens on a mixer is cheaper than fused softmax attention ({under})",
            ["mixer", "time,\ntraining", "\ninference", "memory,\ntraining", "\ninference",
             "slope of time,\ntraining", "\ninference", "slope of memory,\ntraining", "\ninference"],
            [[row["mixer"], *("-" if row is reference else begins(reference, row, *cost) for cost in COSTS),
              *(exponent(row, *cost) for cost in COSTS)] for row in rows],
            (f"slope: p of cost = c·Nᵖ over the lengths from {LONG} on; memory: the most allocated at once",
             *left_out(rows, found["settings"]["limits"]), where(found))))
    return result


def exponent(row: dict, what: str, phase: str) -> str:
    long = [(n, cost) for n, cost in zip(row["tokens"], row[what][phase], strict=True) if n >= LONG]
    fitted = slope(*zip(*long, strict=True)) if long else None
    return "-" if fitted is None else f"{fitted:.2f}"


def left_out(rows: Sequence[dict], limits: dict[str, float]) -> list[str]:
    found = [f"{row['mixer']} from {row['left_out'][0]:,}" for row in rows if row["left_out"]]
    return [f"left out, because a step would take more than {limits['seconds']:g} s or {size(limits['bytes'])}: "
            + "; ".join(found)] if found else []


def relative(found: dict, tokens: int = 1025) -> list[Table]:
    """Each mixer's costs at `tokens` tokens as multiples of fused softmax's; a table a precision that has them."""
    result = []
    for rows, under in by_precision(found):
        costs = {row["mixer"]: [row[what][phase][row["tokens"].index(tokens)] for what, phase in COSTS]
                 for row in rows if tokens in row["tokens"]}
        if REFERENCE in costs:
            lines = [[mixer, *(f"{cost / unit:.2f}" for cost, unit in zip(own, costs[REFERENCE], strict=True))]
                     for mixer, own in costs.items()]
            result.append(Table(f"Costs at {tokens:,} tokens, as multiples of fused softmax's ({under})",
                                ["mixer", "time,\ntraining", "\ninference", "memory,\ntraining", "\ninference"],
                                lines, ("below 1.00: cheaper than fused softmax", where(found))))
    return result
