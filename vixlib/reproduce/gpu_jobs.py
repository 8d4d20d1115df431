"""What is measured on a GPU instead of trained: the largest batches of Table 2, and the tables' memory columns."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.images import ImageData
from ..device import pick_device, pick_precision
from ..files import listed, write_atomic
from ..measure.limits import cap_memory, largest_batch, real_steps
from ..models.zoo import applicable, build
from ..provenance import environment, now
from ..report import memory
from ..report.batches import batches_folder
from ..report.rows import Row
from .jobs import Outcome, Place


@dataclass(frozen=True)
class BatchJob:
    """The largest batch of one row on a card of `limit_gb` GiB, in each of memory.WAYS; a file in results/batches."""

    row: Row
    config: str
    limit_gb: float

    @property
    def name(self) -> str:
        return f"{self.row.model}_{self.config}_{self.row.position}_in-{self.limit_gb:g}-GB".replace("/", "-")

    def path(self, results: Path) -> Path:
        return batches_folder(results) / f"{self.name}.json"

    def recorded(self, results: Path) -> bool:
        return self.path(results).exists()

    def perform(self, data: ImageData, place: Place, minutes: float | None = None, progress: bool = True,
                on_epoch: Callable | None = None) -> Outcome:
        """Measure and write the file; takes seconds, so what limits and shows a training run has no use here."""
        device = require_gpu(self.name, "vixlib.max_batch_size predicts it")
        cap_memory(self.limit_gb)
        try:
            ways = memory.distinct_ways(self.row.model, self.config)
            largest = {key: self._largest(data, *key, device) for key in dict.fromkeys(ways.values())}
            batches = {way: largest[key] for way, key in ways.items()}
        finally:
            cap_memory(place.memory_gb)
        write_atomic(self.path(place.results), json.dumps(
            {"model": self.row.model, "config": self.config, "position": self.row.position,
             "image_size": list(data.image_size), "memory_limit_gb": self.limit_gb, "largest_batch": batches,
             **environment(device), "finished": now()}, indent=1) + "\n")
        return Outcome(True, f"{self.name}: " + ", ".join(f"{way} {batch}" for way, batch in batches.items()))

    def _largest(self, data: ImageData, precision: str, own: tuple, device: torch.device) -> int:
        position = applicable(self.row.model, {"position": self.row.position}, self.config)
        model = build(self.row.model, self.config, seed=0, image_size=data.image_size, channels=data.channels,
                      num_classes=data.num_classes, **position, **dict(own)).to(device)
        return largest_batch(real_steps(model, pick_precision(device, precision)))


@dataclass(frozen=True)
class ColumnsJob:
    """The memory columns of `models`, measured into the GPU's file in data/memory (see report/memory.py), one model at
    a time, so that what is measured stays when time is over."""

    models: tuple[str, ...]
    name: str = "memory columns"

    def recorded(self, results: Path) -> bool:
        return not self.missing(results)

    def missing(self, results: Path) -> list[str]:
        """The models that no GPU's file holds yet."""
        files = [memory.read_needs(path) for path in listed(self.folder(results), ".json")]
        known = {row["model"] for file in files if file["measured"] for row in file["rows"]}
        return [model for model in self.models if model not in known]

    @staticmethod
    def folder(results: Path) -> Path:
        return results.parent / "memory"

    def perform(self, data: ImageData, place: Place, minutes: float | None = None, progress: bool = True,
                on_epoch: Callable | None = None) -> Outcome:
        """Measure what is missing, within `minutes`."""
        device = require_gpu(self.name, "python -m vixlib.reproduce.memory predicts them")
        started, todo = time.monotonic(), self.missing(place.results)
        cap_memory(None)
        try:
            for done, model in enumerate(todo):
                if done and minutes is not None and time.monotonic() - started > 60 * minutes:
                    return Outcome(False, f"{self.name}: {len(todo) - done} models are left")
                memory.write(self.folder(place.results), device, only=[model])
        finally:
            cap_memory(place.memory_gb)
        return Outcome(True, f"{self.name}: {len(todo)} models measured")


def require_gpu(name: str, instead: str) -> torch.device:
    """The GPU that `name` is measured on; the ValueError where there is none says what to do `instead`."""
    device = pick_device()
    if device.type != "cuda":
        raise ValueError(f"{name}: measured on a GPU, and there is none here; {instead}")
    return device
