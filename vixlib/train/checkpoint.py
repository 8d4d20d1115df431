"""Checkpoints: all that changes while training, kept on disk so that a killed run goes on exactly."""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path
from typing import NamedTuple

import torch

from ..data.images import ImageData
from ..errors import require_kinds
from ..files import read_tensors, write_atomic
from . import parallel
from .layout import SAME_NUMBERS, shapes
from .run import Run
from .training import Training

FORMAT = 4
KINDS = {"run": dict, "layout": dict, "data": dict, "model": dict, "optimizer": dict, "scaler": dict,
         "order": torch.Tensor, "augmentation": torch.Tensor, "cpu_rng": torch.Tensor}  # of a checkpoint's fields


def save(path: Path, training: Training, data: ImageData) -> None:
    """Write the whole state atomically: a crash while saving leaves the checkpoint of the epoch before. ValueError
    for a state that could not be read back into a new model."""
    now = shapes(training.model)
    if other := [name for name in {**training.shapes, **now} if now.get(name) != training.shapes.get(name)]:
        raise ValueError(f"checkpoint {path} could not be read back: {other[0]} of model={training.run.model} has "
                         "another shape or type than before its training, or is new or gone; make it in __init__ as it "
                         "will be, or register it with persistent=False if no batch depends on what another left in it")
    write_atomic(path, _serialised(training, data))


def require_readable(path: Path, training: Training, data: ImageData) -> None:
    """ValueError, before anything is trained, for a state that could not be read back from `path` as data."""
    try:
        saved = read_tensors(_serialised(training, data))
        _require_same_kinds(saved["model"], training.model.state_dict(keep_vars=True))
        training.model.load_state_dict(saved["model"])  # the same numbers
    except MemoryError:
        raise
    except Exception as error:  # neither torch.save nor torch.load has an error class of its own
        raise ValueError(f"checkpoint {path} could not be read back: {_reason(error)}; a model's state must be tensors "
                         "and plain data (its get_extra_state, for instance), or train without a checkpoint") from error


def _serialised(training: Training, data: ImageData) -> bytes:
    on_cuda = training.device.type == "cuda"
    state = {
        "format": FORMAT,
        "run": training.run.to_dict(),
        "layout": training.layout,
        "data": _identity(data),
        "model": training.model.state_dict(),
        "optimizer": {} if training.optimizer is None else training.optimizer.state_dict(),
        "average": None if training.average is None else training.average.state_dict(),
        "scaler": training.scaler.state_dict(),
        "order": training.order.get_state(),
        "augmentation": training.augmentation.get_state(),
        "cpu_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(training.device) if on_cuda else None,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def restore(path: Path, training: Training, data: ImageData) -> bool:
    """Bring `training` to the state saved in `path`; False, and nothing done, where there is no such file.

    The checkpoint must be of the same model, data set and config. config.epochs alone may change, but not below the
    epochs already done, and not under the schedule "cosine", which ends with them. ValueError names the file and the
    first difference. Of several processes only the first needs to have the file.
    """
    content = parallel.from_first(path.read_bytes() if parallel.rank() == 0 and path.exists() else None)
    if content is None:
        return False
    saved, run = _load(path, content)
    config = training.run.config
    advice = f"delete {path} to start anew, or give another checkpoint name"
    # Both change speed and memory alone; `_restore_training` warns where a run goes on compiled otherwise.
    wanted = {**config.to_dict(), "compile": run.config.compile, "eval_batch_size": run.config.eval_batch_size}
    if config.schedule != "cosine":
        wanted["epochs"] = run.config.epochs
    for what, before, after in (("the model's settings", _settings(run), _settings(training.run)),
                                ("what the models are made of", saved["layout"], training.layout),
                                ("the data sets", saved["data"], _identity(data)),
                                ("config", run.config.to_dict(), wanted)):
        if difference := first_difference(before, after):
            raise ValueError(f"checkpoint {path} is of another run: {what} differ: {difference}; {advice}")
    if config.epochs < len(run.history):
        raise ValueError(f"epochs={config.epochs} is less than the {len(run.history)} epochs that checkpoint "
                         f"{path} has done already; use at least {len(run.history)}, or {advice}")
    run.interrupted = False
    run.finished = len(run.history) == config.epochs
    before = copy.deepcopy(training.model.state_dict())
    try:
        _require_same_kinds(saved["model"], training.model.state_dict(keep_vars=True))
        training.model.load_state_dict(saved["model"])
        if training.average is not None:
            training.average.load_state_dict(saved["average"])
        if not run.finished:
            _restore_training(path, saved, run, training)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        training.model.load_state_dict(before)
        raise _unreadable(path, error) from error
    run.config, training.run = config, run
    return True


class Seen(NamedTuple):
    """What a checkpoint tells beside its weights: the run as far as it has come, the digest of the run's pictures."""

    run: Run
    digest: str | None


def peek(path: Path, content: bytes | None = None) -> Seen | None:
    """What the checkpoint `path` tells; None where there is no such file. The ValueError for a damaged one names it.
    content: the file's, if it has been read."""
    if content is None:
        if not path.exists():
            return None
        content = path.read_bytes()
    saved, run = _load(path, content)
    return Seen(run, saved["data"].get("digest"))


def _restore_training(path: Path, saved: dict, run: Run, training: Training) -> None:
    here = training.run
    if _computed(run) != _computed(here):
        warnings.warn(f"checkpoint {path} was made {_computed(run)} and goes on here {_computed(here)}: not bit for "
                      "bit the same run", stacklevel=4)
        run.device, run.precision = here.device, here.precision
    run.finished_at = None
    training.enter_phase(len(run.history))  # the last epoch done: the next one may begin another phase
    _restore_optimizer(training.optimizer, saved["optimizer"], scaled=bool(saved["scaler"]))
    if saved["scaler"] and training.scaler.is_enabled():
        training.scaler.load_state_dict(saved["scaler"])
    training.order.set_state(saved["order"])
    torch.set_rng_state(saved["cpu_rng"])
    # A generator's state means something on its own kind of device only; elsewhere the fresh seed stays.
    on_cuda = training.device.type == "cuda"
    if on_cuda == (saved["cuda_rng"] is not None):
        training.augmentation.set_state(saved["augmentation"])
        if on_cuda:
            torch.cuda.set_rng_state(saved["cuda_rng"], training.device)


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict, scaled: bool) -> None:
    """Take in the moments alone: all else is the config's, and fused kernels trust the shapes that they are given."""
    names = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.AdamW) else {"momentum_buffer"}
    parameters = optimizer.param_groups[0]["params"]
    if not (saved["state"] or scaled):  # loss scaling may skip every step of a short epoch
        raise ValueError("it has no moments of the optimiser")
    for index, moments in saved["state"].items():
        # torch counts steps in its default type.
        like = {name: torch.zeros((), dtype=moments[name].dtype) if name == "step" else parameters[index].detach()
                for name in names}
        _require_same_kinds(moments, like)
    optimizer.load_state_dict({"state": saved["state"], "param_groups": optimizer.state_dict()["param_groups"]})


def _require_same_kinds(saved: dict, given: dict) -> None:
    """`saved` must have the names, shapes and types of `given`'s tensors, and finite numbers for parameters."""
    if difference := first_difference(*({name: f"{list(value.shape)} {value.dtype}" for name, value in state.items()
                                         if isinstance(value, torch.Tensor)} for state in (saved, given))):
        raise ValueError(difference)
    for name, tensor in given.items():
        # A module's extra state may be anything.
        if isinstance(tensor, torch.Tensor) and tensor.requires_grad and not saved[name].isfinite().all():
            raise ValueError(f"{name} is not finite")


def _computed(run: Run) -> str:
    """How a run's numbers are computed, in words."""
    compiled = f", compile={run.config.compile!r}" if run.config.compile else ""
    return f"on {run.device} in {run.precision}{compiled}"


def _load(path: Path, content: bytes) -> tuple[dict, Run]:
    try:
        saved = read_tensors(content)  # as data: a checkpoint from a stranger must not be able to run code
        if saved["format"] != FORMAT:
            raise ValueError(f"format {saved['format']} instead of {FORMAT}")
        require_kinds(saved, KINDS, "it")
        return saved, Run.from_dict(saved["run"])
    except Exception as error:  # torch.load has no error class of its own for a damaged file
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"checkpoint {path} is truncated or not one of vixlib's ({_reason(error)}); "
                      "delete it to start anew, or give another name")


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:100]


def _settings(run: Run) -> dict:
    """What the weights of `run` mean besides their shapes."""
    options = {name: value for name, value in run.options.items() if name not in SAME_NUMBERS}
    return {"name": run.model, "configuration": run.model_config, **options}


def _identity(data: ImageData) -> dict:
    return {"name": data.name, "classes": list(data.classes), "image_size": list(data.image_size),
            "channels": data.channels, "train_images": len(data.train_labels), "digest": data.digest}


def first_difference(saved: dict, given: dict, then: str = "in the checkpoint", now: str = "here") -> str | None:
    """The first entry in which two dicts differ, in words; None where they are equal."""
    for name in [*given, *saved]:
        before, after = saved.get(name, "nothing"), given.get(name, "nothing")
        # Another version of torch may know more settings of its modules, or fewer.
        unknown = name.startswith("setting ") and "nothing" in (before, after)
        if before != after and not unknown:
            return f"{name} is {before} {then}, {after} {now}"
    return None
