"""A cap that makes a large GPU a small one, and the largest batch under it, found by training real steps."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import nn

from ..device import is_out_of_memory, pick_device
from ..errors import copied
from .memory import fitting_batch, predict_peak_memory, weight_bytes
from .step import too_few_values, training_step

CONTEXT_GB = 0.5  # what CUDA itself takes of a card beside torch's allocations, about


def cap_memory(memory_gb: float | None) -> None:
    """Let this process have no more of the GPU than a card of `memory_gb` GiB would give it; None: all of it.

    torch's allocator then raises torch.OutOfMemoryError where that card would. CUDA's own share, which torch does not
    count, is taken off first. ValueError where there is no GPU or it is smaller.
    """
    device = pick_device()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the cap counts what is asked of CUDA: what torch has put by would go uncounted
    if memory_gb is None:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    if device.type != "cuda":
        raise ValueError(f"memory_gb={memory_gb} caps a GPU's memory, and there is none here; leave it out")
    total = torch.cuda.get_device_properties(device).total_memory / 2**30
    # A card sold as 16 GB shows a little less; on such a one, the cap is the card.
    if not CONTEXT_GB < memory_gb <= 1.15 * total:
        raise ValueError(f"memory_gb={memory_gb} must be above {CONTEXT_GB} and at most this GPU's {total:.1f}")
    torch.cuda.set_per_process_memory_fraction(min(1.0, (memory_gb - CONTEXT_GB) / total))


def largest_batch(attempt: Callable[[int], None], start: int = 64, most: int = 2**16) -> int:
    """The largest batch size up to `most` for which `attempt(batch_size)` does not run out of memory; 0 if none.

    attempt: does what has to fit, for instance two training steps, and raises torch.OutOfMemoryError if it does not.
    From `start` the size is doubled until it fails, then the gap is halved until nothing is left of it.
    """
    too_few = 0  # pictures for batch normalisation: they fit, and nothing can be trained with them

    def fits(batch: int) -> bool:
        nonlocal too_few
        try:
            attempt(batch)
        except (RuntimeError, MemoryError, ValueError) as error:
            if too_few_values(error):
                too_few = batch
            elif is_out_of_memory(error):
                return False
            else:
                raise
        return True

    fitting, failing, batch = 0, most + 1, min(start, most)
    while failing - fitting > 1:
        if fits(batch):
            fitting = batch
        else:
            failing = batch
        batch = min(2 * fitting, most) if failing > most else (fitting + failing) // 2
    return 0 if fitting == too_few else fitting


def real_steps(model: nn.Module, precision: str,
               image_size: tuple[int, int] | None = None) -> Callable[[int], None]:
    """For `largest_batch`: two training steps of a copy of `model` on its GPU, the second with AdamW's state."""
    device = next(model.parameters()).device

    def attempt(batch_size: int) -> None:
        gc.collect()  # a copy whose blocks are computed again refers to itself
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what an earlier attempt left in pieces must not decide this one
        step, _ = training_step(copied(model), batch_size, precision, image_size)
        step()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return attempt


def free_bytes(device: torch.device) -> int | None:
    """What torch may still take of a GPU, its own unused cache and a `cap_memory` included; None for a CPU, whose
    memory is not this process's alone."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    # Unlike its neighbours, this one takes no device without a number.
    number = torch.cuda.current_device() if device.index is None else device.index
    capped = total * torch.cuda.get_per_process_memory_fraction(number) - torch.cuda.memory_allocated(device)
    return int(min(free + cached, capped))


def memory_problem(model: nn.Module, batch_size: int, precision: str, image_size: tuple[int, int],
                   device: torch.device) -> str | None:
    """Why a training step of `batch_size` will probably not fit what `device` has free, in a sentence with the largest
    batch that will; None if it fits, or on a CPU. Where a model cannot be predicted, the sentence says so."""
    free = free_bytes(device)
    if free is None:
        return None
    free += weight_bytes(model)  # the model is there already, and the prediction counts it, too
    try:
        needed = predict_peak_memory(model, batch_size, precision, image_size).bytes
        if needed <= free:
            return None
        largest = fitting_batch(model, free, precision, image_size)
    except Exception as error:  # a model of one's own may do what no tensor without content can follow
        return (f"the memory of a training step cannot be predicted for this model ({type(error).__name__}); it is "
                "trained without knowing whether it fits")
    return (f"batch_size={batch_size} is predicted to need {needed / 2**30:.2f} GiB in training, but {device} has "
            f"{free / 2**30:.2f} GiB free; use at most about batch_size="
            f"{largest}, or checkpointing=True in vixlib.build")


def out_of_memory(model: nn.Module, batch_size: int, precision: str, image_size: tuple[int, int],
                  where: str) -> torch.OutOfMemoryError:
    """The error to raise once a batch of `batch_size` has not fitted, with the largest that does, found by trying. The
    memory of the failed step must have been given back before (its exception holds it)."""
    attempt = real_steps(model, precision, image_size)
    fits = largest_batch(attempt, start=max(1, batch_size // 2), most=batch_size - 1)
    if fits:
        advice = f"the largest that fits is batch_size={fits}"
    else:
        said = ""
        try:  # once more for its words: cuDNN says the same where it lacks memory and where it lacks a kernel
            attempt(1)
        except (RuntimeError, MemoryError, ValueError) as error:
            said = f": {str(error).splitlines()[0][:200]}" if str(error) else ""
        advice = f"not even one picture fits{said}; use a smaller model or larger patches"
    return torch.OutOfMemoryError(f"batch_size={batch_size} needs more memory than {where} has free; {advice}")

