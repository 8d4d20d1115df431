"""What a benchmark leaves behind: one JSON file for each (benchmark, device), and the command line they share."""
from __future__ import annotations

import argparse
import json
import platform
import re
from datetime import datetime, timezone
from pathlib import Path

import torch

from vixlib.device import pick_device
from vixlib.records import ROOT, environment, write_atomic

RESULTS = ROOT / "data" / "benchmarks"
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def count(text: str) -> int:
    """A whole number of at least 1, from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def named_device(text: str) -> torch.device:
    """A device that works, from the command line."""
    try:
        return pick_device(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser(description: str, batch: tuple[int, int]) -> argparse.ArgumentParser:
    """--device --batch --seed --quick --results. batch: the usual one on a CPU and on a GPU."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", type=named_device, help="cpu or cuda; the GPU if there is none named and one works")
    parser.add_argument("--batch", type=count, help=f"images a step; on a CPU {batch[0]}, on a GPU {batch[1]}")
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller steps; has its own file")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder to write to")
    parser.set_defaults(usual_batch=batch)
    return parser


def device_and_batch(chosen: argparse.Namespace) -> tuple[torch.device, int]:
    """The chosen ones, or the usual ones."""
    device = chosen.device or pick_device()
    return device, chosen.batch or chosen.usual_batch[device.type != "cpu"]


def begin(benchmark: str, device: torch.device, quick: bool, **settings) -> dict:
    """A new record without rows; "finished" stays None until `save` is told that it is."""
    surroundings = environment(device)
    return {"benchmark": benchmark, "quick": quick, "device": surroundings["device"],
            "kind": device.type, "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version(), "torch": surroundings["torch"],
                         "vixlib": surroundings["vixlib"]},
            "commit": surroundings["commit"], "started": now(), "finished": None, "settings": settings, "rows": []}


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def save(record: dict, folder: Path, finished: bool = False) -> Path:
    """Write the record; a later one of the same benchmark, size and device takes its place."""
    if finished:
        record["finished"] = now()
    device = re.sub(r"[^A-Za-z0-9]+", "-", record["device"]).strip("-")
    name = f"{record['benchmark']}_{device}{'_quick' if record['quick'] else ''}.json"
    return write_atomic(folder / name, json.dumps(record, indent=1, allow_nan=False) + "\n")


def read(folder: Path = RESULTS) -> list[dict]:
    """All records of a folder by file name; where a device has a full one, its quick one is left out."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).glob("*.json"))]
    full = {(record["benchmark"], record["device"]) for record in records if not record["quick"]}
    return [record for record in records
            if not record["quick"] or (record["benchmark"], record["device"]) not in full]


def where(record: dict) -> str:
    """One line for a table's foot: when, where and with what it was measured."""
    stopped = "" if record["finished"] else "; stopped before its end"
    return (f"{record['device']}, torch {record['versions']['torch']}, {record['started'][:10]}, "
            f"commit {(record['commit'] or 'unknown')[:12]}{stopped}")


def size(bytes_: float) -> str:
    """"24.1 MiB"."""
    unit, name = next(((unit, name) for unit, name in UNITS if bytes_ >= unit), (1, "B"))
    return f"{bytes_ / unit:.{0 if unit == 1 else 1}f} {name}"


def time(seconds: float) -> str:
    """"12.3 ms", "1.20 s"."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.{1 if seconds >= 0.01 else 2}f} ms"
