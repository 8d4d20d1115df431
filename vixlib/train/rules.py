"""Which values the settings of training may have: of a TrainConfig, and of settings read from a file."""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from ..data.images import AUGMENTATIONS
from ..errors import require_count, require_kinds, require_known, require_mapping, require_number, require_seed
from ..precision import PRECISIONS
from .compiling import MODES


def require_settings(settings: Mapping) -> None:
    """Each of `settings` must be such as training takes, TypeError or ValueError names the first other one. Any may be
    missing, as from a record that is older, or have a name that is unknown, as from a newer one."""
    for name, rule in RULES.items():
        if name in settings:
            rule(name, settings[name])
    epochs, second = settings.get("epochs", math.inf), settings.get("sgd_from")
    epochs = epochs if second is None else min(epochs, second - 1)
    warmup = settings.get("warmup_epochs", 0)
    if warmup and warmup >= epochs:
        raise ValueError(f"warmup_epochs={warmup} must be less than the {epochs} epochs that AdamW trains; use fewer, "
                         "or more epochs")


def _count(name: str, value: object) -> None:
    require_count(**{name: value})


def _count_or_none(name: str, value: object) -> None:
    if value is not None:
        _count(name, value)


def _number(allowed: Callable[[float], bool], what: str) -> Callable[[str, object], None]:
    return lambda name, value: require_number(name, value, allowed, what)


def _several(name: str, value: object) -> None:
    if not isinstance(value, (tuple, list, set, frozenset)):
        raise TypeError(f"{name}={value!r} must be a tuple, for instance ({value!r},)")


def _betas(name: str, value: object) -> None:
    _several(name, value)
    if len(value) != 2 or not isinstance(value, (tuple, list)):  # a set has no order
        raise ValueError(f"{name}={value} must be two numbers in [0, 1), such as (0.9, 0.999)")
    for beta in value:
        require_number(f"{name}={value}: beta", beta, lambda number: 0 <= number < 1, "in [0, 1), such as 0.9")


def _augmentations(name: str, value: object) -> None:
    _several(name, value)
    for kind in value:
        require_known(name, kind, AUGMENTATIONS)


def _one_of(*known: object) -> Callable[[str, object], None]:
    return lambda name, value: require_known(name, value, known)


_rate = _number(lambda value: value > 0, "above 0, for instance 1e-3")
_from_0 = _number(lambda value: value >= 0, "of 0 or above")
RULES: dict[str, Callable[[str, object], None]] = {
    "epochs": _count, "batch_size": _count, "eval_batch_size": _count_or_none, "sgd_from": _count_or_none,
    "lr": _rate, "sgd_lr": _rate, "eps": _number(lambda value: value > 0, "above 0, for instance 1e-8"),
    "weight_decay": _from_0, "warmup_epochs": _from_0, "betas": _betas, "augment": _augmentations, "seed": require_seed,
    "label_smoothing": _number(lambda value: 0 <= value < 1, "from 0 to below 1"),
    "ema_decay": _number(lambda value: 0 <= value < 1, "from 0 to below 1, for instance 0.999"),
    "schedule": _one_of("constant", "cosine"), "precision": _one_of("auto", *PRECISIONS),
    "compile": _one_of(False, *MODES, "auto"), "deterministic": _one_of(False, True)}

NUMBER = (int, float)
OR_NONE = (*NUMBER, type(None))
CALL_KINDS = {"from_epoch": int, "device": str, "concurrent_runs": int}
EPOCH_KINDS = {"epoch": int, "loss": NUMBER, "top1": NUMBER, "top5": NUMBER, "seconds": NUMBER}


def require_calls(calls: list) -> None:
    """The entries of a run's `calls` must be as training writes them; TypeError or ValueError says what is not."""
    for call in calls:
        require_mapping("a call", call)
        require_kinds(call, CALL_KINDS, "a call")
        require_count(from_epoch=call["from_epoch"], concurrent_runs=call["concurrent_runs"])


def is_percentage(value: float) -> bool:
    return 0 <= value <= 100


def require_epochs(history: list) -> None:
    """The entries of a run's `history` must be its epochs as training writes them, 1, 2, ...; TypeError or ValueError
    says what is not."""
    for number, epoch in enumerate(history, start=1):
        require_mapping("an epoch", epoch)
        require_kinds(epoch, EPOCH_KINDS, "an epoch")
        if epoch["epoch"] != number:
            raise ValueError(f"epoch={epoch['epoch']} stands in the history where epoch {number} belongs")
        for name in ("top1", "top5"):
            require_number(f"{name} of epoch {number}", epoch[name], is_percentage, "from 0 to 100")
        if epoch["top1"] > epoch["top5"]:
            raise ValueError(f"top1={epoch['top1']} of epoch {number} is above its top5={epoch['top5']}")
        require_number(f"loss of epoch {number}", epoch["loss"], lambda loss: True, "as training leaves it")
        require_number(f"seconds of epoch {number}", epoch["seconds"], lambda seconds: seconds >= 0, "of 0 or above")
