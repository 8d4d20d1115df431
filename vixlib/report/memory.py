"""What a training step of every system needs in memory, by `python -m vixlib.reproduce.memory` once, then from a file.

On a CPU the figures are predictions, on a GPU measurements; each has its own file in data/memory, and every table says
which it shows.
"""
from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from ..device import device_name, is_out_of_memory, pick_device
from ..errors import as_path, require_kinds
from ..files import DATA, changing, file_part, require_writable, write_atomic
from ..measure.memory import CARD_GB, MARGIN, max_batch_size, peak_memory, predict_peak_memory, saved_bytes_per_image
from ..models.zoo import CONFIGS, applicable, build, names, settings
from ..provenance import environment
from ..table import Table
from ..train.rules import NUMBER, OR_NONE
from .records import read_records, record_name
from .rows import table_rows
from .speeds import SPEED_HEADER, SPEED_NOTE, speed_cells

MEMORY = DATA / "memory"
BATCH = 64
# How softmax attention may be computed, dearest first: as the paper ran it, in half precision, and as one would today.
WAYS = {"float32, matrix stored": ("float32", False), "mixed, matrix stored": ("float16", False),
        "mixed, fused": ("float16", True)}


def needs(name: str, config: str, device: torch.device) -> dict:
    """One system: bytes kept an image, peak bytes of a step at batch 64 three ways (None: out of memory), and the
    largest batch in 16 GB the last way, predicted."""
    model, ways = build(name, config), distinct_ways(name, config)
    peaks = {(precision, options): _peak(build(name, config, **dict(options)).to(device), precision)
             for precision, options in dict.fromkeys(ways.values())}
    return {"model": name, "config": config, "parameters": sum(p.numel() for p in model.parameters()),
            "kept_bytes_per_image": saved_bytes_per_image(model),
            "peak_bytes": {way: peaks[key] for way, key in ways.items()},
            "largest_batch": max_batch_size(model, CARD_GB, "float16"), **environment(device)}


def distinct_ways(name: str, config: str) -> dict[str, tuple[str, tuple]]:
    """Each of WAYS as (precision, build options) of a system: most have no `fused`, so that two ways are one."""
    return {way: (precision, tuple(applicable(name, {"fused": fused}, config).items()))
            for way, (precision, fused) in WAYS.items()}


def _peak(model: nn.Module, precision: str) -> int | None:
    try:
        return peak_memory(model, BATCH, precision).bytes
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None


def write(folder: Path = MEMORY, device: torch.device | None = None, only: list[str] | None = None) -> Path:
    """Compute the needs of every system on `device` and write their file; `only`: these names, the others stay. Each
    row says by which versions it was computed."""
    device = device or pick_device()
    path = folder / f"{'predicted' if device.type == 'cpu' else file_part(device_name(device))}.json"
    require_writable(path)  # before minutes are spent on what could not be kept
    if path.exists():
        read_needs(path)
    for name in only or names():
        for config in CONFIGS:
            # Where both configurations are the same model, one row serves both.
            if config == "uniform" or settings(name, config) != settings(name, "uniform"):
                row = needs(name, config, device)
                _update(path, device, row=row)
                print(f"{name} {config}: {row['peak_bytes']}")
    known = read_needs(path)["records"] if only else {}  # computed by an older vixlib, they may no longer be true
    # Of recorded runs predictions alone are read, and a borrowed GPU's minutes are dear.
    _update(path, device, records={} if device.type == "cuda" else
            {record_name(record): known.get(record_name(record)) or _predict_peak(record)
             for record in read_records() if record["model"] in names()})
    return path


def _update(path: Path, device: torch.device, row: dict | None = None, records: dict | None = None) -> None:
    """Put a system's `row`, or what was predicted of `records`, into the file, whatever else others put there."""
    with changing(path):
        held = read_needs(path) if path.exists() else {"rows": [], "records": {}}
        rows = {(one["model"], one["config"]): one for one in (*held["rows"], *([row] if row else []))}
        content = {"measured": device.type == "cuda", "batch_size": BATCH, "memory_gb": CARD_GB, **environment(device),
                   "rows": [rows[key] for key in sorted(rows)],
                   "records": held["records"] if records is None else records}
        write_atomic(path, json.dumps(content, indent=1) + "\n")


def _predict_peak(record: dict) -> int:
    return predict_peak_memory(recorded_model(record), record["train"]["batch_size"], "float32").bytes


def recorded_model(record: dict) -> nn.Module:
    """The model that a record describes, with fresh weights; of CIFAR-10's shape where it does not tell its own."""
    pictures = {name: tuple(value) if isinstance(value, list) else value
                for name, value in record.get("pictures", {}).items()}
    position = applicable(record["model"], {"position": record["position"]}, record["config"])
    return build(record["model"], config=record["config"], seed=0, **pictures, **position,
                 **record["options"])


def read_needs(path: Path) -> dict:
    """What `write` wrote into `path`; the ValueError for something else names it."""
    try:
        return parse_needs(path.read_bytes())
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no memory figures ({type(error).__name__}: {error}); "
                         "delete it, and run python -m vixlib.reproduce.memory") from error


def parse_needs(content: bytes) -> dict:
    """The figures in the content of a file; a KeyError, TypeError or ValueError says what is wrong with it."""
    held = json.loads(content)
    require_kinds(held, {"rows": list, "device": str, "torch": str, "measured": bool, "records": dict}, "a memory file")
    require_kinds(held["records"], dict.fromkeys(held["records"], int), "records")
    for row in held["rows"]:
        require_kinds(row, {"model": str, "config": str, "parameters": int, "kept_bytes_per_image": NUMBER,
                            "peak_bytes": dict, "largest_batch": int}, "a row")
        require_kinds({way: row["peak_bytes"][way] for way in WAYS}, dict.fromkeys(WAYS, OR_NONE), "peak_bytes")
    return held


def _file(path: Path) -> dict:
    """What `path` holds, read anew where it has changed: a notebook may live for days."""
    changed = path.stat()
    return _read_once(path, changed.st_mtime_ns, changed.st_size)


@lru_cache(maxsize=8)
def _read_once(path: Path, *_changed: int) -> dict:
    return read_needs(path)


def predicted_peak(record: dict) -> int:
    """Predicted bytes at the peak of a recorded run's training step, float32: from the file, else computed."""
    path = MEMORY / "predicted.json"
    known = _file(path)["records"] if path.exists() else {}
    return known.get(record_name(record)) or _predict_peak(record)


def stored(folder: Path = MEMORY) -> tuple[dict[tuple[str, str], dict], str]:
    """The needs by (name, config), measured ones where a GPU has measured any, and a line that says what they are."""
    files = [_file(path) for path in sorted(folder.glob("*.json"))]
    # A file that a GPU has filled in part comes last: it would leave the other systems' cells empty.
    files.sort(key=lambda file: (not {row["model"] for row in file["rows"]} >= set(names()), not file["measured"]))
    if not files:
        raise FileNotFoundError(f"{folder} holds no memory figures; run python -m vixlib.reproduce.memory")
    chosen = files[0]
    rows = {(row["model"], row["config"]): row for row in chosen["rows"]}
    for name in names():
        if (name, "uniform") in rows:
            rows.setdefault((name, "paper"), rows[name, "uniform"])
    how = f"measured on {chosen['device']}" if chosen["measured"] else "predicted, not measured on a GPU yet"
    return rows, f"{how} (torch {chosen['torch']})"


def cost_table(table: int | str, results: str | Path | None = None) -> Table:
    """What each row of a paper's table costs in memory and time, beside the memory that the paper printed; not of Table
    2, whose figures are for a batch size a row, nor of the positions, whose systems have other layers.

    results: the folder of recorded runs; None: the project's.
    """
    if table == 2:
        raise ValueError(f"table=2 has a batch size for each row, and these costs are for batches of {BATCH}; use "
                         "table=1, which has the same systems")
    if table == "rope":
        raise ValueError("table='rope' compares systems with uniform layers, and these costs are of the paper's; use "
                         "table=1 or table=3, which have the same systems")
    rows, source = stored()
    # Of the paper's layers: as a whole configuration, or where a system has but one.
    records = [record for record in read_records(results) if not record["options"] and record["model"] in names()
               and settings(record["model"], record["config"]) == settings(record["model"], "paper")]
    lines = []
    for row in table_rows(table):
        paper = f"{row.printed['gpu_gb']:.2f}".removesuffix("0") if "gpu_gb" in row.printed else "-"
        own = [record for record in records if (record["model"], record["position"]) == (row.model, row.position)]
        lines.append([row.model, paper, *_cells(rows[row.model, "paper"]),
                      *speed_cells(own, row.printed.get("top1"))])
    return Table(f"What a training step costs, the systems of table {table} with the paper's layers",
                 ["system", "paper\nGPU (GB)", *HEADER, *SPEED_HEADER], lines, (*_notes(source), SPEED_NOTE))


def fits_table(folder: str | Path = MEMORY) -> Table:
    """What fits into 16 GB, for every system that the file holds, uniform, at CIFAR-10's shape, a token a pixel."""
    rows, source = stored(as_path("folder", folder))
    return Table(f"What fits into {CARD_GB} GB, every system with uniform layers", ["system", *HEADER],
                 [[name, *_cells(rows[name, "uniform"])] for name in names() if (name, "uniform") in rows],
                 _notes(source))


HEADER = ["kept for backward\nMiB an image", *(f"{way.replace(', ', chr(10))} (GB)" for way in WAYS),
          f"largest batch\nin {CARD_GB} GB"]


def _cells(row: dict) -> list[str]:
    peaks = ("out of memory" if peak is None else f"{peak / 2**30:.2f}" for peak in row["peak_bytes"].values())
    return [f"{row['kept_bytes_per_image'] / 2**20:.1f}", *peaks, f"{row['largest_batch']:,}"]


def _notes(source: str) -> tuple[str, ...]:
    return (f"GB: 2^30 bytes at the peak of a step at batch {BATCH}, {source}",
            "matrix stored: softmax attention writes its N×N matrix, as in 2021; no other mixer forms one here, and "
            "their columns differ in precision only",
            "mixed, matrix stored: softmax is computed in float32 then, too, and beside it a half copy is kept for the "
            "product with V: six bytes an entry instead of four",
            f"kept for backward: float32, fused; largest batch: mixed, fused, predicted, {MARGIN - 1:.0%} to spare")
