"""Training: `fit` trains a classifier on an ImageData, in one process or in several under torchrun."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.images import ImageData
from ..device import device_name, is_out_of_memory, pick_device, pick_precision
from ..embeddings import unwrapped
from ..errors import (
    as_file_path,
    require_flag,
    require_gradients,
    require_graph,
    require_number,
    require_trainable,
    require_type,
)
from ..files import bar_options, require_writable
from ..kernels import fused_attention_problem, training_kernels
from ..measure.limits import memory_problem, out_of_memory
from ..measure.scoring import check_fit, evaluate, logits_of, name_of
from ..mixers import SoftmaxAttention
from ..precision import autocast_off
from ..provenance import now
from . import checkpoint as checkpoints
from . import parallel
from .averaging import WeightAverage
from .compiling import Compiled, compile_mode
from .divergence import first_failure, no_scale, not_finite
from .in_use import alone
from .run import Run, TrainConfig
from .schedule import learning_rate
from .telling import tell
from .training import Training

with warnings.catch_warnings():  # Jupyter without ipywidgets gets the plain bar, which needs no warning
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

PAPER_PROTOCOL = TrainConfig()


def fit(model: nn.Module, data: ImageData, config: TrainConfig = PAPER_PROTOCOL, *,
        checkpoint: str | Path | None = None, device: str | torch.device | None = None, progress: bool = True,
        on_epoch: Callable[[Run], None] | None = None, minutes: float | None = None) -> Run:
    """Train `model`, which maps images [B, C, H, W] to logits [B, num_classes], and evaluate every epoch.

    The model is moved to `device` (None: a working GPU, else the CPU), trained in place and left there in
    evaluation mode, with the weights that the last scores are of (after an interrupt: of the last step). With
    config.seed the data order is the same on every device, and the run is repeatable on a CPU; torch's global random
    numbers start anew from it. Seed torch before building the model, too.

    checkpoint: file written after every epoch. If it exists the run goes on from it, on a CPU bit for bit as
        if it had never stopped; a finished one gives its Run and weights at once.
    on_epoch: called with the growing Run after every epoch, for instance to draw curves (see telling.tell).
    minutes: no epoch is begun that would probably end later than this; the first of a call always runs.

    Where torch.distributed has a process group (under torchrun, see `parallel.processes`), its processes train this
    one run together, each on its share of every batch; the first one evaluates, writes, reports and calls on_epoch,
    which must leave the model as it is then.

    An interrupt (Ctrl-C, the stop button) returns the Run so far, with `interrupted` set; the checkpoint has the last
    epoch that was whole.
    Raises ValueError where model, data, checkpoint or settings do not fit together; RuntimeError where another run
    trains from the same checkpoint just now; FloatingPointError, with the Run as its attribute `run`, once the loss is
    no longer finite; torch.OutOfMemoryError, with the largest batch that fits, where this one does not, and OSError
    where the checkpoint cannot be written, both with `run`, too.
    One call at a time in a process: threads share torch's settings and random numbers. Those of numpy and of Python
    are neither seeded nor kept.
    """
    check_fit(model, data)
    require_type("config", config, TrainConfig, "a TrainConfig")
    require_flag(progress=progress)
    if minutes is not None:
        require_number("minutes", minutes, lambda value: value > 0, "above 0, or None for no limit")
    if checkpoint is not None:
        checkpoint = as_file_path("checkpoint", checkpoint).absolute()  # on_epoch may change the working folder
    if on_epoch is not None and not callable(on_epoch):
        raise TypeError(f"on_epoch={on_epoch!r} must be callable, it is given the Run after every epoch")
    require_gradients("fit")
    require_trainable(model, name_of(model))
    device = pick_device(device, argument="device")
    # config.precision decides, not an autocast around the call.
    with alone(checkpoint), training_kernels(config.deterministic), torch.enable_grad(), autocast_off(device):
        return _fit(model, data, config, checkpoint, device, progress, on_epoch, minutes)


def _fit(model: nn.Module, data: ImageData, config: TrainConfig, path: Path | None, device: torch.device,
         progress: bool, on_epoch: Callable[[Run], None] | None, minutes: float | None) -> Run:
    started = time.monotonic()
    training, data = _prepare(model, data, config, device)
    if path is None or not checkpoints.restore(path, training, data):
        torch.manual_seed(config.seed)
    run = training.run
    if run.finished:
        if parallel.rank() == 0:
            print(f"{path} holds this run, finished: nothing is trained.")
        training.leave()
        unwrapped(model).was_trained = True
        return run
    if path is not None and parallel.rank() == 0:
        require_writable(path)  # before an epoch is trained that could not be kept
        checkpoints.require_readable(path, training, data)
    run.begin_call()
    if not run.history and getattr(unwrapped(model), "was_trained", False):
        warnings.warn(f"this {run.model} has been trained before: it goes on from those weights, and its run counts "
                      "from epoch 1 all the same; build the model anew for a run of its own", stacklevel=3)
    training.saved, too_large = len(run.history), False
    # Several processes share a batch, and their SyncBatchNorm cannot be predicted; what has been trained did fit.
    if parallel.size() == 1 and not run.history:
        problem = memory_problem(model, config.batch_size, run.precision, data.image_size, training.device)
        if problem:
            warnings.warn(problem, RuntimeWarning, stacklevel=3)
    try:
        _epochs(training, data, path, progress, on_epoch, math.inf if minutes is None else started + 60 * minutes)
    except KeyboardInterrupt:
        run.interrupted = True
        more = f"; the same call goes on after epoch {training.saved}, from {path}" if path and training.saved else ""
        print(f"Interrupted: {len(run.history)} of {config.epochs} epochs are done{more}.")
    except FloatingPointError as error:
        if path is not None and run.history and getattr(error, "run", None) is run:  # not one of on_epoch's own
            error.args = (f"{error}; {path} keeps the run up to epoch {len(run.history)}",)
        raise
    except (OSError, ValueError) as error:
        error.run = run  # an epoch that could not be saved, or gone on from, is not lost
        raise
    except (RuntimeError, MemoryError) as error:
        # Only a step's own: another batch would not help what on_epoch does. Of several processes the others are in the
        # middle of theirs, and cannot help to find what fits.
        if not (training.stepping and is_out_of_memory(error)) or parallel.size() > 1:
            raise
        too_large = True
    finally:
        training.leave()
        unwrapped(model).was_trained = not too_large or bool(run.history)
        if isinstance(training.forward, Compiled):
            model.zero_grad(set_to_none=True)  # those of CUDA graphs lie in their memory
            torch.compiler.reset()  # its CUDA graphs would hold their memory for as long as the model lives
    if too_large:  # here, because the exception held every tensor of the failed step
        training.optimizer = None
        model.zero_grad(set_to_none=True)
        error = out_of_memory(model, config.batch_size, run.precision, data.image_size, run.device)
        error.run = run
        raise error
    return run


def _prepare(model: nn.Module, data: ImageData, config: TrainConfig,
             device: torch.device) -> tuple[Training, ImageData]:
    precision = pick_precision(device, config.precision)
    if device.type == "cuda":
        for width in sorted({part.dim_head for part in model.modules()
                             if isinstance(part, SoftmaxAttention) and part.fused}):
            if problem := fused_attention_problem(device, precision, width):
                warnings.warn(problem, RuntimeWarning, stacklevel=3)
    data = data.to(device)  # a new one, whose digest is of the pictures as they are now
    parallel.require_same(data)
    count = parallel.size()
    fewest = len(data.train_labels) % config.batch_size or min(config.batch_size, len(data.train_labels))
    if fewest < count:
        raise ValueError(f"batch_size={config.batch_size} leaves a batch of {fewest} images for {count} processes; "
                         f"use one of which every batch has at least {count}, or fewer processes")
    model.to(device)
    forward = parallel.together(model, device)
    steps = config.epochs * math.ceil(len(data.train_labels) / config.batch_size)
    if mode := compile_mode(config.compile, device, steps):
        forward = Compiled(forward, mode, tqdm.write)
    own_config, own_options = (getattr(unwrapped(model), name, None) for name in ("config", "options"))
    run = Run(model=name_of(model), model_config=own_config if isinstance(own_config, str) else None,
              # Classes passed to a model, such as a mixer of one's own, are kept by their names. What else a model of
              # one's own calls its options could not be read back from a checkpoint.
              options=json.loads(json.dumps(own_options if isinstance(own_options, dict) else {}, default=_in_words,
                                            skipkeys=True), parse_constant=str),  # NaN would differ from itself
              dataset=data.name, train_images=len(data.train_labels), config=config,
              device=f"{count} x {device_name(device)}" if count > 1 else device_name(device), precision=precision,
              digest=data.digest)
    training = Training(model, forward, torch.amp.GradScaler("cuda", enabled=precision == "float16"),
                        order=torch.Generator().manual_seed(config.seed),
                        augmentation=torch.Generator(device).manual_seed(config.seed),
                        device=device, run=run,
                        average=WeightAverage(model, config.ema_decay) if config.ema_decay else None)
    return training, data


def _in_words(option: object) -> str:
    return f"tensor of {list(option.shape)}" if isinstance(option, Tensor) else str(option)


def _epochs(training: Training, data: ImageData, path: Path | None, progress: bool,
            on_epoch: Callable[[Run], None] | None, deadline: float) -> None:
    """Train, save and report epoch after epoch until the run is finished or the next would end after `deadline`
    (seconds of time.monotonic())."""
    run, speaks = training.run, parallel.rank() == 0
    steps, took = math.ceil(len(data.train_labels) / run.config.batch_size), []  # took: seconds of each epoch
    with tqdm(total=steps * run.config.epochs, initial=steps * len(run.history), unit="step",
              desc=f"{run.model} on {run.dataset}", mininterval=0.5, dynamic_ncols=True,
              **bar_options(progress and speaks)) as bar:
        while not run.finished:
            begun = time.monotonic()
            # The first epoch of a call compiles and chooses kernels: what it took says little of the others.
            if parallel.from_first(bool(took) and begun + max(took[1:] or took) > deadline):
                break
            if not speaks:  # the first draws what a single process would, dropout for instance, the others their own
                torch.manual_seed(parallel.seed_of(run.config.seed, len(run.history)))
            _epoch(training, data, bar)
            if speaks and path is not None:
                checkpoints.save(path, training, data)
                training.saved = len(run.history)
            if speaks and on_epoch is not None:
                tell(on_epoch, training, path, data)
            took.append(time.monotonic() - begun)


def _epoch(training: Training, data: ImageData, bar: tqdm) -> None:
    """Train and evaluate one epoch and append it to the run's history."""
    run, config, device = training.run, training.run.config, training.device
    number = len(run.history) + 1
    training.enter_phase(number)
    begun = time.monotonic()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    training.stepping = True
    loss = _train(training, data, bar)  # reading the losses waits for the device, so the time is true
    training.stepping = False
    train_seconds = time.monotonic() - begun
    peak = _peak_bytes(device, config, data)
    batch_size = config.eval_batch_size or min(4 * config.batch_size, len(data.test_labels))
    scores = parallel.from_first(evaluate(training.evaluated, data, batch_size=batch_size, precision=run.precision)
                                 if parallel.rank() == 0 else None)
    if not math.isfinite(scores.loss):
        raise not_finite(run, f"test loss became {scores.loss} after epoch {number}")
    if not (isinstance(training.forward, Compiled) and number == run.calls[-1]["from_epoch"]):
        run.train_seconds, run.timed_epochs = run.train_seconds + train_seconds, run.timed_epochs + 1
    if peak is not None:
        # The first epoch's is larger by what trying convolution kernels took.
        run.peak_memory_bytes = min(peak, run.peak_memory_bytes or peak)
    run.history.append({"epoch": number, "loss": loss, "top1": scores.top1, "top5": scores.top5,
                        "seconds": time.monotonic() - begun})
    run.finished, run.finished_at = number == config.epochs, now()
    bar.set_postfix_str(f"epoch {number}/{config.epochs}, loss {loss:.3f}, top-1 {scores.top1:.1f} %", refresh=False)


def _peak_bytes(device: torch.device, config: TrainConfig, data: ImageData) -> int | None:
    """The largest allocation since its count began anew, without the data set; None where torch cannot tell: on a CPU,
    and with CUDA graphs, whose kernels are replayed in memory that is not counted as allocated."""
    if device.type != "cuda" or config.compile == "graphs":
        return None
    return torch.cuda.max_memory_allocated(device) - data.bytes


def _train(training: Training, data: ImageData, bar: tqdm) -> float:
    """One pass over the training images; the mean loss. The host never waits for the device in between."""
    run, config = training.run, training.run.config
    optimizer, scaler = training.optimizer, training.scaler
    order = torch.randperm(len(data.train_labels), generator=training.order, device="cpu")
    batches = order.to(training.device).split(config.batch_size)
    losses = torch.zeros(len(batches), device=training.device, dtype=torch.float32)  # whatever torch's default is
    require_trainable(training.model, run.model)  # on_epoch may have frozen all
    # Which parameters were finite after which step, kept on the device and read once an epoch, as the losses are.
    names, parameters = zip(*((name, p.detach()) for name, p in training.model.named_parameters()
                              if p.requires_grad and p.numel()), strict=True)
    finite = torch.ones(len(batches), len(names), dtype=torch.bool, device=training.device)
    training.model.train()
    for step, index in enumerate(batches):
        # Several processes draw the whole batch and keep a share, so that each picture is flipped as by a single one.
        images, labels = map(parallel.share, data.batch(index, "train", config.augment, training.augmentation))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, len(run.history) * len(batches) + step, len(batches))
        optimizer.zero_grad()
        loss = F.cross_entropy(logits_of(training.forward, images, run.precision, data.num_classes), labels,
                               label_smoothing=config.label_smoothing)
        require_graph(loss, run.model)
        if parallel.size() > 1:  # DDP takes the mean over processes, whose shares may differ by one image
            loss = loss * (len(labels) * parallel.size() / len(index))
        scaler.scale(loss).backward()
        if step == 0:
            parallel.require_used(training.model, run.model)
        scaler.step(optimizer)
        scaler.update()
        if training.average is not None:
            training.average.update(training.model)
        losses[step] = loss.detach()
        finite[step] = torch.stack(torch._foreach_norm(parameters, torch.inf)).isfinite()
        bar.update()
    losses = parallel.mean(losses).double().cpu()
    if failure := first_failure(losses, finite.cpu(), names, f"epoch {len(run.history) + 1}") or no_scale(scaler):
        raise not_finite(run, failure)
    sizes = torch.tensor([len(index) for index in batches], device="cpu")
    return ((losses * sizes).sum() / sizes.sum()).item()
