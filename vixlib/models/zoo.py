"""Names to configurations: every system of the paper as data, `build("ViN")` as a model.

"uniform": one set of sizes for every mixer of a host (ViX: 4 heads × 32, feed-forward 256), as the paper's later
version trains them; compare mechanisms with it.   "paper": the layers that the printed parameter counts of tables
1, 3 and 4 add up to, which differ from row to row; reproduce the tables with it. Where a count leaves the widths open
(ViP's), the printed size decides. Systems that these tables do not print have one configuration under both names.
Performer rows use the "favor" kernel, which is what the paper's published code ran (its text says ReLU).
"""
from __future__ import annotations

import inspect
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from ..errors import require_flag, require_known, require_mapping, require_seed
from .cct import CCT
from .cvt import CvT
from .cxv import CXV
from .levit import LeViT
from .options import takes
from .recompute import recompute_blocks
from .resnet import ResNet18
from .vix import ViX


@dataclass(frozen=True)
class System:
    """One named system: its host class, the settings both configurations share, and what "paper" changes.

    counted_twice: the part whose parameters the "paper" row counts twice: torchsummary counts a module once for each
    attribute that leads to it, and two led to the Performer's transformer.
    """

    host: type[nn.Module]
    about: str
    common: dict = field(default_factory=dict)
    paper: dict = field(default_factory=dict)
    counted_twice: str | None = None


SOFTMAX, PERFORMER, LINFORMER, NYSTROM = ({"mixer": name} for name in ("softmax", "performer", "linformer", "nystrom"))
WIDE = {"dim_head": 64}
BATCH_NORM = {"qkv_norm": True, "out_activation": "gelu"}

SYSTEMS: dict[str, System] = {
    "ViT": System(ViX, "softmax attention", SOFTMAX, WIDE),
    "ViP": System(ViX, "Performer: random features", PERFORMER, {"mlp_dim": 512}, "blocks"),
    "ViL": System(ViX, "Linformer: a projected sequence", LINFORMER,
                  {"shared_head": False, "shared_kv": False, "mlp_dim": 512}),
    "ViN": System(ViX, "Nyströmformer: landmarks", NYSTROM, {**WIDE, "mlp_dim": 512}),
    "FNet": System(ViX, "Fourier transform, no attention", {"mixer": "fourier"}),
    "MLPMixer": System(ViX, "learned matrices over the tokens",
                       {"mixer": "mlp", "position": "none", "pool": "mean", "mlp_dim": 128}),
}
# The same with the convolutional embedding; the paper's HybridViL shares one key/value head, unlike its ViL.
SYSTEMS |= {f"Hybrid{name}": replace(system, about=f"{system.about}; convolutional embedding",
                                     common={**system.common, "embedding": "conv"},
                                     paper={"mlp_dim": 512} if name == "ViL" else system.paper)
            for name, system in SYSTEMS.items()}
SYSTEMS["HybridViP-6/8"] = replace(SYSTEMS["HybridViP"], about="HybridViP with 6 layers and 8 heads",
                                   common={**SYSTEMS["HybridViP"].common, "depth": 6, "heads": 8},
                                   paper={}, counted_twice=None)
SYSTEMS |= {
    "LeViT": System(LeViT, "LeViT, single stage, softmax attention", {**SOFTMAX, **BATCH_NORM, "out_norm": True}),
    "LeViP": System(LeViT, "LeViT with Performer", {**PERFORMER, **BATCH_NORM}, {"widths": (0.25, 0.5, 0.5, 1)}),
    "LeViL": System(LeViT, "LeViT with Linformer", LINFORMER),
    "LeViN": System(LeViT, "LeViT with Nyströmformer", {**NYSTROM, **BATCH_NORM, "out_norm": True}),
    "CCT": System(CCT, "Compact Convolutional Transformer, softmax attention", SOFTMAX),
    "CCP": System(CCT, "CCT with Performer", PERFORMER),
    "CCL": System(CCT, "CCT with Linformer", LINFORMER),
    "CCN": System(CCT, "CCT with Nyströmformer", NYSTROM, {"heads": 8}),
    "CvT": System(CvT, "convolutional projections, softmax attention", SOFTMAX),
    "CvP": System(CvT, "CvT with Performer, linear projections", {**PERFORMER, "projection": "linear"}),
    "CvN": System(CvT, "CvT with Nyströmformer, linear projections", {**NYSTROM, "projection": "linear"}),
    "CPV": System(CXV, "a convolution in every layer, Performer", PERFORMER),
    "CNV": System(CXV, "a convolution in every layer, Nyströmformer", NYSTROM),
    "CLTV": System(CXV, "a convolution in every layer, linear attention",
                   {"mixer": "linear", "projection": "conv", "qkv_bias": True, "scaled": True, "mixer_dropout": 0.0}),
    "ResNet18": System(ResNet18, "residual convolutions, the baseline"),
}
CONFIGS = ("uniform", "paper")


def names() -> list[str]:
    """The systems that `build` knows."""
    return list(SYSTEMS)


def settings(name: str, config: str = "uniform") -> dict:
    """The constructor arguments behind a name and configuration."""
    require_known("name", name, SYSTEMS)
    require_known("config", config, CONFIGS)
    return {**SYSTEMS[name].common, **(SYSTEMS[name].paper if config == "paper" else {})}


def build(name: str, config: str = "uniform", seed: int | None = None, checkpointing: bool = False,
          **overrides) -> nn.Module:
    """The system `name` in a configuration, for CIFAR-10's shape unless `overrides` say otherwise.

    overrides: any argument of the host, mixer, embedding or position, e.g. patch_size=4, num_landmarks=16.
    seed: draw the starting weights from it, leaving torch's global generator as it was; None uses that generator.
    checkpointing: keep only each block's input for backward, for less memory and more time (see recompute.py).
    mixer: another one in the system's place; settings of the system's own mixer that it does not take fall away.
    The model carries `.name`, `.config` and `.options` (the overrides), which its records repeat; with another mixer
    than the system's it is no longer that system, and the name says so: "ViT with Average".
    """
    own = settings(name, config)
    if "mixer" in overrides:
        known = takes(SYSTEMS[name].host, {**own, **overrides})
        own = {option: value for option, value in own.items() if option in known}
    arguments = {**own, **overrides}
    require_flag(checkpointing=checkpointing)
    if seed is not None:
        require_seed("seed", seed)
    place = torch.empty(0).device  # get_default_device of torch 2.6 knows nothing of `with torch.device`
    # A GPU would draw from a generator of its own; a seed gives the same weights wherever the model is wanted.
    drawn_on_cpu = seed is not None and place.type == "cuda"
    with (torch.random.fork_rng(devices=[], enabled=seed is not None),
          torch.device("cpu") if drawn_on_cpu else nullcontext()):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs
        model = SYSTEMS[name].host(**arguments)
    if drawn_on_cpu:
        model.to(place)
    if checkpointing:
        recompute_blocks(model)
        overrides["checkpointing"] = True  # a record names it
    model.name, model.config, model.options = called(name, overrides), config, dict(overrides)
    # With another mixer it is no row of the paper's.
    model.counted_twice_by_paper = SYSTEMS[name].counted_twice if (config, model.name) == ("paper", name) else None
    return model


def called(name: str, overrides: dict) -> str:
    """The system's name; with another mixer than its own, "ViT with Average"."""
    own = SYSTEMS[name].common.get("mixer", "softmax")
    mixer = overrides.get("mixer", own)
    return name if mixer == own else f"{name} with {getattr(mixer, '__name__', mixer)}"


def position_of(name: str, config: str = "uniform") -> str:
    """How the system knows places unless told otherwise: its position, or "none" for hosts without positions."""
    system = settings(name, config)
    if not issubclass(SYSTEMS[name].host, ViX):
        return "none"
    return system.get("position", inspect.signature(ViX).parameters["position"].default)


def applicable(name: str, options: dict, config: str = "uniform") -> dict:
    """The part of `options` that the system `name` takes: num_landmarks for a ViN, rank for a ViL, and so on."""
    require_mapping("options", options)
    chosen = {**settings(name, config), **options}
    known = takes(SYSTEMS[name].host, chosen)
    return {option: value for option, value in options.items() if option in known}


class Named(ViX):
    """A system by its own class, in the uniform configuration and by vision_xformer's argument names; see `ViX` for
    all of them."""

    system: str

    def __init__(self, **options) -> None:
        super().__init__(**{**settings(self.system), **options})
        self.options = dict(options)  # as `build` notes them, for records and checkpoints
        if (name := called(self.system, options)) != self.system:
            self.name = name


class ViT(Named):
    """Vision Transformer."""

    system = "ViT"


class ViP(Named):
    """Vision Performer; own options: num_features, kernel."""

    system = "ViP"


class ViL(Named):
    """Vision Linformer; own options: rank, shared_head, shared_kv."""

    system = "ViL"


class ViN(Named):
    """Vision Nyströmformer; own options: num_landmarks, iterations."""

    system = "ViN"


class FNet(Named):
    """FNet with a CLS token and learned positions."""

    system = "FNet"
