"""The largest batches that a GPU has let through, found by `python -m vixlib.reproduce --table 2 --batches`."""
from __future__ import annotations

import json
from pathlib import Path

from ..errors import as_path, require_kinds, require_known
from ..files import listed
from ..measure.memory import CARD_GB
from ..models.zoo import CONFIGS, names, position_of
from ..train.rules import NUMBER
from .memory import WAYS
from .records import RESULTS

KINDS = {"model": str, "config": str, "position": str, "memory_limit_gb": NUMBER, "largest_batch": dict, "device": str,
         "finished": str}


def batches_folder(results: Path) -> Path:
    """Where they are kept, beside the records in `results`."""
    return results / "batches"


def parse_batches(content: bytes | str) -> dict:
    """What one file holds: the largest batch of a system in each of memory.WAYS, and how it was found. A TypeError or
    ValueError says what is wrong with it."""
    held = json.loads(content)
    require_kinds(held, KINDS, "a file of largest batches")
    require_known("model", held["model"], names())
    require_kinds(held["largest_batch"], dict.fromkeys(WAYS, int), "the largest batches")
    return held


def largest_batches(way: str, config: str = "paper", results: str | Path | None = None) -> dict[str, str]:
    """The largest batch of each system that was measured on a card of 16 GiB, or a larger one capped to that, in words:
    model -> "812 on NVIDIA H200".

    way: of memory.WAYS, how softmax attention is computed.   config: the zoo's.   results: as in read_records.
    """
    require_known("way", way, WAYS)
    require_known("config", config, CONFIGS)
    found = {}
    for path in listed(batches_folder(RESULTS if results is None else as_path("results", results)), ".json"):
        try:
            held = parse_batches(path.read_bytes())
        except (AttributeError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no largest batches ({error}); delete it, and measure anew") from error
        if (held["config"], held["memory_limit_gb"], held["position"]) == (config, CARD_GB, position_of(held["model"])):
            found[held["model"]] = f"{held['largest_batch'][way]:,} on {held['device']}"
    return found
