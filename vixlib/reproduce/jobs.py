"""What there is to run: a Job is one training run of a table; plans, their order, and what is done of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from ..data.images import ImageData
from ..device import pick_device
from ..measure.parameters import count_parameters
from ..models.zoo import applicable, build
from ..profiles import Profile
from ..provenance import SHARED_BY, THEN, VERSIONS, versions
from ..report.records import LOGS, read_record, record_name, write_record
from ..report.rows import LARGEST, Row, table_rows
from ..train import parallel
from ..train.checkpoint import Seen, peek
from ..train.in_use import CheckpointInUse
from ..train.loop import fit
from ..train.parallel import normalises_batches
from ..train.run import Run, TrainConfig, training_settings

# Tables whose rows say with which batch size they were trained, and the profile that takes it from there.
BATCH_OF_ROW = {(2, "paper"), (LOGS, "first-epoch")}


@dataclass(frozen=True)
class Place:
    """Where runs are kept and what they share: the folders, the cap on a process's GPU memory in GiB (None: no cap),
    how many runs are trained on the device at once, and whether they are compiled (see TrainConfig)."""

    results: Path
    checkpoints: Path
    memory_gb: float | None = None
    at_once: int = 1
    compile: bool | str = False


@dataclass(frozen=True)
class Outcome:
    """What became of a job: done or not, one line about it, its longest epoch in seconds, stopped by the user."""

    done: bool
    text: str
    longest_epoch: float = 0.0
    interrupted: bool = False


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

    @property
    def train_config(self) -> TrainConfig:
        """The profile's, with this run's seed and, where it is the row's own, its batch size."""
        own = (self.table, self.profile.name) in BATCH_OF_ROW
        batch_size = self.row.printed["batch_size"] if own else self.profile.train.batch_size
        return replace(self.profile.train, seed=self.seed, batch_size=batch_size)

    def identity(self) -> dict:
        """The fields of a record that tell this run from every other."""
        # ViT's batch in Table 2 is Table 1's.
        largest = self.table == 2 and self.train_config.batch_size != self.profile.train.batch_size
        return {"dataset": self.dataset, "profile": LARGEST if largest else self.profile.name,
                "model": self.row.model, "config": self.config, "position": self.row.position,
                "options": self.profile.options_for(self.row.model, **dict(self.row.options)), "seed": self.seed}

    @property
    def name(self) -> str:
        """The file name of this run's record, without its ending."""
        return record_name(self.identity()).removesuffix(".json")

    @property
    def epochs(self) -> int:
        return self.profile.train.epochs

    def recorded(self, results: Path) -> bool:
        """Whether `results` holds this run: a record's name is made from what tells it from every other. A ValueError
        for a damaged record, which would count as done for ever."""
        return self.found(results) is not None

    def found(self, results: Path) -> dict | None:
        """This run's record."""
        path = results / f"{self.name}.json"
        return read_record(path) if path.exists() else None

    def otherwise(self, record: dict, data: ImageData | None) -> str:
        """In what `record`, this run's, is another than would be made of `data` now, in words; "" if in nothing."""
        if data is not None and record.get("digest", data.digest) != data.digest:
            return f"of other pictures than these, which were called {self.dataset!r} as well"
        now, then = (training_settings({"train": train}) for train in (self.train_config.to_dict(), record["train"]))
        return ", ".join(f"with {name}={then.get(name)}, now {now.get(name)}" for name in {**then, **now}
                         if then.get(name) != now.get(name))

    def progress(self, checkpoints: Path) -> Run | None:
        """The run as its checkpoint holds it, None before the first epoch."""
        begun = self.begun(checkpoints)
        return begun and begun.run

    def begun(self, checkpoints: Path) -> Seen | None:
        """What its checkpoint tells, None before the first epoch."""
        return peek(checkpoints / f"{self.name}.pt")

    def build(self, data: ImageData) -> nn.Module:
        """This run's model for `data`, its weights drawn from the seed."""
        return build(self.row.model, config=self.config, seed=self.seed, image_size=data.image_size,
                     channels=data.channels, num_classes=data.num_classes, **self.identity()["options"],
                     **applicable(self.row.model, {"position": self.row.position}, self.config))

    def train(self, model: nn.Module, data: ImageData, place: Place, minutes: float | None, **more) -> Run:
        """Train, from this run's checkpoint if there is one; `run.finished` tells whether time sufficed."""
        shared = SHARED_BY.set(place.at_once)
        try:
            return fit(model, data, replace(self.train_config, compile=place.compile),
                       checkpoint=place.checkpoints / f"{self.name}.pt", minutes=minutes, **more)
        finally:
            SHARED_BY.reset(shared)

    def record(self, model: nn.Module, run: Run, place: Place, data: ImageData) -> dict:
        """The run as its file keeps it (see records.FIELDS).

        pictures, digest: what they are, and which (see ImageData).
        calls: on what and by which versions its parts were trained; torch, vixlib and commit are the last call's.
        concurrent_runs: how many were trained on the device at once, at most; with more than one, images_per_second
        and the history's seconds are not its speed for this model alone.
        """
        counts = count_parameters(model)
        devices = dict.fromkeys(call["device"] for call in run.calls)
        # What writes the record may be a later version than what trained the run.
        trained_by = {name: call[name] for call in run.calls[-1:] for name in VERSIONS if name in call}
        return {**self.identity(), "table": self.table, "train": run.config.to_dict(),
                "params": {"true": counts.true, "as_paper": counts.as_paper}, "digest": data.digest,
                "pictures": {"image_size": list(data.image_size), "channels": data.channels,
                             "num_classes": data.num_classes},
                "history": run.history, "best_top1": run.best_top1, "last_top1": run.last_top1,
                "peak_memory_bytes": run.peak_memory_bytes, "images_per_second": run.images_per_second,
                "memory_limit_gb": place.memory_gb, "precision": run.precision, "calls": run.calls,
                "concurrent_runs": max([call["concurrent_runs"] for call in run.calls], default=place.at_once),
                "started": run.started, "finished": run.finished_at, **versions(), **trained_by,
                "device": THEN.join(devices) or run.device}

    def perform(self, data: ImageData, place: Place, minutes: float | None = None, progress: bool = True,
                on_epoch: Callable[[Run], None] | None = None) -> Outcome:
        """Train for at most `minutes` and, once finished, write the record. What another process is training, or has
        recorded since the plan was made, is left to it."""
        if parallel.from_first(parallel.rank() == 0 and self.recorded(place.results)):
            return Outcome(True, f"recorded meanwhile: {self.name}")
        model = self.build(data)
        if parallel.size() > 1 and pick_device().type == "cpu" and normalises_batches(model):
            return Outcome(False, f"left out, train it in one process: on CPUs each of {parallel.size()} would "
                                  f"normalise its share of a batch by itself, no run of the table: {self.name}")
        seconds = [0.0]

        def note(run: Run) -> None:
            seconds.append(run.history[-1]["seconds"])
            if on_epoch is not None:
                on_epoch(run)

        try:
            run = self.train(model, data, place, minutes, progress=progress, on_epoch=note)
        except CheckpointInUse as error:
            return Outcome(False, f"left out, another process trains it: {error}")
        if run.interrupted or not run.finished:
            return Outcome(False, f"stopped after epoch {len(run.history)} of {run.config.epochs} of {self.name}; "
                                  "the same command goes on from there", max(seconds), run.interrupted)
        if parallel.rank() == 0:
            write_record(self.record(model, run, place, data), place.results)
        return Outcome(True, f"{run} -> {self.name}.json", max(seconds))


def plan(table: int | str, profile: Profile, dataset: str, seeds: Iterable[int] = (0,),
         models: Iterable[str] | None = None) -> list[Job]:
    """The runs of a table, one seed of every row before the second seed of any."""
    rows = table_rows(table)
    if (profile.name == "first-epoch") != (table == LOGS):  # its runs would have the names of another table's
        raise ValueError(f"table={table!r} and profile={profile.name!r} do not go together: the profile 'first-epoch' "
                         f"repeats the authors' logs, the table {LOGS!r}, with the batch size of each; use both or "
                         "neither")
    known = {row.model for row in rows}
    unknown = sorted(set(models or ()) - known)
    if unknown:
        raise ValueError(f"models={unknown} are not in table {table}; it has {', '.join(sorted(known))}")
    # A seed that is named twice would be two runs at once on one checkpoint.
    return [Job(table, row, profile, dataset, seed) for seed in dict.fromkeys(seeds) for row in rows
            if models is None or row.model in set(models)]


def missing(jobs: Iterable[Job], results: Path) -> list[Job]:
    """The jobs without a record in `results`."""
    return [job for job in jobs if not job.recorded(results)]


def most_missing_first(jobs: Iterable[Job], results: Path, checkpoints: Path) -> list[Job]:
    """The missing jobs: first those whose row has the fewest runs, so that one seed is everywhere before a second is
    anywhere; among these, first those with a checkpoint, so that what was begun becomes a record."""
    jobs = list(jobs)
    todo = missing(jobs, results)
    runs = {row: sum(job.row == row for job in jobs if job not in todo) for row in {job.row for job in jobs}}
    ranked = []
    for place, job in enumerate(todo):
        begun = (checkpoints / f"{job.name}.pt").exists()
        ranked.append((runs[job.row], not begun, place, job))
        runs[job.row] += 1
    return [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:-1])]
