"""What a training step keeps and needs in memory, measured or predicted, and the largest batch that fits."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import floor

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..device import out_of_memory_named, own_randomness, pick_device, pick_precision
from ..embeddings import Size, built_for
from ..errors import MOST, copied, loose_tensors, require_count, require_known, require_trainable, shown
from ..precision import PRECISIONS
from .live_bytes import Living, kept_for_backward
from .step import checked_size, random_images, step_loss, too_few_values, training_step

CARD_GB = 16  # memory of the paper's GPU, and of a T4
MARGIN = 1.15  # predictions fall a few percent short of a real step; what a plan needs is an upper bound
CLOSE = 0.002  # how much of the memory may stay unused by the largest batch


def saved_bytes_per_image(model: nn.Module, image_size: Size | None = None, precision: str = "float32") -> float:
    """Bytes that autograd keeps between forward and backward for each image; needs no GPU.

    Counted once per storage, parameters left out, as the difference between batches of 4 and 2, so that what
    does not grow with the batch cancels. precision "float16" or "bfloat16" counts under autocast.
    """
    image_size = checked_size(model, image_size)
    require_known("precision", precision, PRECISIONS)
    model = copied(model)  # a forward pass moves the statistics of BatchNorm
    model.train()
    with (own_randomness(next(model.parameters()).device),  # dropout draws
          out_of_memory_named(f"a picture of image_size={image_size or built_for(model, 'image_size')}")):
        batches = (random_images(model, size, image_size) for size in (2, 4))
        two, four = (kept_for_backward(model, partial(step_loss, model, images, precision)) for images in batches)
    return (four - two) / 2


class NotPredictable(ValueError):
    """A model's step cannot be followed with tensors that have shapes but no numbers."""


@dataclass(frozen=True)
class PeakMemory:
    """Bytes at the peak of a training step; `measured` on a GPU, else predicted; str() says which."""

    bytes: int
    batch_size: int
    precision: str
    measured: bool

    def __str__(self) -> str:
        return (f"{self.bytes / 2**30:.2f} GiB at batch {self.batch_size}, {self.precision}, "
                f"{'measured' if self.measured else 'predicted'}")


def peak_memory(model: nn.Module, batch_size: int = 64, precision: str = "auto",
                image_size: Size | None = None) -> PeakMemory:
    """Peak memory of a training step (forward, backward, AdamW): measured if `model` is on a GPU, else predicted.

    The measure is torch's own allocations; the CUDA context adds about half a GiB that no model decides.
    """
    require_count(batch_size=batch_size)
    image_size = checked_size(model, image_size)
    device = next(model.parameters()).device
    if device.type != "cuda":
        return predict_peak_memory(model, batch_size, precision, image_size)
    precision = pick_precision(device, precision)
    model = copied(model)
    pick_device(device)  # its small step makes cuBLAS's workspaces, which are no part of this one's
    before = torch.cuda.memory_allocated(device) - weight_bytes(model)
    step, _ = training_step(model, batch_size, precision, image_size)
    with own_randomness(device):
        step()  # the first step makes the optimiser's state
        torch.cuda.reset_peak_memory_stats(device)
        step()
    return PeakMemory(torch.cuda.max_memory_allocated(device) - before, batch_size, precision, measured=True)


def predict_peak_memory(model: nn.Module, batch_size: int = 64, precision: str = "auto",
                        image_size: Size | None = None) -> PeakMemory:
    """The same without a GPU and without the memory: a training step on tensors that have shapes but no data.

    No margin is added; a real step on a CPU needs the same within 10 % (a test holds that). precision "auto" means
    float16, a T4's; half types need the same bytes.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    require_count(batch_size=batch_size)
    image_size = checked_size(model, image_size)
    require_known("precision", precision, ("auto", *PRECISIONS))
    precision = "float16" if precision == "auto" else precision
    require_trainable(model, type(model).__name__)  # before its tensors are replaced
    mode = FakeTensorMode()
    fake = with_fake_tensors(model, mode)
    with mode:
        half = precision != "float32"  # either half type keeps the same bytes
        step, optimizer = training_step(fake, batch_size, "bfloat16" if half else precision, image_size)
        for parameter in fake.parameters():  # an update without a backward pass makes the optimiser's state
            parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        optimizer.step()
        state = [value for one in optimizer.state.values() for value in one.values() if isinstance(value, Tensor)]
        with Living((*fake.parameters(), *fake.buffers(), *state)) as living:
            _followed(step, model)
    return PeakMemory(living.peak, batch_size, precision, measured=False)


def _followed(step: Callable[[], None], model: nn.Module) -> None:
    """step() on tensors without numbers; NotPredictable for a model that looks at numbers."""
    try:
        step()
    except (AssertionError, RuntimeError) as error:  # RuntimeError: all that torch has for it
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
        raise NotPredictable(f"model={type(model).__name__} cannot be predicted with tensors that have shapes but no "
                         f"numbers ({reason}); a forward pass that looks at numbers has to be measured: "
                         "peak_memory, with the model on a GPU") from error


def with_fake_tensors(model: nn.Module, mode: TorchDispatchMode) -> nn.Module:
    """A copy of `model` on the CPU whose parameters and buffers have shapes but no data; mode: a FakeTensorMode."""
    memo = {id(t): nn.Parameter(mode.from_tensor(t.detach().cpu()), t.requires_grad) if isinstance(t, nn.Parameter)
            else mode.from_tensor(t.detach().cpu())
            for t in (*model.parameters(), *model.buffers(), *loose_tensors(model))}
    return copied(model, memo)  # which takes what memo holds instead of copying it


def max_batch_size(model: nn.Module, memory_gb: float = CARD_GB, precision: str = "auto",
                   image_size: Size | None = None) -> int:
    """The largest batch whose predicted training step fits `memory_gb` (GiB); 0: none does.

    A plan needs an upper bound, so MARGIN is added, and about 1 GiB of the card is left to CUDA's context and
    fragmentation.
    """
    if isinstance(memory_gb, bool) or not isinstance(memory_gb, (int, float)) or not 1 < memory_gb < 2**20:
        raise ValueError(f"memory_gb={shown(memory_gb)} must exceed 1, which CUDA's context and fragmentation take, "
                         "and be below 2**20")
    return fitting_batch(model, (memory_gb - 1) * 2**30, precision, checked_size(model, image_size))


def fitting_batch(model: nn.Module, memory: float, precision: str, image_size: Size | None = None) -> int:
    """The largest batch whose predicted training step, MARGIN added, fits `memory` bytes; 0: none does.

    The peak stays flat while the weights' gradients outweigh the activations, then grows in a straight line. So the
    answer is enclosed between a batch that fits and one that does not: by the line through them, and every other time
    by halves, in case the line misleads. Every batch that is given was predicted; it may be below the largest by as
    many images as take CLOSE of the memory.
    """
    def needed(batch: int) -> float:
        return MARGIN * predict_peak_memory(model, batch, precision, image_size).bytes

    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    too_few = 0  # pictures for batch normalisation
    fits, at_fits = 0, MARGIN * (weight_bytes(model) + 3 * trained)  # no image: weights, gradients and two moments
    too_many, at_too_many, batch, bisect = MOST + 1, None, 64, True
    while too_many - fits > 1 and memory - at_fits > CLOSE * memory:
        try:
            at = needed(batch)
        except ValueError as error:
            if not too_few_values(error):
                raise
            too_few = fits = batch
            batch = 2 * batch if at_too_many is None else (fits + too_many) // 2
            continue
        # The line to a batch that does not fit is exact once both lie beyond the bend; the one to a batch that fits,
        # perhaps on the flat part, leads too far.
        other, at_other = (fits, at_fits) if at_too_many is None else (too_many, at_too_many)
        slope = (at - at_other) / (batch - other)
        if at <= memory:
            fits, at_fits = batch, at
        else:
            too_many, at_too_many = batch, at
        batch = batch + floor((memory - at) / slope) if slope > 0 else MOST
        bisect = at_too_many is not None and not bisect  # every other time: a line may be far off for long
        if bisect or batch >= too_many:
            batch = (fits + too_many) // 2
        batch = max(batch, fits + 1)
    return 0 if fits == too_few else fits


def weight_bytes(model: nn.Module) -> int:
    return sum(t.untyped_storage().nbytes() for t in (*model.parameters(), *model.buffers()))
