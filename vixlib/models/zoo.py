"""Names to configurations: every system of the paper as data, `build("ViN")` as a model.

"uniform": one set of sizes for every mixer (4 heads × 32, feed-forward 256), as the paper's later version trains
them; compare mechanisms with it.   "paper": the layers that the printed parameter counts of tables 1 and 3 add
up to, which differ from row to row; reproduce the tables with it.
Performer rows use the "favor" kernel, which is what the paper's published code ran (its text says ReLU).
"""
from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from ..errors import require_known
from .options import takes
from .vix import ViX


@dataclass(frozen=True)
class System:
    """One named system: its host class, the settings both configurations share, and each one's own."""

    host: type[nn.Module]
    about: str
    common: dict
    uniform: dict = field(default_factory=dict)
    paper: dict = field(default_factory=dict)
    # The part whose parameters the paper's "paper" row counts twice: torchsummary hooked the Performer's
    # transformer by two paths.
    counted_twice: str | None = None


def _vix_systems() -> dict[str, System]:
    """ViT, ViP, ViL, ViN, FNet, MLPMixer with the linear embedding, and again with the convolutional one."""
    wide_heads = {"dim_head": 64}
    unshared = {"shared_head": False, "shared_kv": False, "mlp_dim": 512}
    rows = {
        "ViT": ("softmax attention", {"mixer": "softmax"}, wide_heads, wide_heads, None),
        "ViP": ("Performer: random features", {"mixer": "performer"}, {**wide_heads, "out_bias": False},
                {**wide_heads, "out_bias": False}, "blocks"),
        "ViL": ("Linformer: projected sequence", {"mixer": "linformer"}, unshared, {"mlp_dim": 512}, None),
        "ViN": ("Nyströmformer: landmarks", {"mixer": "nystrom"}, {**wide_heads, "mlp_dim": 512},
                {**wide_heads, "mlp_dim": 512}, None),
        "FNet": ("Fourier transform, no attention", {"mixer": "fourier"}, {}, {}, None),
        "MLPMixer": ("a learned matrix over the tokens",
                     {"mixer": "mlp", "position": "none", "pool": "mean", "mlp_dim": 128}, {}, {}, None),
    }
    systems = {name: System(ViX, about, common, paper=paper, counted_twice=twice)
               for name, (about, common, paper, _, twice) in rows.items()}
    systems |= {f"Hybrid{name}": System(ViX, f"{about}, convolutional embedding", {**common, "embedding": "conv"},
                                        paper=paper, counted_twice=twice)
                for name, (about, common, _, paper, twice) in rows.items()}
    return systems


SYSTEMS: dict[str, System] = _vix_systems()
CONFIGS = ("uniform", "paper")


def names() -> list[str]:
    """The systems that `build` knows."""
    return list(SYSTEMS)


def settings(name: str, config: str = "uniform") -> dict:
    """The constructor arguments behind a name and configuration."""
    require_known("name", name, SYSTEMS)
    require_known("config", config, CONFIGS)
    return {**SYSTEMS[name].common, **getattr(SYSTEMS[name], config)}


def build(name: str, config: str = "uniform", seed: int | None = None, **overrides) -> nn.Module:
    """The system `name` in a configuration, for CIFAR-10's shape unless `overrides` say otherwise.

    overrides: any argument of the host, mixer, embedding or position, e.g. patch_size=4, num_landmarks=16.
    seed: draw the starting weights from it, leaving torch's global generator as it was; None uses that generator.
    The model carries `.name`, `.config` and `.options` (the overrides), which its records repeat.
    """
    arguments = {**settings(name, config), **overrides}
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        model = SYSTEMS[name].host(**arguments)
    model.name, model.config, model.options = name, config, dict(overrides)
    model.counted_twice_by_paper = SYSTEMS[name].counted_twice if config == "paper" else None
    return model


def applicable(name: str, options: dict, config: str = "uniform") -> dict:
    """The part of `options` that the system `name` takes: num_landmarks for a ViN, rank for a ViL, and so on."""
    known = takes(SYSTEMS[name].host, {**settings(name, config), **options})
    return {option: value for option, value in options.items() if option in known}


class ViT(ViX):
    """Vision Transformer, uniform configuration, by vision_xformer's argument names (see `ViX` for all of them)."""

    def __init__(self, **options) -> None:
        super().__init__(**{**settings(type(self).__name__), **options})


class ViP(ViT):
    """Vision Performer, as ViT; own options: num_features, kernel."""


class ViL(ViT):
    """Vision Linformer, as ViT; own options: rank, shared_head, shared_kv."""


class ViN(ViT):
    """Vision Nyströmformer, as ViT; own options: num_landmarks, iterations."""


class FNet(ViT):
    """FNet with a CLS token and learned positions, as ViT."""
