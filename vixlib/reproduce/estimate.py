"""How long runs will take on this device: from their own epochs, from records, or from a short measured step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, median

from ..data.images import ImageData
from ..device import pick_device
from ..measure.durations import readable
from ..measure.speed import throughput
from ..train.run import Run
from .jobs import Job

SMALL, PATIENCE = 4, 5.0  # images of a first step; seconds that a step of a whole batch may take to be measured


@dataclass(frozen=True)
class Estimate:
    """Seconds that a run still takes, None if nothing tells; source: what told."""

    seconds: float | None
    source: str

    def __str__(self) -> str:
        return "time unknown" if self.seconds is None else f"{readable(self.seconds)} ({self.source})"


class Estimator:
    """Estimates for one device. records: of finished runs; data: what a step is measured with, None: never measure.

    Runs that shared the device count with their part of it: with four at once, a quarter of each one's seconds.
    """

    def __init__(self, device: str, records: Iterable[dict], data: ImageData | None = None) -> None:
        self.device, self.data = device, data
        self.records = [r for r in records if r["device"] == device and r["images_per_second"]]
        self.measured: dict[str, float] = {}

    def of(self, job: Job, run: Run | None = None) -> Estimate:
        """What `job` still takes, given its `run` so far."""
        left = job.epochs - (len(run.history) if run else 0)
        if run is not None and run.device == self.device and run.history:
            return Estimate(left * _epoch_seconds(run.history, run.calls), "its own epochs")
        wanted = _setting(job.identity(), job.train_config.batch_size)
        found = [_epoch_seconds(r["history"], r.get("calls", []), r.get("concurrent_runs", 1))
                 for r in self.records if _setting(r, r["train"]["batch_size"]) == wanted]
        if found:
            return Estimate(left * median(found), "records")  # one may have been made on a busy machine
        if self.data is None:
            return Estimate(None, "")
        return Estimate(left * self._measured(job, str(wanted)), "a measured step")

    def _measured(self, job: Job, key: str) -> float:
        """Seconds an epoch, from training steps; the forward passes of evaluation cost a third of training's."""
        if key not in self.measured:
            model, batch = job.build(self.data).to(pick_device()), job.train_config.batch_size
            speed = throughput(model, min(batch, SMALL), repeats=1)
            if batch / speed < PATIENCE:  # a whole batch: what a step costs beside its images counts in small models
                speed = throughput(model, batch, repeats=3)
            self.measured[key] = (len(self.data.train_labels) + len(self.data.test_labels) / 3) / speed
        return self.measured[key]


def _epoch_seconds(history: list[dict], calls: list[dict], shared_by: int = 1) -> float:
    """Seconds an epoch, each divided by how many runs shared the device just then. shared_by: where no call tells."""
    def sharing(epoch: int) -> int:
        return next((call["concurrent_runs"] for call in reversed(calls) if call["from_epoch"] <= epoch), shared_by)

    return mean(epoch["seconds"] / sharing(epoch["epoch"]) for epoch in history)


def _setting(fields: dict, batch_size: int) -> dict:
    """What the speed of a run depends on: its identity but for the seed, and the batch."""
    return {**{name: fields[name] for name in ("dataset", "model", "config", "position", "options")},
            "batch_size": batch_size}
