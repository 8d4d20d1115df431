"""How fast a model trains."""
from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from statistics import median

import torch
from torch import nn

from ..device import out_of_memory_named, own_randomness, pick_precision
from ..embeddings import Size
from ..errors import copied, require_count, require_room
from .memory import NotPredictable, predict_peak_memory
from .step import checked_size, training_step


def throughput(model: nn.Module, batch_size: int = 64, repeats: int = 5, precision: str = "auto",
               image_size: Size | None = None) -> float:
    """Images a second of a whole training step on the model's device, median of `repeats` after one warm-up."""
    require_count(batch_size=batch_size, repeats=repeats)
    image_size = checked_size(model, image_size)
    device = next(model.parameters()).device
    if device.type == "cpu" and batch_size > 128:  # where memory does not suffice, the system ends the process
        with suppress(NotPredictable):  # one that looks at numbers can be measured all the same
            needed = predict_peak_memory(model, batch_size, "float32", image_size).bytes
            require_room(needed // 4, batch_size=batch_size, image_size=image_size)
    step, _ = training_step(copied(model), batch_size, pick_precision(device, precision), image_size)
    with own_randomness(device), out_of_memory_named(f"a batch of batch_size={batch_size}"):
        step()
        return batch_size / median(seconds(step, device) for _ in range(repeats))


def seconds(step: Callable[[], None], device: torch.device, calls: int = 1) -> float:
    """Seconds of one call of `step`, as the mean of `calls` in a row."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    wait()
    return (time.perf_counter() - start) / calls
