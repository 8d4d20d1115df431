"""What a benchmark leaves behind: one JSON file for each (benchmark, device), and the command line they share."""
from __future__ import annotations

import argparse
import json
import platform
import warnings
from pathlib import Path

import torch

from vixlib.device import pick_device
from vixlib.errors import require_room
from vixlib.files import file_part, require_writable, write_atomic
from vixlib.provenance import environment, now
from vixlib.report.benchmarks import BENCHMARKS
from vixlib.reproduce.arguments import count, folder, seed


def writable_folder(text: str) -> Path:
    """A folder that can be written to, from the command line: before anything is measured that could not be kept."""
    path = folder(text)
    try:
        require_writable(path / "any")
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return path


def batch_size(text: str) -> int:
    """A batch whose tokens alone this machine can hold."""
    size = count(text)
    try:
        require_room(size * 1025 * 128, batch=size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return size


def named_device(text: str) -> torch.device:
    """A device that works, from the command line; a CPU's figures must not stand where a GPU's were asked for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            return pick_device(text, argument="device")
    except (ValueError, RuntimeWarning) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser(description: str, batch: tuple[int, int]) -> argparse.ArgumentParser:
    """--device --batch --seed --quick --results. batch: the usual one on a CPU and on a GPU."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", type=named_device, help="cpu or cuda; the GPU if there is none named and one works")
    parser.add_argument("--batch", type=batch_size, help=f"images a step; on a CPU {batch[0]}, on a GPU {batch[1]}")
    parser.add_argument("--seed", type=seed, default=0, help="of weights and inputs")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller steps; has its own file")
    parser.add_argument("--results", type=writable_folder, default=BENCHMARKS, help="the folder to write to")
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


def save(record: dict, folder: Path, finished: bool = False) -> Path:
    """Write the record; a later one of the same benchmark, size, device and compiler mode takes its place."""
    if finished:
        record["finished"] = now()
    device = file_part(record["device"])
    mode = record["settings"].get("compile")
    name = f"{record['benchmark']}_{device}{f'_{mode}' if mode else ''}{'_quick' if record['quick'] else ''}.json"
    return write_atomic(folder / name, json.dumps(record, indent=1, allow_nan=False) + "\n")
