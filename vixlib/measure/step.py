"""A training step to measure: forward, backward and update on random pictures."""
from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..embeddings import Size, as_pair, built_for
from ..errors import (
    require_gradients,
    require_graph,
    require_known,
    require_logits,
    require_room,
    require_trainable,
    require_weights,
)
from ..kernels import training_kernels
from ..precision import PRECISIONS, autocast_off, computing_in
from .cuda_autocast import CudaAutocast

# What torch says of tensors that do not fit a layer.
OF_SHAPES = ("cannot be multiplied", "size of tensor", "invalid for input of size", "to have", "size mismatch",
             "Sizes of tensors", "must match", "same reduction dim")


def training_step(model: nn.Module, batch_size: int, precision: str,
                  image_size: Size | None = None) -> tuple[Callable[[], None], torch.optim.Optimizer]:
    """(a call that trains `model` one step on a fixed random batch, its optimiser): forward, backward, AdamW, by the
    kernels that fit trains with."""
    require_gradients("a training step")
    require_trainable(model, type(model).__name__)
    model.train()
    images = random_images(model, batch_size, image_size)
    optimizer = torch.optim.AdamW(model.parameters(), fused=may_fuse(model))  # as fit trains

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with training_kernels(deterministic=False):
            with autocast_off(images.device):  # the caller's; `precision` decides
                step_loss(model, images, precision).backward()
            optimizer.step()

    return step, optimizer


def may_fuse(model: nn.Module) -> bool:
    """Whether torch's fused optimisers, one kernel for all parameters, take those of `model`: no complex numbers."""
    return all(parameter.is_floating_point() for parameter in model.parameters())


def checked_size(model: nn.Module, image_size: Size | None) -> tuple[int, int] | None:
    """`image_size` as (height, width); errors for what is no model to measure or no size."""
    require_weights(model)
    if next(model.parameters(), None) is None:
        raise ValueError(f"model={type(model).__name__} has no parameters to measure a training step of")
    return None if image_size is None else as_pair("image_size", image_size)


def random_images(model: nn.Module, batch_size: int, image_size: tuple[int, int] | None) -> Tensor:
    """The same pictures `[B, C, H, W]` every time, of the size that `model` was built for, on its device."""
    size = as_pair("image_size", image_size or built_for(model, "image_size") or (32, 32))
    # A network of one's own need not say its channels; its first convolution does.
    channels = built_for(model, "channels") or next(
        (part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d)), 3)
    # Those of a prediction hold nothing, and it may be for a larger machine.
    held = 1 if hasattr(next(model.parameters()), "fake_mode") else batch_size
    require_room(held * channels * size[0] * size[1], batch_size=batch_size, image_size=size)
    generator = torch.Generator().manual_seed(0)  # its own: the caller's random numbers stay as they were
    return torch.randn(batch_size, channels, *size, generator=generator, device="cpu", dtype=torch.float32).to(
        next(model.parameters()).device)


def too_few_values(error: Exception) -> bool:
    """Whether `error` says that batch normalisation cannot train on so few pictures."""
    return isinstance(error, ValueError) and any(words in str(error) for words in (
        "batch normalisation got a shape", "more than 1 value per channel"))


def step_loss(model: nn.Module, images: Tensor, precision: str) -> Tensor:
    """The loss of `model` on `images` in `precision`, in training; on a CPU by the rules of a GPU's autocast."""
    require_known("precision", precision, PRECISIONS)
    require_gradients("a training step")
    with (torch.enable_grad(), computing_in(precision, images),
          CudaAutocast() if images.device.type == "cpu" else nullcontext()):
        try:
            scores = model(images)
        except RuntimeError as error:  # a network of one's own: torch has no class of error for shapes
            if built_for(model, "image_size") is not None or not any(words in str(error) for words in OF_SHAPES):
                raise
            raise ValueError(f"model={type(model).__name__} does not take pictures of {list(images.shape)}, "
                             f"{' '.join(str(error).split())[:150]}; pass image_size, and give the model an attribute "
                             "channels where its first layer is no convolution") from error
        require_logits(scores, images)
        loss = F.cross_entropy(scores, torch.zeros(len(images), dtype=torch.long, device=images.device))
    require_graph(loss, type(model).__name__)
    return loss
