"""Running jobs: one after another in this process, or several at once in processes of their own."""

from __future__ import annotations

import io
import math
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

import torch

from ..data.images import ImageData
from ..device import pick_device
from ..files import write_atomic
from ..measure.limits import cap_memory
from ..train import parallel
from ..train.run import Run
from .jobs import Outcome, Place


class Performable(Protocol):
    """What can be run: jobs.Job and those of gpu_jobs."""

    name: str

    def perform(self, data: ImageData, place: Place, minutes: float | None, progress: bool = True,
                on_epoch=None) -> Outcome: ...


STARTUP = 15.0  # seconds until a process of its own trains: a new Python, torch, the GPU; a guess
GRACE = 20.0  # seconds beyond the deadline for an epoch that takes longer than expected
A_DAY = 86_400.0  # seconds; the system waits for some weeks at most
AN_EPOCH = "an epoch"  # what a process says after each
HOPELESS = 3  # failures for each job at once, without a success, after which the next would fail for the same reason


@dataclass
class Clock:
    """How much time is left, by the clock that all processes share; deadline: in seconds of time.time(), or None.

    startup: what a job takes before its first epoch begins.
    """

    deadline: float | None
    longest_epoch: float = 0.0
    started: int = 0
    startup: float = 0.0

    def minutes(self) -> float | None:
        return None if self.deadline is None else max((self.deadline - time.time()) / 60, 1e-9)

    def allows_another(self) -> bool:
        """Whether to begin one more job: the first always, so that a short allowance gets somewhere, too; later ones
        if the longest epoch so far would still fit."""
        return (self.started == 0 or self.deadline is None
                or time.time() + self.startup + self.longest_epoch < self.deadline)

    def patience(self) -> float | None:
        """Seconds until nobody should wait any longer, a day at most; None without a deadline."""
        return None if self.deadline is None else min(max(0.0, self.deadline + GRACE - time.time()), A_DAY)


@dataclass
class Report:
    """What running gave: names of finished jobs, errors by name, whether the user stopped it, and whether any job did
    what it could in its time."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    succeeded: bool = False

    def hopeless(self, at_once: int) -> bool:
        """Whether so many have failed, and none succeeded, that the next would fail as well."""
        return len(self.failed) >= HOPELESS * at_once and not self.succeeded

    def add(self, name: str, outcome: Outcome | str, clock: Clock) -> None:
        """Take in a job's outcome, or the error that ended it."""
        if isinstance(outcome, str):
            self.failed[name] = outcome
            print(f"failed: {name}: {outcome.strip().splitlines()[-1]}", flush=True)
            return
        self.succeeded = True
        if parallel.rank() == 0:
            print(outcome.text, flush=True)
        clock.longest_epoch = max(clock.longest_epoch, outcome.longest_epoch)
        self.interrupted |= outcome.interrupted
        if outcome.done:
            self.done.append(name)


def in_turn(jobs: Sequence[Performable], data: ImageData, place: Place, deadline: float | None) -> Report:
    """Run `jobs` one after another in this process; a job that fails does not stop the next."""
    clock, report = Clock(deadline), Report()
    cap_memory(place.memory_gb)
    for job in jobs:
        if report.interrupted or report.hopeless(1) or not parallel.from_first(clock.allows_another()):
            break
        clock.started += 1
        try:
            outcome: Outcome | str = job.perform(data, place, clock.minutes())
        except Exception as error:  # whatever it is, the other runs have nothing to do with it
            if parallel.size() > 1:
                raise  # the other processes of this run wait for this one: torchrun has to end them all
            outcome = _in_words(error)
        report.add(job.name, outcome, clock)
    return report


def at_once(jobs: Sequence[Performable], data: ImageData, place: Place, deadline: float | None) -> Report:
    """Run `place.at_once` jobs at a time, each in a process, which share the CPU's threads and are dealt out to the
    GPUs in turn. An interrupt ends each after the epoch it has finished last, and so does a deadline long past."""
    clock, report, waiting, moved = Clock(deadline, startup=STARTUP), Report(), list(jobs), False
    place = replace(place, at_once=max(1, min(place.at_once, len(waiting))))
    running: dict[Connection, tuple[int, Performable, multiprocessing.Process]] = {}
    gpus, threads = visible_gpus(), max(1, torch.get_num_threads() // place.at_once)
    with tempfile.TemporaryDirectory() as folder:
        # One copy on disk that every process maps into memory; shared memory is too small for it in many containers.
        buffer = io.BytesIO()
        torch.save(vars(data.to("cpu")), buffer)
        write_atomic(Path(folder, "data.pt"), buffer.getbuffer())  # whose error names the file where a disk is full
        del buffer
        try:
            while True:
                while (waiting and len(running) < place.at_once and not report.interrupted
                       and not report.hopeless(place.at_once) and clock.allows_another()):
                    slot = min(set(range(place.at_once)) - {slot for slot, _, _ in running.values()})
                    job = waiting.pop(0)
                    gpu = gpus[slot % len(gpus)] if gpus else None
                    receiver, process = _start(job, Path(folder, "data.pt"), place, clock, threads, gpu)
                    running[receiver] = slot, job, process
                    clock.started += 1
                if not running:
                    break
                ready = wait(list(running), clock.patience())
                if not ready and not clock.patience():
                    print("over time: what still runs is stopped after its last epoch"
                          + ("" if moved else ", and none was finished: give it more --minutes or fewer --jobs"),
                          flush=True)
                    raise KeyboardInterrupt
                for receiver in ready:
                    moved = True
                    if (told := _told(receiver)) != AN_EPOCH:
                        _finish(told, *running.pop(receiver)[1:], report, clock, time.monotonic() + GRACE)
        except KeyboardInterrupt:
            report.interrupted = True
            for _, _, process in running.values():
                process.terminate()
            until = time.monotonic() + GRACE  # for all of them together
            for receiver, (_, job, process) in running.items():
                while (told := _told(receiver, process, until)) == AN_EPOCH:
                    pass
                _finish(told, job, process, report, clock, until)
    return report


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]


def _start(job: Performable, data: Path, place: Place, clock: Clock, threads: int,
           gpu: str | None) -> tuple[Connection, multiprocessing.Process]:
    context = multiprocessing.get_context("spawn")  # a forked process could not use CUDA
    place = replace(place, at_once=math.ceil(place.at_once / max(1, len(visible_gpus()))))  # on its own device
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, job, data, place, clock.deadline, threads, gpu), daemon=True)
    process.start()
    sender.close()  # the process holds the other copy, so that its end is seen here
    return receiver, process


def _told(receiver: Connection, ending: multiprocessing.Process | None = None,
          until: float = 0.0) -> Outcome | str | None:
    """What a process says next: AN_EPOCH, its outcome or error, None if it has ended without a word. ending: the
    process, where it was told to end; it is killed if by `until`, in seconds of time.monotonic(), it has said nothing,
    stuck in a call of a driver perhaps."""
    try:
        if ending is not None and not receiver.poll(_left(until)):
            ending.kill()
        return receiver.recv()
    except (EOFError, BrokenPipeError):  # the second: Windows, once the process has gone
        return None


def _left(until: float) -> float:
    """Seconds until then, of time.monotonic()."""
    return max(0.0, until - time.monotonic())


def _finish(outcome: Outcome | str | None, job: Performable, process: multiprocessing.Process, report: Report,
            clock: Clock, until: float) -> None:
    process.join(_left(until))
    if process.is_alive():  # it has said what it had to say, and does not come to its end
        process.kill()
        process.join()
    if outcome is None:
        if report.interrupted:  # ended before it could do anything, let alone say so
            return
        outcome = f"its process ended with exit code {process.exitcode} (negative: the signal that killed it)"
    report.add(job.name, outcome, clock)


def _work(sender: Connection, job: Performable, data: Path, place: Place, deadline: float | None, threads: int,
          gpu: str | None) -> None:
    """What a process does: one job, whose outcome or error it sends back."""
    for sign in (signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)):
        signal.signal(sign, signal.SIG_IGN)  # they reach every process of a terminal; only the first one decides
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ending = threading.Thread(target=_end_with_parent, args=(data,), daemon=True)
    ending.start()
    try:
        sender.send(_perform(sender, job, data, place, deadline, threads, gpu))
    except BrokenPipeError:  # nobody listens any more; what was done is in the checkpoint
        ending.join(GRACE)  # which tidies up


def _perform(sender: Connection, job: Performable, data: Path, place: Place, deadline: float | None, threads: int,
             gpu: str | None) -> Outcome | str:
    """The job's outcome or, in words, its error; a BrokenPipeError is passed on."""
    try:
        if gpu is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # nothing has touched CUDA in this process yet
        if gpu is not None and torch.cuda.is_available() and pick_device().type != "cuda":
            raise RuntimeError(f"GPU {gpu} does not work in a process of its own (the warning above says why); leave "
                               "out --jobs, or let several processes use it")
        torch.set_num_threads(threads)
        cap_memory(place.memory_gb)
        images = ImageData(**torch.load(data, weights_only=True, mmap=True))

        def tell(run: Run) -> None:
            _tell(run)
            sender.send(AN_EPOCH)

        return job.perform(images, place, Clock(deadline).minutes(), progress=False, on_epoch=tell)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return Outcome(False, f"stopped before an epoch was done: {job.name}", interrupted=True)
    except Exception as error:
        return _in_words(error)


def _in_words(error: Exception) -> str:
    """What ended a run: a sentence where the error is one, else where it comes from as well."""
    if isinstance(error, (OSError, ValueError, FloatingPointError, torch.OutOfMemoryError)):
        return f"{type(error).__name__}: {error}"
    return "".join(traceback.format_exception(error))


def _end_with_parent(data: Path) -> None:
    """End this process as soon as the first one is gone, killed perhaps: a second start would train this run twice.
    Its files are whole at any moment."""
    multiprocessing.parent_process().join()
    with suppress(OSError):  # another worker may have been faster
        data.unlink(missing_ok=True)
        data.parent.rmdir()
    os._exit(1)


def _tell(run: Run) -> None:
    """Print an epoch as a line, since the bars of several processes would overwrite each other."""
    last = run.history[-1]
    print(f"{run.model} seed {run.config.seed}: epoch {last['epoch']}/{run.config.epochs}, loss {last['loss']:.3f}, "
          f"top-1 {last['top1']:.2f} %, {last['seconds']:.0f} s", flush=True)
