"""What a training run is: the settings it was asked for (TrainConfig) and what came of it (Run)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import (
    as_file_path,
    as_path,
    require_between,
    require_count,
    require_kinds,
    require_mapping,
    require_number,
    require_type,
)
from ..files import write_atomic
from ..provenance import SHARED_BY, now, versions
from .rules import NUMBER, OR_NONE, require_calls, require_epochs, require_settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the fields that a Run computes with.
KINDS = {"model": str, "dataset": str, "options": dict, "config": Mapping, "train_images": int, "device": str,
         "precision": str, "train_seconds": NUMBER, "timed_epochs": int, "history": list, "finished": bool,
         "interrupted": bool, "calls": list, "peak_memory_bytes": OR_NONE, "digest": (str, type(None))}
LOSS_COLOUR, ACCURACY_COLOUR = "#0072B2", "#D55E00"  # told apart with any colour vision (Okabe and Ito, 2008)


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are the protocol of "Vision Xformers: Efficient Attention for Image
    Classification" (arXiv 2107.02239), section 5 and its published scripts: AdamW, batch 64, 40 epochs.

    precision: "auto" suits the device (see `pick_precision`). augment: any of "flip", "crop".
    eval_batch_size: None takes four times batch_size; it changes speed and memory only, not results.
    sgd_from: None, or the first epoch (counted from 1) of a second phase that "Convolutional Xformers for Vision"
    trains with: plain SGD with momentum 0.9 and learning rate sgd_lr, without weight decay, in AdamW's place.
    warmup_epochs, schedule ("constant" or "cosine"): how AdamW's learning rate runs, see `learning_rate`.
    label_smoothing: part of every training target that is spread evenly over the classes (Szegedy et al.,
    "Rethinking the Inception Architecture for Computer Vision", section 7); the training loss then contains it.
    ema_decay: 0, or how much of the running average of weights stays at every step; see `WeightAverage`.
    compile: run the model through torch.compile; "graphs": and on a GPU replay its kernels as CUDA graphs; "auto":
        compile where a GPU and a long run make it pay, see `compile_mode`. What else this process has compiled is
        compiled anew at its next call.
    deterministic: on a GPU, too, the same seed gives the same bits, with slower kernels; on a CPU it always does.
    """

    epochs: int = 40
    batch_size: int = 64
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    seed: int = 0
    precision: str = "auto"
    augment: tuple[str, ...] = ()
    eval_batch_size: int | None = None
    sgd_from: int | None = None
    sgd_lr: float = 1e-3
    warmup_epochs: float = 0.0
    schedule: str = "constant"
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    compile: bool | str = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        require_settings(vars(self))
        for name, own in self.__dataclass_fields__.items():
            if own.type == "float":  # 0 is 0.0, and np.float64 could not be read back from a checkpoint
                object.__setattr__(self, name, float(getattr(self, name)))
        # JSON's lists become tuples, and augment gets one order, so that equal settings compare equal.
        object.__setattr__(self, "betas", tuple(map(float, self.betas)))  # torch refuses (0, 0.9)
        object.__setattr__(self, "augment", tuple(sorted(set(self.augment))))

    @property
    def adamw_epochs(self) -> int:
        """Epochs of the first phase; all of them where there is no second."""
        return self.epochs if self.sgd_from is None else min(self.epochs, self.sgd_from - 1)

    def to_dict(self) -> dict:
        """Every field, as JSON gives it back: lists for tuples."""
        return json.loads(json.dumps(asdict(self)))


@dataclass(repr=False)
class Run:
    """What one training run gave; `fit` returns it and passes it to `on_epoch` while it grows.

    history: one {epoch, loss, top1, top5, seconds} per epoch: mean training loss, accuracies on the test
    images in percent, seconds for training and evaluation together.
    train_seconds: training steps alone, of timed_epochs epochs: of a compiled call the first, which is mostly the
    compiler's, is left out. peak_memory_bytes: largest allocation of a training epoch on CUDA, cuBLAS's
    workspaces (tens of MiB) with it, the data set not counted; None on a CPU, and with CUDA graphs, whose memory torch
    does not count. interrupted: by the user.
    finished: all config.epochs are done.
    started, finished_at: of the first and the last epoch so far, in UTC.
    calls: one {from_epoch, device, precision, concurrent_runs, torch, vixlib, commit} for each call of fit that trained
    a part of it.
    digest: of the pictures, which tells them from others of the same name; None in runs of before it was noted.
    """

    model: str
    model_config: str | None
    options: dict
    dataset: str
    train_images: int
    config: TrainConfig
    device: str
    precision: str
    history: list[dict] = field(default_factory=list)
    train_seconds: float = 0.0
    timed_epochs: int = 0
    peak_memory_bytes: int | None = None
    interrupted: bool = False
    finished: bool = False
    started: str = field(default_factory=now)
    finished_at: str | None = None
    calls: list[dict] = field(default_factory=list)
    digest: str | None = None

    def begin_call(self) -> None:
        """Note on what the epochs that follow are trained."""
        self.calls = [call for call in self.calls if call["from_epoch"] <= len(self.history)]  # not one without epochs
        self.calls.append({"from_epoch": len(self.history) + 1, "device": self.device, "precision": self.precision,
                           "concurrent_runs": SHARED_BY.get(), **versions()})

    @property
    def best_top1(self) -> float | None:
        """The best epoch's, as the paper reports it: chosen on the test images, so optimistic."""
        return max((epoch["top1"] for epoch in self.history), default=None)

    @property
    def best_top5(self) -> float | None:
        return max((epoch["top5"] for epoch in self.history), default=None)

    @property
    def last_top1(self) -> float | None:
        """The last epoch's: nothing is chosen, so nothing flatters."""
        return self.history[-1]["top1"] if self.history else None

    @property
    def last_top5(self) -> float | None:
        return self.history[-1]["top5"] if self.history else None

    @property
    def images_per_second(self) -> float | None:
        """Training images per second of training steps, evaluation and compiling left out; None before any epoch that
        tells."""
        if not self.history or not self.train_seconds:
            return None
        return self.train_images * self.timed_epochs / self.train_seconds

    def __repr__(self) -> str:
        done = f"epoch {len(self.history)}/{self.config.epochs}{', interrupted' if self.interrupted else ''}"
        scores = ("nothing measured yet" if not self.history else
                  f"top-1 best {self.best_top1:.2f} %, last {self.last_top1:.2f} %"
                  + (f", {self.images_per_second:.0f} images/s" if self.images_per_second else ""))
        return f"Run({self.model} on {self.dataset}, {done}: {scores}, {self.precision} on {self.device})"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the training loss (left axis) and the top-1 accuracy (right axis) by epoch; returns `ax`."""
        if not self.history:
            raise ValueError("this run has no epoch to plot yet; train for at least one epoch first")
        import matplotlib.pyplot as plt
        from matplotlib.ticker import MaxNLocator

        ax = ax if ax is not None else plt.subplots(figsize=(6, 3.5), layout="constrained")[1]
        accuracy = ax.twinx()
        epochs = [epoch["epoch"] for epoch in self.history]
        # Line style and marker tell the curves apart in print, too.
        for axis, key, label, colour, style in (
                (ax, "loss", "training loss (nats)", LOSS_COLOUR, "o-"),
                (accuracy, "top1", "test top-1 accuracy (%)", ACCURACY_COLOUR, "s--")):
            axis.plot(epochs, [epoch[key] for epoch in self.history], style, color=colour, markersize=4)
            axis.set_ylabel(label, color=colour)
            axis.tick_params(axis="y", colors=colour)
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_title(f"{self.model} on {self.dataset}")
        return ax

    def to_dict(self) -> dict:
        """Everything that JSON can hold: the fields, and the figures derived from them."""
        derived = ("best_top1", "best_top5", "last_top1", "last_top5", "images_per_second")
        # A copy all through, so that a saved state doesn't grow with the run.
        return json.loads(json.dumps({**asdict(self), **{name: getattr(self, name) for name in derived}}))

    @classmethod
    def from_dict(cls, saved: Mapping) -> Run:
        """The run that `to_dict` described; KeyError names a field that is missing, TypeError one of another type."""
        require_mapping("a run", saved)
        # Runs of before these were noted have no calls, and count every epoch.
        saved = {"calls": [], "timed_epochs": len(saved.get("history") or ()), "digest": None, **saved}
        values = {item.name: saved[item.name] for item in fields(cls)}
        require_kinds(values, KINDS, "the run")
        require_count(train_images=values["train_images"])
        require_number("train_seconds", values["train_seconds"], lambda seconds: seconds >= 0, "of 0 or above")
        require_epochs(values["history"])
        require_calls(values["calls"])
        require_type("position", values["options"].get("position", ""), str, "a name")
        require_between(0, len(values["history"]), timed_epochs=values["timed_epochs"])
        return cls(**{**values, "config": TrainConfig(**saved["config"])})

    def save(self, path: str | Path) -> Path:
        """Write the run to `path` as JSON, atomically."""
        return write_atomic(as_file_path("path", path), json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """Read what `save` wrote; a ValueError names a file that is something else."""
        file = as_path("path", path)
        if file.exists() and not file.is_dir():
            as_file_path("path", path)  # reading a pipe need never end
        try:
            return cls.from_dict(json.loads(file.read_text(encoding="utf-8")))
        except (IsADirectoryError, RecursionError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"path={str(path)!r} is no saved run ({type(error).__name__}: {error}); "
                             "use a file written by Run.save") from error


def training_settings(record: dict) -> dict:
    """The training settings of a record that decide its result, but for the seed."""
    # Through TrainConfig, because a record older than a setting was made with its default; one by a newer vixlib may
    # have settings that are unknown here, which still have to agree.
    known = {name: value for name, value in record["train"].items() if name in TrainConfig.__dataclass_fields__}
    train = {**record["train"], **TrainConfig(**known).to_dict()}
    return {name: value for name, value in train.items() if name not in ("seed", "eval_batch_size", "compile")}
