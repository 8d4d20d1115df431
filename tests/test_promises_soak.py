"""A long run leaves nothing behind: memory stays flat, no file, handle or thread is left, one checkpoint file."""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EPOCHS, WARM = 200, 50  # until then caches fill: of the allocator, of kernels, of Python itself

# In a process of its own: what other tests leave to the collector would be counted, too.
SOAK = """
import gc, json, os, sys, threading, tracemalloc
from pathlib import Path
import torch
from torch import nn
import vixlib as vix

epochs, warm, checkpoint = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
data = vix.load("shapes", train=40, test=20)
model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
seen = []

def look(run):
    if len(run.history) in (warm, epochs):
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        if not tracemalloc.is_tracing():
            tracemalloc.start()  # the process's own size hides what fits into memory that was free before
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        seen.append({"bytes": pages * os.sysconf("SC_PAGE_SIZE"),
                     "counts": {"tensors": tensors, "handles": len(os.listdir("/proc/self/fd")),
                                "threads": threading.active_count()}})

run = vix.fit(model, data, vix.TrainConfig(epochs=epochs, batch_size=16), checkpoint=checkpoint, device="cpu",
              progress=False, on_epoch=look)
print(json.dumps({"finished": run.finished, "seen": seen, "left": tracemalloc.get_traced_memory()[0]}))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads what Linux tells about a process")
def test_two_hundred_epochs_leave_memory_handles_and_threads_as_they_were(tmp_path):
    done = subprocess.run([sys.executable, "-c", SOAK, str(EPOCHS), str(WARM), str(tmp_path / "soak.pt")],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["finished"] and [path.name for path in tmp_path.iterdir()] == ["soak.pt"]
    before, after = told["seen"]
    assert after["counts"] == before["counts"]
    assert told["left"] < 2**20                         # 150 epochs' history and what it is written with, in Python
    assert after["bytes"] - before["bytes"] < 8 * 2**20  # a batch of pictures left an epoch would be 29 MB
