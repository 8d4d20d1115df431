"""Scoring a classifier: `evaluate` on a data set, `predict` on pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.images import ImageData, normalised, require_pictures
from ..device import is_out_of_memory, out_of_memory_named, pick_device, pick_precision
from ..embeddings import built_for, unwrapped
from ..errors import require_count, require_known, require_logits, require_type, require_weights
from ..kernels import float32_convolutions
from ..models.zoo import names
from ..precision import computing_in


class Scores(NamedTuple):
    """Accuracies in percent, mean cross-entropy in nats, over `images` images."""

    top1: float
    top5: float
    loss: float
    images: int


def evaluate(model: nn.Module, data: ImageData, split: str = "test", batch_size: int = 256,
             device: str | torch.device | None = None, precision: str = "float32") -> Scores:
    """Score `model` on every image of `split` ("test" or "train"): the exact mean over images, in evaluation
    mode; the modes of all modules are as before afterwards. top5 counts the best min(5, num_classes) classes.

    device: where to compute, the model is moved there; None: where the model is.
    precision: as in `pick_precision`.
    """
    check_fit(model, data)
    require_known("split", split, ("train", "test"))
    require_count(batch_size=batch_size)
    device = _place(model, device)
    precision = pick_precision(device, precision)
    images_in_split = len(data.test_labels if split == "test" else data.train_labels)
    top1 = top5 = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    with evaluating(model), torch.no_grad():  # in inference_mode, what a module caches could never be trained with
        for index in torch.arange(images_in_split, device=data.device).split(batch_size):
            images, labels = (tensor.to(device) for tensor in data.batch(index, split))
            logits = in_parts(lambda part: logits_of(model, part, precision, data.num_classes), images)
            # A picture without an answer (NaN) is missed: topk would order its classes somehow.
            hits = (logits.topk(min(5, data.num_classes)).indices == labels[:, None]) & ~logits.isnan().any(1, True)
            top1, top5 = top1 + hits[:, 0].sum(), top5 + hits.sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
    # Counted as integers and divided once, so that 100 % is 100.0.
    return Scores(100 * top1.item() / images_in_split, 100 * top5.item() / images_in_split,
                  loss.item() / images_in_split, images_in_split)


def predict(model: nn.Module, images: Tensor, device: str | torch.device | None = None) -> Tensor:
    """Class probabilities [B, num_classes], float32 on the CPU, of images uint8 [B, C, H, W], in evaluation
    mode. device: as in `evaluate`."""
    require_weights(model)
    require_pictures("images", images)
    device = _place(model, device)
    with evaluating(model), torch.no_grad():
        parts = [in_parts(lambda part: logits_of(model, normalised(part.to(device))).softmax(dim=1).cpu(), part)
                 for part in images.split(256)]
    return torch.cat(parts)


def in_parts(compute: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """compute(images); where a GPU has no room for all at once, of one half after the other."""
    if len(images) == 1:
        with out_of_memory_named(f"a single picture {list(images.shape[1:])}"):
            return compute(images)
    try:
        return compute(images)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Not above, where the exception still holds what the attempt had made.
    return torch.cat([in_parts(compute, half) for half in images.chunk(2)])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode: dropout draws nothing. Afterwards each module is in the mode it was in. float32 convolutions are
    not rounded to TF32."""
    were_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with float32_convolutions():
            yield
    finally:
        for module in were_training:
            module.training = True


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """`evaluating`, each module by itself: what torch.compile made of a model before has no hooks of later on."""
    with evaluating(model), torch.compiler.set_stance("force_eager"):
        yield


def logits_of(model: nn.Module, images: Tensor, precision: str = "float32", num_classes: int | None = None) -> Tensor:
    """float32 logits [B, num_classes]; the loss of half-precision ones would be too coarse."""
    try:
        with computing_in(precision, images):
            logits = model(images)
    except RuntimeError as error:
        types = {p.dtype for p in model.parameters() if p.is_floating_point()} - {images.dtype}
        if not types or not any(words in str(error) for words in ("dtype", "scalar type", "should be the same")):
            raise
        raise TypeError(f"model={name_of(model)} has weights of {', '.join(map(str, types))}, and images are "
                        f"{images.dtype} ({error}); call model.float()") from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(f"model={name_of(model)} normalises over a batch of {len(images)} picture(s) ({error}); "
                         "choose a batch_size that leaves no single picture over") from error
    require_logits(logits, images, num_classes)
    return logits.float()


def place_of(model: nn.Module) -> torch.device:
    """Where the model is; one without tensors is anywhere."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def _place(model: nn.Module, device: str | torch.device | None) -> torch.device:
    if device is None:
        return place_of(model)
    device = pick_device(device, argument="device")
    model.to(device)
    return device


def name_of(model: nn.Module) -> str:
    """What a model calls itself, else its class; one that is not vixlib's and has the name of a system of the tables
    says where it is from: "ViT of __main__"."""
    model = unwrapped(model)
    name, own = getattr(model, "name", None), type(model)
    if isinstance(name, str):
        return name
    foreign = own.__name__ in names() and own.__module__.partition(".")[0] != __package__.partition(".")[0]
    return f"{own.__name__} of {own.__module__}" if foreign else own.__name__


def check_fit(model: nn.Module, data: ImageData) -> None:
    """The model's image_size, channels and num_classes, where it has them, must be the data's."""
    require_weights(model)
    require_type("data", data, ImageData, "an ImageData, for instance from vixlib.load()")
    for name in ("image_size", "channels", "num_classes"):
        built, given = built_for(model, name), getattr(data, name)
        if built not in (None, given):
            # Rotary positions take any size, learned ones after position.resize.
            other = f", or where it takes that size set model.image_size = {given}" if name == "image_size" else ""
            raise ValueError(f"{name_of(model)} is built for {name}={built}, but {data.name!r} has "
                             f"{name}={given}; build it with {name}={given}{other}")
