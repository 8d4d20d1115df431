"""Which values the settings of training may have: the rules of run.TrainConfig, for settings read from a file."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from .errors import require_count, require_known, require_number, require_rate, require_seed, require_type
from .images import AUGMENTATIONS
from .precision import PRECISIONS


def require_settings(settings: Mapping) -> None:
    """Each of `settings` must be such as TrainConfig takes, TypeError or ValueError names the first other one. Any may
    be missing, as from a record that is older, or unknown, as from a newer one."""
    for name, rule in RULES.items():
        if name in settings:
            rule(name, settings[name])
    warmup, last = settings.get("warmup_epochs", 0), (settings.get("sgd_from") or math.inf) - 1
    if warmup and warmup >= min(settings.get("epochs", math.inf), last):
        raise ValueError(f"warmup_epochs={warmup} must be less than the epochs that AdamW trains")


def _count(name: str, value: object) -> None:
    require_count(**{name: value})


def _count_or_none(name: str, value: object) -> None:
    if value is not None:
        _count(name, value)


def _above_0(name: str, value: object) -> None:
    require_number(name, value, lambda number: number > 0, "above 0")


def _from_0(name: str, value: object) -> None:
    require_number(name, value, lambda number: number >= 0, "of 0 or above")


def _betas(name: str, value: object) -> None:
    require_type(name, value, (list, tuple), "a list")
    if len(value) != 2:
        raise ValueError(f"{name}={value} must be two numbers")
    for beta in value:
        require_rate(f"{name}={value}: beta", beta)


def _augmentations(name: str, value: object) -> None:
    require_type(name, value, (list, tuple), "a list")
    for kind in value:
        require_known(name, kind, AUGMENTATIONS)


def _one_of(*known: object) -> Callable[[str, object], None]:
    return lambda name, value: require_known(name, value, known)


RULES: dict[str, Callable[[str, object], None]] = {
    "epochs": _count, "batch_size": _count, "eval_batch_size": _count_or_none, "sgd_from": _count_or_none,
    "lr": _above_0, "sgd_lr": _above_0, "eps": _above_0, "weight_decay": _from_0, "warmup_epochs": _from_0,
    "label_smoothing": require_rate, "ema_decay": require_rate, "betas": _betas, "augment": _augmentations,
    "seed": require_seed, "schedule": _one_of("constant", "cosine"), "precision": _one_of("auto", *PRECISIONS),
    "compile": _one_of(False, True, "graphs", "auto"), "deterministic": _one_of(False, True)}
