"""Profiles: how much a run may cost. One name sets data, model size and training for a whole notebook."""
from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from .data.sources import HELP, SOURCES, find
from .device import describe, pick_precision
from .errors import as_device, as_path, require_known, require_type
from .files import ROOT
from .measure.durations import notebook_time
from .models.zoo import applicable
from .train.run import TrainConfig


@dataclass(frozen=True)
class Profile:
    """What a run of this profile trains on and how.

    data: the data set's name for `load`.   config: the zoo's, "uniform" or "paper".
    options: for `build`, as far as a system takes them.   gpu: fields that differ where there is a GPU.
    """

    name: str
    about: str
    data: str
    config: str
    train: TrainConfig
    options: dict = field(default_factory=dict)
    gpu: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Its own: who changes one profile's options changes no other's.
        object.__setattr__(self, "options", dict(self.options))

    def on(self, device: torch.device | str) -> Profile:
        """This profile as it is on `device`."""
        return replace(self, **(self.gpu if as_device("device", device).type == "cuda" else {}), gpu={})

    def options_for(self, name: str, **more) -> dict:
        """The `build` options of system `name` under this profile; `more` wins over the profile's own."""
        return applicable(name, {**self.options, **more}, self.config)


SIZED_DOWN = {"patch_size": 4, "num_landmarks": 16, "rank": 16}  # 64 tokens and CLS instead of 1024

# The paper's 40 epochs, with what has become usual for small pictures since.
MODERN = TrainConfig(batch_size=128, lr=2e-3, weight_decay=0.05, augment=("flip", "crop"), warmup_epochs=3,
                     schedule="cosine", label_smoothing=0.1)

QUICK_ON_GPU = {"train": TrainConfig(epochs=10, batch_size=128),
                "options": {"patch_size": 2, "num_landmarks": 32, "rank": 32}}

PROFILES = {profile.name: profile for profile in (
    Profile("smoke", "everything runs and learns, on any CPU, in minutes", "shapes", "uniform",
            TrainConfig(epochs=2, batch_size=64, lr=2e-3),
            {**SIZED_DOWN, "dim": 64, "depth": 2, "dim_head": 16, "mlp_dim": 128}),
    Profile("quick", "real pictures in minutes: 4×4 patches on a CPU, 2×2 on a GPU", "cifar10", "uniform",
            TrainConfig(epochs=1, batch_size=128), SIZED_DOWN,
            gpu=QUICK_ON_GPU),
    Profile("quick-slow", "the same, at three tenths of the learning rate", "cifar10", "uniform",
            TrainConfig(epochs=1, batch_size=128, lr=3e-4), SIZED_DOWN,
            gpu={**QUICK_ON_GPU, "train": replace(QUICK_ON_GPU["train"], lr=3e-4)}),
    Profile("long", "what quick trains on a CPU, ten epochs of it", "cifar10", "uniform",
            TrainConfig(epochs=10, batch_size=128), SIZED_DOWN),
    Profile("long-modern", "the same, trained as one would today", "cifar10", "uniform",
            replace(MODERN, epochs=10, warmup_epochs=1), SIZED_DOWN),
    Profile("paper", "the paper's protocol: every pixel a token, 40 epochs at batch 64", "cifar10", "paper",
            TrainConfig()),
    Profile("first-epoch", "every pixel a token, one epoch: what a CPU can do of the authors' own runs", "cifar10",
            "uniform", TrainConfig(epochs=1, precision="float32")),
    Profile("modern", "the paper's models and epochs, trained as one would today", "cifar10", "paper", MODERN),
)}


def announce(profile: Profile, device: torch.device | str, notebook: str) -> None:
    """Print what `notebook` (its file's name without ending) runs on and with, how long it will take, and what to do
    if that is only a CPU. Takes a training step to find out, and downloads nothing."""
    require_type("profile", profile, Profile, "one of vixlib.PROFILES' values")
    require_type("notebook", notebook, str, "a notebook's name, such as '01_vit'")
    import vixlib  # for its version, which is set before this module is imported

    here = "of this checkout" if (ROOT / "pyproject.toml").is_file() else f"in {Path(__file__).parent}"
    said = {"vixlib": f"{vixlib.__version__}, {here}", "device": describe(device),
            "precision": pick_precision(device, profile.train.precision),
            "profile": f"{profile.name}: {profile.about}",
            "training": f"{profile.train.epochs} epoch(s) of {profile.data}, batch {profile.train.batch_size}",
            "pictures": _whereabouts(profile.data), "time": notebook_time(notebook, profile.name, profile.data, device)}
    if torch.device(device).type != "cuda":
        sized_down, long = bool(profile.options), "hours" if profile.train.epochs == 1 else "days"
        said["no GPU"] = (("everything here still runs, sized down. For more, " if sized_down else
                           f"profile {profile.name!r} sizes nothing down, and on a CPU that takes {long}: choose "
                           "'quick' or 'smoke', or a GPU. ")
                          + "Colab: Runtime > Change runtime type > T4; Kaggle: Settings > Accelerator > GPU T4 x2; "
                            "then run all cells again.")
    for name, text in said.items():  # no line wider than a cell on a tablet
        print(textwrap.fill(f"{name:<9} {text}", 88, subsequent_indent=" " * 10, break_long_words=False))


def _whereabouts(data: str) -> str:
    """Where the pictures of a data set are, in words."""
    if data == "shapes":
        return "drawn by vixlib, no files needed"
    if data not in SOURCES:
        return f"in {data}" if as_path("data", data).exists() else f"not found: there is no {data}"
    if found := find(data):
        return f"found in {found}"
    size = SOURCES[data].megabytes
    slow = "; its host is slow, and it may take an hour" if SOURCES[data].torchvision else ""
    return f"not found: {f'a download of {size} MB follows{slow}' if size else HELP}"


def current_profile(choice: str | Profile = "auto", device: torch.device | str = "cpu") -> Profile:
    """The profile to use: environment variable VIX_PROFILE, else `choice`; "auto" is what suits the device. A Profile
    is returned as it is, so that a cell that replaces the choice by it can be run again.

    "auto" takes smoke on a CPU, quick on a GPU. The variable VIX_DATASET (a name or folder for `load`)
    replaces the profile's data set.
    """
    device = as_device("device", device)
    if isinstance(choice, Profile):
        return choice
    named = os.environ.get("VIX_PROFILE")
    wanted = named or choice
    if wanted == "auto":
        wanted = "quick" if device.type == "cuda" else "smoke"
    require_known("the environment variable VIX_PROFILE" if named else "profile", wanted, PROFILES)
    profile = PROFILES[wanted].on(device)
    return replace(profile, data=os.environ.get("VIX_DATASET") or profile.data)
