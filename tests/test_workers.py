"""Several runs at once: the same records as one after another, failures told, an interrupt that loses nothing."""
from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch
from test_reproduce import TINY, go

import vixlib as vix
from vixlib.data.shapes import make_shapes
from vixlib.report.records import read_records
from vixlib.reproduce import command as reproduce
from vixlib.reproduce import workers
from vixlib.reproduce.jobs import Outcome, Place, plan
from vixlib.reproduce.workers import Clock, in_turn, visible_gpus

LONG = dataclasses.replace(TINY, train=vix.TrainConfig(epochs=400, batch_size=8))


def histories(folder: Path) -> dict:
    return {record["model"]: [{**epoch, "seconds": 0} for epoch in record["history"]]
            for record in read_records(folder / "results")}


def test_what_runs_at_once_makes_the_same_records_and_a_failure_stops_nothing_else(tmp_path):
    data = make_shapes(train=64, test=32)
    broken = dataclasses.replace(TINY, options={**TINY.options, "patch_size": 7})
    jobs = plan(1, TINY, data.name, models=["ViN"])
    with pytest.raises(reproduce.RunsFailed, match=r"(?s)1 run.*ViP_.*patch_size=7"):
        go([*plan(1, broken, data.name, models=["ViP"]), *jobs], data, tmp_path / "both", at_once=2)
    go(jobs, data, tmp_path / "turn")
    assert histories(tmp_path / "both") == histories(tmp_path / "turn") and len(histories(tmp_path / "turn")) == 1
    assert {record["concurrent_runs"] for record in read_records(tmp_path / "both" / "results")} == {2}


def test_runs_with_a_gpu_each_share_none(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")  # named, not there: the runs are made on the CPU
    go(plan(1, TINY, "shapes", models=["ViT"]), make_shapes(train=64, test=32), tmp_path, at_once=2)
    assert read_records(tmp_path / "results")[0]["concurrent_runs"] == 1


@pytest.fixture
def heeds_interrupts():
    """As from a keyboard: a shell lets what it starts in the background ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_keeps_the_epochs_done_and_leaves_no_process(tmp_path, capfd, heeds_interrupts):
    def interrupt_once_begun() -> None:
        while not list(tmp_path.glob("checkpoints/*.pt")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    job, = plan(1, LONG, "shapes", models=["ViN"])
    threading.Thread(target=interrupt_once_begun, daemon=True).start()
    assert go([job], make_shapes(train=256, test=32), tmp_path, at_once=2) == 1
    assert capfd.readouterr().out.count("stopped after epoch") == 1
    assert not multiprocessing.active_children()
    assert not histories(tmp_path) and not list(tmp_path.glob("checkpoints/.*"))
    assert 1 <= len(job.progress(tmp_path / "checkpoints").history) < 400


class Fake:
    """A job that takes a minute of the clock in `time.time`."""

    def __init__(self, clock: list[float], fails: bool = False) -> None:
        self.name, self.clock, self.fails = "fake", clock, fails

    def perform(self, data, place, minutes, progress=True, on_epoch=None) -> Outcome:
        self.clock[0] += 60
        if self.fails:
            raise RuntimeError("broken")
        return Outcome(True, "done", longest_epoch=60)


def test_no_job_is_begun_whose_first_epoch_would_end_too_late(monkeypatch, tmp_path):
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    place = Place(tmp_path, tmp_path)
    assert len(in_turn([Fake(clock)] * 9, None, place, deadline=clock[0] + 200).done) == 3
    assert len(in_turn([Fake(clock)] * 9, None, place, deadline=clock[0] - 1).done) == 1  # the first one always
    report = in_turn([Fake(clock, fails=True), Fake(clock)], None, place, deadline=None)
    assert report.done == ["fake"] and "broken" in report.failed["fake"]
    assert Clock(None).minutes() is None and Clock(clock[0] + 90).minutes() == 1.5


def test_the_gpus_to_share_are_those_that_the_environment_allows(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert visible_gpus() == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ["0", "1"]


class Stubborn:
    """A job that takes no notice of its allowance, or fails at once."""

    def __init__(self, name: str, fails: bool = False) -> None:
        self.name, self.fails = name, fails

    def perform(self, *_arguments, **_keywords) -> Outcome:
        if self.fails:
            raise RuntimeError("the same fault in every run")
        time.sleep(300)
        return Outcome(True, "never")


@dataclasses.dataclass(frozen=True)
class Deaf:
    name: str

    def perform(self, *_arguments, **_keywords) -> Outcome:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as in a driver's call that does not come back
        time.sleep(300)


def test_a_job_that_does_not_heed_its_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "GRACE", 5.0)
    begun = time.time()
    report = workers.at_once([Deaf("one")], make_shapes(train=20, test=20), Place(tmp_path, tmp_path), deadline=begun)
    assert report.interrupted and not report.done and time.time() - begun < 60
    assert not multiprocessing.active_children()


def test_jobs_that_do_not_heed_their_end_are_waited_for_together(tmp_path, monkeypatch):
    class Process:  # as one that is stuck: it ends when it is killed, and says nothing
        exitcode = -9

        def __init__(self, sender):
            self.kill = sender.close

        def terminate(self):
            pass

        def join(self, timeout=None):
            pass

        def is_alive(self):
            return False

    def start(*_arguments):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        return receiver, Process(sender)

    monkeypatch.setattr(workers, "_start", start)
    monkeypatch.setattr(workers, "GRACE", 2.0)
    monkeypatch.setattr(workers, "STARTUP", 0.0)
    data, deadline = make_shapes(train=20, test=20), time.time() + 2
    report = workers.at_once([Deaf(str(number)) for number in range(4)], data, Place(tmp_path, tmp_path, at_once=4),
                             deadline)
    # Two times: until they are told to end, and until they are killed. One after another it would be five.
    assert report.interrupted and not report.done and time.time() - deadline < 3.5 * 2.0


def test_a_job_whose_gpu_does_not_work_is_not_trained_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(workers, "pick_device", lambda: torch.device("cpu"))
    told, teller = multiprocessing.Pipe(duplex=False)
    monkeypatch.setattr(workers, "_end_with_parent", lambda data: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as it was is restored
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        workers._work(teller, Deaf("one"), tmp_path / "data.pt", Place(tmp_path, tmp_path), None, 1, "1")
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    assert "GPU 1 does not work in a process of its own" in told.recv()


def test_a_deadline_of_years_is_waited_for_in_parts(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(workers, "A_DAY", 1.0)  # as long as a new process takes to begin
    monkeypatch.setattr(workers, "wait", lambda running, seconds: told.append(seconds) or wait(running, seconds))
    jobs = plan(1, TINY, "shapes", models=["ViT"])
    report = workers.at_once(jobs, make_shapes(train=64, test=32), Place(tmp_path, tmp_path / "checkpoints"),
                             deadline=time.time() + 1e10)
    assert report.done and not report.interrupted and set(told) == {1.0} and len(told) > 1


def test_a_job_that_overruns_the_deadline_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "GRACE", 5.0)  # enough for its process to start
    begun = time.time()
    report = workers.at_once([Stubborn("one")], make_shapes(train=20, test=20), Place(tmp_path, tmp_path, at_once=1),
                             deadline=begun)
    assert report.interrupted and not report.done and time.time() - begun < 60
    assert not multiprocessing.active_children()


def test_a_fault_of_every_job_does_not_use_up_the_time(tmp_path):
    jobs = [Stubborn(str(number), fails=True) for number in range(20)]
    data = make_shapes(train=20, test=20)
    assert len(in_turn(jobs, data, Place(tmp_path, tmp_path), None).failed) == workers.HOPELESS
    assert len(workers.at_once(jobs[:3], data, Place(tmp_path, tmp_path, at_once=1), None).failed) == 3


ALONE = """
import sys, torch
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
from test_workers import Stubborn
from vixlib.reproduce import workers
from vixlib.reproduce.jobs import Place
from vixlib.data.shapes import make_shapes
if __name__ == "__main__":
    workers.at_once([Stubborn("one")], make_shapes(train=20, test=20), Place(Path("."), Path("."), at_once=1), None)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are looked up in /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path):
    root = os.path.dirname(os.path.dirname(__file__))
    (tmp_path / "alone.py").write_text(ALONE.format(tests=os.path.dirname(__file__), root=root))
    first = subprocess.Popen([sys.executable, tmp_path / "alone.py"], env={**os.environ, "TMPDIR": str(tmp_path)})
    until = time.time() + 90
    while not (workers_of_it := running("spawn_main", first.pid)) and time.time() < until:
        time.sleep(0.1)
    first.kill()
    first.wait()
    while running("spawn_main") & workers_of_it and time.time() < until:
        time.sleep(0.1)
    assert workers_of_it and not running("spawn_main") & workers_of_it
    assert [path.name for path in tmp_path.iterdir()] == ["alone.py"]  # the copy of the data is gone, too


def running(words: str, parent: int | None = None) -> set[int]:
    """The processes with `words` in their command line, children of `parent` alone if one is given."""
    found = set()
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            command = Path("/proc", entry, "cmdline").read_text()  # empty for one that has ended
            state = Path("/proc", entry, "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        if words in command and parent in (None, int(state[1])):
            found.add(int(entry))
    return found
