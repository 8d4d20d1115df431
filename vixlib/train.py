"""Training and evaluation: `fit` trains a classifier on an ImageData, `evaluate` and `predict` use it."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import checkpoint as checkpoints
from .checkpoint import Training
from .data import ImageData
from .device import device_name, pick_device, pick_precision
from .errors import require_count, require_known
from .run import Run, TrainConfig, now

with warnings.catch_warnings():  # Jupyter without ipywidgets gets the plain bar, which needs no warning
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["PAPER_PROTOCOL", "Run", "Scores", "TrainConfig", "evaluate", "fit", "predict"]

PAPER_PROTOCOL = TrainConfig()


class Scores(NamedTuple):
    """Accuracies in percent, mean cross-entropy in nats, over `images` images."""

    top1: float
    top5: float
    loss: float
    images: int


def fit(model: nn.Module, data: ImageData, config: TrainConfig = PAPER_PROTOCOL, *,
        checkpoint: str | Path | None = None, device: str | torch.device | None = None, progress: bool = True,
        on_epoch: Callable[[Run], None] | None = None, minutes: float | None = None) -> Run:
    """Train `model`, which maps images [B, C, H, W] to logits [B, num_classes], and evaluate every epoch.

    The model is moved to `device` (None: a working GPU, else the CPU), trained in place and left there in
    evaluation mode. With config.seed the data order is the same on every device, and the run is repeatable
    on a CPU; seed torch before building the model, too.

    checkpoint: file written after every epoch. If it exists the run goes on from it, on a CPU bit for bit as
        if it had never stopped; a finished one gives its Run and weights at once.
    on_epoch: called with the growing Run after every epoch, for instance to draw curves.
    minutes: no epoch is begun that would probably end later than this; the first of a call always runs.

    An interrupt (Ctrl-C, the stop button) returns the Run so far, with `interrupted` set.
    Raises ValueError where model, data, checkpoint or settings do not fit together; FloatingPointError, with
    the Run as its attribute `run`, once the loss is no longer finite.
    """
    _check_fit(model, data)
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes={minutes} must be above 0; use None for no limit")
    started = time.monotonic()
    training, data = _prepare(model, data, config, pick_device(device))
    path = None if checkpoint is None else Path(checkpoint)
    if path is None or not checkpoints.restore(path, training, data):
        torch.manual_seed(config.seed)
    run = training.run
    if run.finished:
        model.eval()
        return run
    steps = math.ceil(len(data.train_labels) / config.batch_size)
    longest = 0.0
    try:
        with tqdm(total=steps * config.epochs, initial=steps * len(run.history), unit="step",
                  desc=f"{run.model} on {run.dataset}", mininterval=0.5, dynamic_ncols=True,
                  # Only "off" is passed on, so that TQDM_DISABLE still decides otherwise.
                  **({} if progress else {"disable": True})) as bar:
            while not run.finished:
                begun = time.monotonic()
                if minutes is not None and longest and begun - started + longest > 60 * minutes:
                    break
                _epoch(training, data, bar)
                if path is not None:
                    checkpoints.save(path, training, data)
                if on_epoch is not None:
                    on_epoch(run)
                longest = max(longest, time.monotonic() - begun)
    except KeyboardInterrupt:
        run.interrupted = True
        more = "" if path is None else f"; the same call goes on from {path}"
        print(f"Interrupted: {len(run.history)} of {config.epochs} epochs are kept{more}.")
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"batch_size={config.batch_size} needs more memory than {run.device} has free; "
            f"try batch_size={max(1, config.batch_size // 2)}") from error
    finally:
        model.eval()
    return run


def _prepare(model: nn.Module, data: ImageData, config: TrainConfig,
             device: torch.device) -> tuple[Training, ImageData]:
    precision = pick_precision(device, config.precision)
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.backends.cudnn.benchmark = True  # all batches but the last of an epoch have one shape
    model.to(device)
    own_config = getattr(model, "config", None)
    run = Run(model=_name(model), model_config=own_config if isinstance(own_config, str) else None,
              # Classes passed to a model, such as a mixer of one's own, are kept by their names.
              options=json.loads(json.dumps(getattr(model, "options", {}), default=str)),
              dataset=data.name, train_images=len(data.train_labels), config=config,
              device=device_name(device), precision=precision)
    training = Training(model, torch.amp.GradScaler("cuda", enabled=precision == "float16"),
                        order=torch.Generator().manual_seed(config.seed),
                        augmentation=torch.Generator(device).manual_seed(config.seed),
                        device=device, run=run)
    return training, data.to(device)


def _epoch(training: Training, data: ImageData, bar: tqdm) -> None:
    """Train and evaluate one epoch and append it to the run's history."""
    run, config, device = training.run, training.run.config, training.device
    number = len(run.history) + 1
    training.enter_phase(number)
    begun = time.monotonic()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    loss = _train(training, data, bar)  # reading the losses waits for the device, so the time is true
    train_seconds = time.monotonic() - begun
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    scores = evaluate(training.model, data, batch_size=config.eval_batch_size or 4 * config.batch_size,
                      precision=run.precision)
    if not math.isfinite(scores.loss):
        raise _not_finite(run, f"test loss became {scores.loss} after epoch {number}")
    run.train_seconds += train_seconds
    if peak is not None:
        run.peak_memory_bytes = max(peak, run.peak_memory_bytes or 0)
    run.history.append({"epoch": number, "loss": loss, "top1": scores.top1, "top5": scores.top5,
                        "seconds": time.monotonic() - begun})
    run.finished, run.finished_at = number == config.epochs, now()
    bar.set_postfix_str(f"epoch {number}/{config.epochs}, loss {loss:.3f}, top-1 {scores.top1:.1f} %",
                        refresh=False)


def _train(training: Training, data: ImageData, bar: tqdm) -> float:
    """One pass over the training images; the mean loss. The host never waits for the device in between."""
    run, config = training.run, training.run.config
    optimizer, scaler = training.optimizer, training.scaler
    order = torch.randperm(len(data.train_labels), generator=training.order)
    batches = order.to(training.device).split(config.batch_size)
    losses = torch.zeros(len(batches), device=training.device)
    training.model.train()
    for step, index in enumerate(batches):
        images, labels = data.batch(index, "train", config.augment, training.augmentation)
        optimizer.zero_grad()
        loss = F.cross_entropy(_logits(training.model, images, run.precision, data.num_classes), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses[step] = loss.detach()
        bar.update()
    losses = losses.double().cpu()
    bad = losses.isfinite().logical_not().nonzero()
    if len(bad):
        step = int(bad[0])
        raise _not_finite(run, f"loss became {losses[step].item()} at epoch {len(run.history) + 1}, "
                               f"step {step + 1} of {len(batches)}")
    sizes = torch.tensor([len(index) for index in batches])
    return ((losses * sizes).sum() / sizes.sum()).item()


def _not_finite(run: Run, what: str) -> FloatingPointError:
    advice = f"use a lower lr than {run.config.lr:g}"
    if run.precision != "float32":
        advice += f', or precision="float32" instead of {run.precision}'
    error = FloatingPointError(f"the {what}; {advice}")
    error.run = run  # the epochs before are not lost
    return error


def evaluate(model: nn.Module, data: ImageData, split: str = "test", batch_size: int = 256,
             device: str | torch.device | None = None, precision: str = "float32") -> Scores:
    """Score `model` on every image of `split` ("test" or "train"): the exact mean over images, in evaluation
    mode; the modes of all modules are as before afterwards. top5 counts the best min(5, num_classes) classes.

    device: where to compute, the model is moved there; None: where the model is.
    precision: as in `pick_precision`.
    """
    _check_fit(model, data)
    require_known("split", split, ("train", "test"))
    require_count(batch_size=batch_size)
    device = _place(model, device)
    precision = pick_precision(device, precision)
    images_in_split = len(data.test_labels if split == "test" else data.train_labels)
    top1 = top5 = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    with _inference(model):
        for index in torch.arange(images_in_split, device=data.device).split(batch_size):
            images, labels = (tensor.to(device) for tensor in data.batch(index, split))
            logits = _logits(model, images, precision, data.num_classes)
            hits = logits.topk(min(5, data.num_classes)).indices == labels[:, None]
            top1, top5 = top1 + hits[:, 0].sum(), top5 + hits.sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
    # Counted as integers and divided once, so that 100 % is 100.0.
    return Scores(100 * top1.item() / images_in_split, 100 * top5.item() / images_in_split,
                  loss.item() / images_in_split, images_in_split)


def predict(model: nn.Module, images: Tensor, device: str | torch.device | None = None) -> Tensor:
    """Class probabilities [B, num_classes], float32 on the CPU, of images uint8 [B, C, H, W], in evaluation
    mode. device: as in `evaluate`."""
    if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images are {images.dtype} {list(images.shape)}, not uint8 [B, C, H, W], B >= 1; "
                         "pass a single one as image[None], and pixels as 0 ... 255")
    device = _place(model, device)
    with _inference(model):
        # Normalised as in ImageData.batch: [0, 255] becomes [-1, 1].
        parts = [model(part.to(device).float().div(127.5).sub(1)).float().softmax(dim=1).cpu()
                 for part in images.split(256)]
    return torch.cat(parts)


@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module is in the mode it was in."""
    were_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        # Not inference_mode: what a module caches in there could never be used in training again.
        with torch.no_grad():
            yield
    finally:
        for module in were_training:
            module.training = True


def _logits(model: nn.Module, images: Tensor, precision: str, num_classes: int) -> Tensor:
    """float32 logits [B, num_classes]; the loss of half-precision ones would be too coarse."""
    with torch.autocast(images.device.type, getattr(torch, precision), enabled=precision != "float32"):
        logits = model(images)
    if logits.shape != (len(images), num_classes):
        raise ValueError(f"the model turned {len(images)} images into {list(logits.shape)}, not into logits "
                         f"[{len(images)}, {num_classes}]; build it with num_classes={num_classes}")
    return logits.float()


def _place(model: nn.Module, device: str | torch.device | None) -> torch.device:
    if device is None:
        first = next(chain(model.parameters(), model.buffers()), None)
        return torch.device("cpu") if first is None else first.device
    device = pick_device(device)
    model.to(device)
    return device


def _name(model: nn.Module) -> str:
    return getattr(model, "name", type(model).__name__)


def _check_fit(model: nn.Module, data: ImageData) -> None:
    """The model's image_size, channels and num_classes, where it has them, must be the data's."""
    if not isinstance(data, ImageData):
        raise TypeError(f"data is a {type(data).__name__}, not an ImageData; get one from vixlib.load()")
    for name in ("image_size", "channels", "num_classes"):
        built, given = getattr(model, name, None), getattr(data, name)
        if name == "image_size" and isinstance(built, int):
            built = (built, built)
        if built is not None and (tuple(built) if name == "image_size" else built) != given:
            raise ValueError(f"{_name(model)} is built for {name}={built}, but {data.name!r} has "
                             f"{name}={given}; build it with {name}={given}")
