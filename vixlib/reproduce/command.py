"""Train what a table needs and record it: python -m vixlib.reproduce --table 1 --profile quick --data cifar10-jpg

Runs that are recorded are skipped, unfinished ones go on from their checkpoints (also from those of another machine),
every finished one becomes a JSON file in data/results. Needs no Jupyter.

  --list            what is done, partial or missing, and how long it will take here
  --minutes 9       stop cleanly before; with --jobs, an epoch that is not done 20 s later is lost
  --jobs 4          four runs at once, on one GPU or over the CPU's cores; with several GPUs, one on each in turn
  --compile graphs  train through torch.compile with CUDA graphs; minutes of compiling, then faster steps
  --memory-gb 16    let no run have more of the GPU than a card of 16 GiB would
  --batches         instead of training, find the largest batch of the table's rows that --memory-gb lets through
  --todo            what a borrowed GPU should run next; --next runs it, --export takes it home, --import merges it

One run over several GPUs, by torchrun: every process trains its share of each batch (see vixlib/train/parallel.py).
  torchrun --nproc_per_node=2 -m vixlib.reproduce --table 1 --profile paper
Over several machines, the same command on each of them, HOST being the first one's address:
  torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST:29500 --rdzv_id=1 \\
      -m vixlib.reproduce --table 1 --profile paper
The first process of all writes records and checkpoints; only its machine needs to have them.
"""
from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ..data.images import ImageData
from ..data.loading import load
from ..data.sources import find
from ..device import describe, device_name, pick_device
from ..files import ROOT, require_writable
from ..measure.durations import readable
from ..measure.limits import cap_memory
from ..profiles import PROFILES
from ..report.records import LOGS, RESULTS, VARIANTS, read_records
from ..report.rows import TABLES
from ..train import parallel
from . import parcels
from .arguments import check, count, folder, positive, seed
from .estimate import Estimator
from .gpu_jobs import BatchJob, require_gpu
from .jobs import Job, Place, most_missing_first, plan
from .todo import AnyJob, coming, describe_agenda
from .workers import at_once, in_turn, visible_gpus

CHECKPOINTS = ROOT / "data" / "checkpoints"
COMPILE = {"no": False, "yes": True, "graphs": "graphs", "auto": "auto"}  # what TrainConfig calls it
PACKING_MINUTES = 0.5  # kept back of --minutes for --export


class RunsFailed(RuntimeError):
    """Some runs ended with an error, which the message repeats; the others are done all the same."""

    def __init__(self, failed: dict[str, str]) -> None:
        super().__init__(f"{len(failed)} run(s) failed:\n" + "\n".join(
            f"{name}\n  " + error.strip().replace("\n", "\n  ") for name, error in failed.items()))


def reproduce(todo: Sequence[AnyJob], data: ImageData, place: Place, deadline: float | None = None) -> int:
    """Run `todo` until `deadline` (seconds of time.time()); how many of it are still missing.

    One after another, at least one epoch is trained, so that even a short allowance gets somewhere. RunsFailed, once
    the others are through, if some ended with an error.
    """
    report = (in_turn if place.at_once == 1 else at_once)(todo, data, place, deadline)
    if report.failed:
        raise RunsFailed(report.failed)
    # What another process had in work may be recorded by now.
    return sum(job.name not in report.done and not job.recorded(place.results) for job in todo)


def show(jobs: list[Job], data: ImageData | None, results: Path, checkpoints: Path) -> int:
    """Print each job as done, partial or missing, with the time it still takes here; main's exit status.

    data: what a step is measured with where no record tells the time; None: then the time is unknown. A file that is
    damaged is named, and its run counts as not done.
    """
    device = device_name(pick_device())
    try:
        records = read_records(results)
    except ValueError as error:
        print(f"no recorded times, because of this one: {error}", file=sys.stderr, flush=True)
        records = []
    estimator, seconds, damaged = Estimator(device, records, data), [], 0
    for job in jobs:
        try:
            record, begun = job.found(results), job.begun(checkpoints)
            run = begun and begun.run
            if record is None and begun and data is not None and begun.digest not in (None, data.digest):
                raise ValueError(f"its checkpoint is of other pictures, which were called {data.name!r} as well; "
                                 "delete it, or name other --results and --checkpoints")
        except ValueError as error:
            print(f"unusable {job.name}: {error}", file=sys.stderr, flush=True)
            damaged, seconds = damaged + 1, [*seconds, None]
            continue
        if record is not None:
            otherwise = job.otherwise(record, data)
            print(f"done     {job.name}" + (f", but {otherwise}" if otherwise else ""), flush=True)
            continue
        if run is not None and run.finished:
            print(f"trained  {job.name}: only its record is missing; without --list it is written", flush=True)
            seconds.append(0)
            continue
        estimate = estimator.of(job, run)
        seconds.append(estimate.seconds)
        state = f"partial  {job.name} ({len(run.history)} of {job.epochs} epochs)" if run else f"missing  {job.name}"
        print(f"{state}: {estimate}", flush=True)
    time_left = "time unknown" if None in seconds else f"{readable(sum(seconds))} one after another"
    print(f"total    {len(seconds)} of {len(jobs)} to do, {time_left} on {device}")
    return 1 if damaged else 3 if seconds else 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; the exit status is 0 when nothing is missing any more, 3 when time ran out before that or a run
    was interrupted, 1 when runs failed, 130 when it was interrupted outside of them."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        with ended_like_interrupted():
            return _main(chosen, parser, time.time())
    except BrokenPipeError:  # nobody reads on; see files.while_read
        raise
    except (OSError, ValueError) as error:  # it says what is wrong; a run's own errors are in RunsFailed
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # outside of an epoch; inside, the run is kept and says so
        print("Interrupted.", file=sys.stderr)
        return 130


@contextmanager
def ended_like_interrupted() -> Iterator[None]:
    """While this lasts, being told to end (by a batch system, a closed terminal) is an interrupt: what was trained is
    kept, and exported."""
    signs = []
    # Only there can signals be handled; and processes of torchrun wait for each other, which it has to end at once.
    if threading.current_thread() is threading.main_thread() and not parallel.launched():
        signs = [sign for sign in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
                 if signal.getsignal(sign) == signal.SIG_DFL]  # nohup has it ignored
    for sign in signs:
        signal.signal(sign, signal.default_int_handler)
    try:
        yield
    finally:
        for sign in signs:
            signal.signal(sign, signal.SIG_DFL)


def _main(chosen: argparse.Namespace, parser: argparse.ArgumentParser, started: float) -> int:
    chosen.results, chosen.checkpoints = chosen.results.absolute(), chosen.checkpoints.absolute()
    check(chosen, parser)
    if merged := vars(chosen)["import"]:
        print("\n".join(parcels.merge(merged, chosen.results, chosen.checkpoints)) or "the parcels are empty")
        return 0
    if chosen.todo:
        print(_todo(chosen))
        return 0
    with parallel.processes():
        if parallel.size() > 1 and (chosen.jobs or 1) > 1:
            parser.error(f"--jobs {chosen.jobs} under torchrun: its {parallel.size()} processes train one run together")
        if not chosen.list and parallel.rank() == 0:  # before anything is trained that could not be kept
            for place in filter(None, (chosen.export, chosen.results, chosen.checkpoints)):
                require_writable(place / "any")
        return _work(chosen, started)


def _todo(chosen: argparse.Namespace) -> str:
    wanted = _found(chosen.data)
    return describe_agenda(_called(_here(wanted), wanted), chosen.results, chosen.checkpoints, chosen.minutes or 9)


def _work(chosen: argparse.Namespace, started: float) -> int:
    profile = PROFILES[chosen.profile].on(pick_device())
    table = int(chosen.table) if str(chosen.table).isdigit() else chosen.table
    wanted = _found(chosen.data) if chosen.next else chosen.data or profile.data
    try:
        # Several processes must find the data set there: they would download it into one another's files.
        data = _here(wanted) if chosen.list else load(wanted, download=parallel.size() == 1)
        jobs = [] if chosen.next else plan(table, profile, _called(data, wanted), chosen.seeds, chosen.models)
    except (OSError, RuntimeError, ValueError) as error:  # not here, no such name; it says what helps
        print(error, file=sys.stderr)
        return 1
    if chosen.list:
        if data is None:
            print(f"{wanted} is not here, so runs without a record have no time; --data NAME lists another data set's")
        return show(jobs, data, chosen.results, chosen.checkpoints)
    if chosen.batches:
        require_gpu("--batches", "vixlib.max_batch_size predicts them")
    if chosen.memory_gb is not None and pick_device().type != "cuda":
        cap_memory(chosen.memory_gb)  # says that there is nothing to cap, once and not for every run
    processes = 1 if parallel.size() > 1 else chosen.jobs or max(1, len(visible_gpus()))
    place = Place(chosen.results, chosen.checkpoints, chosen.memory_gb, processes, COMPILE[chosen.compile])
    if chosen.next:
        todo = coming(data.name, place.results, place.checkpoints)
    elif chosen.batches:
        todo = [BatchJob(row, config, chosen.memory_gb)
                for row, config in dict.fromkeys((job.row, job.config) for job in jobs)]
    else:
        todo = most_missing_first(jobs, place.results, place.checkpoints)
    todo = parallel.from_first(todo)
    if parallel.rank() == 0:
        for job in () if chosen.batches else jobs:
            record = job.found(place.results)
            if record is not None and (otherwise := job.otherwise(record, data)):
                print(f"recorded, but {otherwise}: {job.name}; to train it anew delete the record and its checkpoint, "
                      "or name other --results and --checkpoints", file=sys.stderr, flush=True)
        print(f"{len(todo)} to run on {describe(pick_device())}, records in {place.results}", flush=True)
    deadline = None if chosen.minutes is None else started + 60 * chosen.minutes
    if chosen.export is not None and deadline is not None:
        deadline -= 60 * PACKING_MINUTES
    exports = chosen.export is not None and parallel.rank() == 0
    with parcels.exporting(place.checkpoints) if exports else nullcontext():
        before = parcels.before_export(place.results, place.checkpoints) if exports else {}
        try:
            return 3 if reproduce(todo, data, place, deadline) else 0
        except RunsFailed as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            if exports:
                _export(chosen.export, before, place)


def _export(folder: Path, before: dict, place: Place) -> None:
    files = parcels.contents(place.results, place.checkpoints)
    new = {name: stamp for name, stamp in parcels.stamps(files).items() if before.get(name) != stamp}
    left_out = parcels.export({name: files[name] for name in new}, folder)
    packed = {name: stamp for name, stamp in new.items() if name not in left_out}
    parcels.exported(place.checkpoints, {**before, **packed} if left_out else None)
    print(f"{len(packed)} files to take home are packed in {folder}"
          + "".join("\nleft out, no room beside the others, for the next --export: " + name
                    if parcels.has_room(new[name][1]) else f"\nleft out, too large: {name}" for name in left_out))


def _found(name: str | None) -> str:
    """The data set's name as given, else CIFAR-10 or the JPEG copy of it, whichever is here."""
    return name or next((known for known in ("cifar10", "cifar10-jpg") if find(known)), "cifar10")


def _here(name: str) -> ImageData | None:
    """The data set if it is on this machine."""
    try:
        return load(name, download=False)
    except RuntimeError:
        return None


def _called(data: ImageData | None, name: str) -> str:
    """How records call the data set; as named, where it isn't here."""
    return name if data is None else data.name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vixlib.reproduce", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", choices=[str(table) for table in (*TABLES, VARIANTS, LOGS)])
    what.add_argument("--todo", action="store_true", help="say what a borrowed GPU should run next")
    what.add_argument("--next", action="store_true", help="run that")
    what.add_argument("--import", type=folder, metavar="DIR", help="merge what --export left in DIR")
    parser.add_argument("--profile", default="quick", choices=list(PROFILES))
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", help="only these rows of the table")
    parser.add_argument("--data", help="name or folder for vixlib.load (default: the profile's)")
    parser.add_argument("--results", type=folder, default=RESULTS, help="folder of the records")
    parser.add_argument("--checkpoints", type=folder, default=CHECKPOINTS)
    parser.add_argument("--minutes", type=positive, help="begin no epoch that would end later than this")
    parser.add_argument("--jobs", type=count, help="runs at once (default: one a GPU)")
    parser.add_argument("--memory-gb", type=positive, help="cap on each run's GPU memory, in GiB")
    parser.add_argument("--compile", default="no", choices=COMPILE, help="train through torch.compile")
    parser.add_argument("--batches", action="store_true", help="find the rows' largest batches in --memory-gb")
    parser.add_argument("--list", action="store_true", help="say what is done, partial and missing; train nothing")
    parser.add_argument("--export", type=folder, metavar="DIR", help="pack what this call made into DIR, to take home")
    return parser
