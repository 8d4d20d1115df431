"""One run over several processes, started by torchrun: each trains its share of every batch and DDP averages the
gradients, so that the run is the one that a single process with the whole batch would make.

Exactly so (but for rounding) where images don't meet in a model. BatchNorm lets them meet: on GPUs it is replaced by
SyncBatchNorm, which takes the whole batch's statistics; on CPUs, where torch has none, every process normalises its
own share, and a warning says so. Dropout draws other masks than a single process would, of the same distribution.
Outside torchrun, all of this is one process with everything.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..data.images import ImageData
from ..device import pick_device
from ..mixers.heads import BatchNormTokens

T = TypeVar("T")


def launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes that torchrun started, where it started this one; leave them at the end.

    On GPUs each process takes the one of its place on its machine, by NCCL; on CPUs they talk by gloo.
    """
    if not launched():
        yield
        return
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        place, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= gpus:
            raise ValueError(f"--nproc_per_node: there is no GPU for process {place + 1}; this machine has {gpus}")
        torch.cuda.set_device(place)
        if pick_device().type != "cuda":  # then the others would wait for it in vain
            raise ValueError(f"GPU {place} of this machine does not work (the warning above says why); leave it out "
                             "with CUDA_VISIBLE_DEVICES")
    # Long, because the others wait while the first one reads or downloads the data set.
    dist.init_process_group("nccl" if on_gpus else "gloo", timeout=timedelta(hours=1))
    try:
        yield
    finally:
        dist.destroy_process_group()


def size() -> int:
    """How many processes train one run together; 1 without torchrun."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them. Number 0 evaluates, writes and speaks for all."""
    return dist.get_rank() if size() > 1 else 0


def from_first(value: T) -> T:
    """Process 0's `value`, in all processes: what depends on clocks or files must be decided once."""
    if size() == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def require_same(data: ImageData) -> None:
    """All processes must have the same pictures, of which each trains its share; else a ValueError in each of them."""
    if size() > 1:
        digests = [""] * size()
        dist.all_gather_object(digests, data.digest)
        if others := [number for number, digest in enumerate(digests) if digest != digests[0]]:
            raise ValueError(f"data={data.name!r}: process {others[0]} has other pictures than process 0; give every "
                             "machine the same copy")


def require_used(model: nn.Module, name: str) -> None:
    """After a backward pass every parameter must have its gradient, for which several processes wait; the ValueError
    names one that has none."""
    for own, parameter in model.named_parameters() if size() > 1 else ():
        if parameter.requires_grad and parameter.grad is None:
            raise ValueError(f"model={name}: {own} takes no part in the result, and several processes wait for its "
                             "gradient; freeze it (requires_grad_(False)), or train in one process")


def share(batch: Tensor) -> Tensor:
    """This process's part of a whole batch `[B, ...]`: `[B / size, ...]`, to within one image."""
    return batch[rank()::size()]


def mean(values: Tensor) -> Tensor:
    """The mean of `values` over all processes."""
    if size() > 1:
        dist.all_reduce(values)
    return values / size()


class SyncBatchNormTokens(nn.SyncBatchNorm):
    """What BatchNormTokens becomes: over the images of all processes and their tokens, `[B, N, D] -> [B, N, D]`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view_as(x)


def synchronised(model: nn.Module) -> None:
    """Replace every batch normalisation of `model` by one over the batch of all processes."""
    kinds = BatchNormTokens, SyncBatchNormTokens  # the second: in a model that has been trained so before
    of_tokens = [name for name, part in model.named_modules() if isinstance(part, kinds)]
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for name in of_tokens:  # torch's conversion forgets what a class of one's own does
        model.get_submodule(name).__class__ = SyncBatchNormTokens


def normalises_batches(model: nn.Module) -> bool:
    """Whether images meet in `model`, in a batch normalisation."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())


def together(model: nn.Module, device: torch.device) -> nn.Module:
    """What to call in training: `model` itself, or DDP around it, which averages gradients in the backward pass."""
    if size() == 1:
        return model
    if device.type == "cuda":
        synchronised(model)
    elif rank() == 0 and normalises_batches(model):
        warnings.warn(f"BatchNorm normalises each of {size()} processes' share of a batch by itself on a CPU: "
                      "not the run that one process would make", stacklevel=4)
    return DistributedDataParallel(model)


def seed_of(seed: int, epochs: int) -> int:
    """A seed for what this process alone draws, such as dropout, from a run's seed and the epochs it has done."""
    return hash((seed, rank(), epochs))  # of integers: the same in every process and at every start
