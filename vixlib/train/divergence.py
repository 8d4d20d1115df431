"""Divergence: which number of a training ceased to be finite first, and the error that says so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .run import Run

SMALLEST_SCALE = 2.0**-10  # of a loss; GradScaler begins at 2**16 and halves at each overflow


def first_failure(losses: Tensor, finite: Tensor, names: Sequence[str], epoch: str) -> str | None:
    """What became infinite or NaN first, and at which step; None if all stayed finite.

    losses: `[steps]`.   finite: `[steps, parameters]`, whether each of `names` was finite after each step.
    """
    bad = (losses.isfinite() & finite.all(1)).logical_not().nonzero()
    if not len(bad):
        return None
    step = int(bad[0])
    loss, where = losses[step], f"at {epoch}, step {step + 1} of {len(losses)}"
    ruined = [name for name, good in zip(names, finite[step].tolist(), strict=True) if not good]
    which = f"parameter {ruined[0]}" + (f" (and {len(ruined) - 1} more)" if len(ruined) > 1 else "") if ruined else ""
    if loss.isfinite():
        return f"{which} became infinite or NaN, while the loss was still {loss.item():.4g}, {where}"
    return f"loss became {loss.item()} {where}" + (f", and with it {which}" if ruined else "")


def no_scale(scaler: torch.amp.GradScaler) -> str | None:
    """What to say where float16's gradients overflow even when they are scaled down: no step is taken any more, and
    losses and parameters stay as finite as they were. None where steps are taken."""
    if not scaler.is_enabled() or scaler.get_scale() > SMALLEST_SCALE:
        return None
    return f"gradients overflow at every scale of the loss, down to {scaler.get_scale():.0e}, so that no step is taken"


def not_finite(run: Run, what: str) -> FloatingPointError:
    rate = "lr" if len(run.history) < run.config.adamw_epochs else "sgd_lr"
    advice = f"use a lower {rate} than {getattr(run.config, rate):g}"
    if run.precision != "float32":
        advice += f', or precision="float32" instead of {run.precision}'
    error = FloatingPointError(f"the {what}; {advice}")
    error.run = run  # the epochs before are not lost
    return error
