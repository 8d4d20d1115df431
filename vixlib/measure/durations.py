"""How long a notebook takes here: minutes measured elsewhere, scaled by one quick training step on both machines."""
from __future__ import annotations

import json
from pathlib import Path

import torch

from ..device import device_name
from ..errors import require_kinds, require_mapping, require_type
from ..files import DATA, changing, write_atomic
from ..models.zoo import build
from ..provenance import environment, now
from .speed import throughput

MINUTES = DATA / "minutes.json"
KINDS = {**dict.fromkeys(("notebook", "profile", "data", "device", "kind", "finished"), str),
         **dict.fromkeys(("seconds", "images_per_second"), (int, float))}
# The yardstick's model and batch: large enough to keep the device busy, small enough for a fraction of a second.
STEPS = {"cpu": ({"patch_size": 4, "dim": 64, "depth": 2, "dim_head": 16, "mlp_dim": 128}, 64),
         "cuda": ({"patch_size": 2}, 128)}


def yardstick(device: torch.device | str) -> float:
    """Images a second of a small ViT's training step on `device`; torch's random numbers stay as they were."""
    device = torch.device(device)
    options, batch = STEPS[device.type]
    return throughput(build("ViT", seed=0, **options).to(device), batch, repeats=5)


def read_minutes(path: str | Path = MINUTES) -> list[dict]:
    """The measured notebooks, [{notebook, profile, data, seconds, images_per_second, device, kind, ...}]; none: []."""
    if not Path(path).exists():
        return []
    try:
        rows = json.loads(Path(path).read_bytes())
        require_type("the file", rows, list, "a list")
        for row in rows:
            require_mapping("a row", row)
            require_kinds(row, KINDS, "a row")
    except (RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no minutes of notebooks ({error}); restore it or delete it") from error
    return rows


def write_minutes(notebook: str, profile: str, data: str, seconds: float, images_per_second: float,
                  device: torch.device | str, path: str | Path = MINUTES) -> None:
    """Keep what a notebook took and how fast `yardstick` was beside it; an older row of the same device goes."""
    row = {"notebook": notebook, "profile": profile, "data": data, "seconds": round(seconds, 1),
           "images_per_second": round(images_per_second, 1), "kind": torch.device(device).type,
           **environment(device), "finished": now()}
    with changing(Path(path)):
        rows = {_key(old): old for old in read_minutes(path)} | {_key(row): row}
        write_atomic(path, json.dumps([rows[key] for key in sorted(rows)], indent=1) + "\n")


def _key(row: dict) -> tuple[str, str, str, str]:
    return row["notebook"], row["profile"], row["data"], row["device"]


def notebook_time(notebook: str, profile: str, data: str, device: torch.device | str,
                  path: str | Path = MINUTES) -> str:
    """In words: how long `notebook` takes at `profile` with pictures `data` on `device`, with nothing changed in its
    form, or "unknown".

    Where several machines have measured it, one of the same name counts, else the latest of the same kind. A GPU is
    never estimated from a CPU, nor one profile or data set from another.
    """
    kind, name = torch.device(device).type, device_name(device)
    wanted = notebook, profile, data.removesuffix("-jpg"), kind  # a JPEG copy has as many pictures as its original
    rows = [row for row in read_minutes(path)
            if (row["notebook"], row["profile"], row["data"].removesuffix("-jpg"), row["kind"]) == wanted]
    if not rows:
        return (f"unknown: {notebook} has not been measured at {profile} with {data} on a "
                f"{'GPU' if kind == 'cuda' else 'CPU'} yet")
    row = max(rows, key=lambda row: (row["device"] == name, row["finished"]))
    faster = yardstick(device) / row["images_per_second"]
    return (f"about {readable(row['seconds'] / faster)} for the whole notebook with an unchanged form "
            f"(recorded: {readable(row['seconds'])} on {row['device']}, where a step takes {faster:.1f} times as long)")


def readable(seconds: float) -> str:
    """"40 s", "12 min", "3.2 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
