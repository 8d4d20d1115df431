"""Calling on_epoch: what it draws, and what it may change about the model, so that no run that goes on misses it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..data.images import ImageData
from ..device import own_randomness
from . import checkpoint as checkpoints
from . import parallel
from .layout import layout
from .run import Run
from .training import Training


def tell(on_epoch: Callable[[Run], None], training: Training, path: Path | None, data: ImageData) -> None:
    """on_epoch(run), after the epoch is in the checkpoint `path`. What it draws at random is another after every epoch
    and moves no number of the run's. Weights that it changes are saved anew; a ValueError names what else of the model
    it has changed, which no checkpoint holds."""
    model, run = training.model, training.run
    before = None if path is None else (layout(model), _versions(training))
    with own_randomness(training.device):
        torch.manual_seed(parallel.seed_of(run.config.seed, len(run.history)))
        on_epoch(run)
    if before is None:
        return
    if difference := checkpoints.first_difference(before[0], layout(model), "before", "after"):
        raise ValueError(f"on_epoch has changed the model: {difference}; a run that goes on from {path} would not know "
                         "that. Change it before fit, or leave out checkpoint")
    if before[1] != _versions(training):
        checkpoints.save(path, training, data)


def _versions(training: Training) -> list[tuple[int, int]]:
    """Which tensors the model has and how often each was written to."""
    tensors = (*training.model.parameters(), *training.model.buffers())
    return [(id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]
