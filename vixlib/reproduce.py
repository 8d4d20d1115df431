"""Train what a table needs and record it: python -m vixlib.reproduce --table 1 --profile quick --data cifar10-jpg

Runs that are recorded are skipped, unfinished ones go on from their checkpoints, every finished one becomes a
JSON file in data/results. Needs no Jupyter.
"""
from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from .data import ImageData, load
from .device import describe, pick_device
from .measure import count_parameters
from .models.zoo import applicable, build
from .profiles import PROFILES, Profile
from .records import RESULTS, ROOT, environment, read_records, record_name, write_record
from .run import Run
from .tables import TABLES, Row, table_rows
from .train import fit

CHECKPOINTS = ROOT / "data" / "checkpoints"


@dataclass(frozen=True)
class Job:
    """One run that a table needs."""

    table: int | str
    row: Row
    profile: Profile
    dataset: str
    seed: int

    @property
    def config(self) -> str:
        """The zoo's configuration: positions are compared at equal sizes, whatever the profile says."""
        return "uniform" if self.table == "rope" else self.profile.config

    def identity(self) -> dict:
        """The fields of a record that tell this run from every other."""
        return {"dataset": self.dataset, "profile": self.profile.name, "model": self.row.model, "config": self.config,
                "position": self.row.position, "options": self.profile.options_for(self.row.model), "seed": self.seed}

    @property
    def name(self) -> str:
        """The file name of this run's record, without its ending."""
        return record_name(self.identity()).removesuffix(".json")

    def build(self, data: ImageData) -> nn.Module:
        """This run's model for `data`, its weights drawn from the seed."""
        return build(self.row.model, config=self.config, seed=self.seed, image_size=data.image_size,
                     channels=data.channels, num_classes=data.num_classes, **self.identity()["options"],
                     **applicable(self.row.model, {"position": self.row.position}, self.config))

    def train(self, model: nn.Module, data: ImageData, checkpoints: Path, minutes: float | None) -> Run:
        """Train, from this run's checkpoint if there is one; `run.finished` tells whether time sufficed."""
        return fit(model, data, replace(self.profile.train, seed=self.seed),
                   checkpoint=checkpoints / f"{self.name}.pt", minutes=minutes)

    def record(self, model: nn.Module, run: Run) -> dict:
        """The run as its file keeps it (see records.FIELDS)."""
        counts = count_parameters(model)
        return {**self.identity(), "table": self.table, "train": run.config.to_dict(),
                "params": {"true": counts.true, "as_paper": counts.as_paper},
                "history": run.history, "best_top1": run.best_top1, "last_top1": run.last_top1,
                "peak_memory_bytes": run.peak_memory_bytes, "images_per_second": run.images_per_second,
                "memory_limit_gb": None, "precision": run.precision, "started": run.started,
                "finished": run.finished_at, **environment(), "device": run.device}


def plan(table: int | str, profile: Profile, dataset: str, seeds: Iterable[int] = (0,),
         models: Iterable[str] | None = None) -> list[Job]:
    """The runs of a table, one seed of every row before the second seed of any."""
    rows = table_rows(table)
    known = {row.model for row in rows}
    unknown = sorted(set(models or ()) - known)
    if unknown:
        raise ValueError(f"models={unknown} are not in table {table}; it has {', '.join(sorted(known))}")
    return [Job(table, row, profile, dataset, seed) for seed in seeds for row in rows
            if models is None or row.model in set(models)]


def missing(jobs: Iterable[Job], results: Path) -> list[Job]:
    """The jobs without a record in `results`."""
    recorded = {record_name(record) for record in read_records(results)}
    return [job for job in jobs if f"{job.name}.json" not in recorded]


def reproduce(jobs: list[Job], data: ImageData, results: Path, checkpoints: Path = CHECKPOINTS,
              minutes: float | None = None) -> int:
    """Run the missing ones of `jobs` in order until `minutes` are over; returns how many are still missing.

    At least one epoch is trained, so that even a short allowance gets somewhere.
    """
    started, todo = time.monotonic(), missing(jobs, results)
    print(f"{len(jobs) - len(todo)} of {len(jobs)} runs are recorded in {results}; on {describe(pick_device())}")
    for done, job in enumerate(todo):
        left = None if minutes is None else minutes - (time.monotonic() - started) / 60
        if done and left is not None and left <= 0:
            return len(todo) - done
        model = job.build(data)
        run = job.train(model, data, checkpoints, None if left is None else max(left, 1e-9))
        if run.interrupted or not run.finished:
            print(f"stopped after epoch {len(run.history)} of {run.config.epochs} of {job.name}; "
                  "the same command goes on from there")
            return len(todo) - done
        path = write_record(job.record(model, run), results)
        print(f"{run} -> {path.name}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status is 0 when nothing is missing any more, 3 when time ran out before that."""
    parser = argparse.ArgumentParser(prog="python -m vixlib.reproduce", description=__doc__.split("\n")[0])
    parser.add_argument("--table", required=True, choices=[str(table) for table in TABLES])
    parser.add_argument("--profile", default="quick", choices=list(PROFILES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", help="only these rows of the table")
    parser.add_argument("--data", help="name or folder for vixlib.load (default: the profile's)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--checkpoints", type=Path, default=CHECKPOINTS)
    parser.add_argument("--minutes", type=float, help="begin no epoch that would end later than this")
    parser.add_argument("--list", action="store_true", help="say what is recorded and what is missing, train nothing")
    chosen = parser.parse_args(arguments)
    table = int(chosen.table) if chosen.table.isdigit() else chosen.table
    profile = PROFILES[chosen.profile].on(pick_device())
    data = load(chosen.data or profile.data)
    jobs = plan(table, profile, data.name, chosen.seeds, chosen.models)
    if chosen.list:
        todo = missing(jobs, chosen.results)
        for job in jobs:
            print(f"{'missing ' if job in todo else 'recorded'}  {job.name}")
        return 3 if todo else 0
    return 3 if reproduce(jobs, data, chosen.results, chosen.checkpoints, chosen.minutes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
