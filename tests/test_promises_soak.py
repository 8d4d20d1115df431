"""A long run leaves nothing behind: memory stays flat, no file, handle or thread is left, one checkpoint file."""
from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from pathlib import Path

import pytest
import torch
from torch import nn

import vixlib as vix

EPOCHS, WARM = 200, 50  # until then caches fill: of the allocator, of kernels, of Python itself


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux tells about a process")
def test_two_hundred_epochs_leave_memory_handles_and_threads_as_they_were(tmp_path):
    data = vix.load("shapes", train=40, test=20)
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
    seen: dict[int, tuple[int, int, int, int]] = {}

    def look(run: vix.Run) -> None:
        if len(run.history) in (WARM, EPOCHS):
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            if not tracemalloc.is_tracing():
                tracemalloc.start()  # the process's own size hides what fits into memory that was free before
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            seen[len(run.history)] = (pages * os.sysconf("SC_PAGE_SIZE"), tensors, len(os.listdir("/proc/self/fd")),
                                      threading.active_count())

    run = vix.fit(model, data, vix.TrainConfig(epochs=EPOCHS, batch_size=16), checkpoint=tmp_path / "soak.pt",
                  device="cpu", progress=False, on_epoch=look)
    assert run.finished and [path.name for path in tmp_path.iterdir()] == ["soak.pt"]
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    (before, *counts_before), (after, *counts_after) = seen[WARM], seen[EPOCHS]
    assert counts_after == counts_before  # tensors, file handles, threads
    assert left < 2**20                   # 150 epochs' history and what it is written with, in Python's memory
    assert after - before < 8 * 2**20     # a batch of pictures left an epoch would be 29 MB
