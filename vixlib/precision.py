"""Precisions: in which type a model computes, and the parts that stay in float32 under autocast."""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

PRECISIONS = ("float32", "float16", "bfloat16")
HALF = (torch.float16, torch.bfloat16)
# Asked once, because torch 2.6 cannot ask in a compiled model. "meta", on which shapes alone are computed, has none.
AUTOCAST = {kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind)}


def computing_in(precision: str, x: Tensor) -> AbstractContextManager:
    """A context in which models compute on the device of `x` in `precision`, one of PRECISIONS."""
    if precision == "float32":
        return autocast_off(x.device)
    # Without autocast's store of converted weights, which is emptied where the outermost autocast ends: inside of
    # another one, this step's weights would still be used after the optimiser has changed them.
    return torch.autocast(x.device.type, getattr(torch, precision), cache_enabled=False)


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for the device of `x`, and changes its type: float64 it leaves alone."""
    return x.device.type in AUTOCAST and x.dtype != torch.float64 and torch.is_autocast_enabled(x.device.type)


def autocast_off(device: torch.device) -> AbstractContextManager:
    """A context in which autocast is off on `device`: what runs inside keeps the precision of its inputs."""
    # Not only where it is on: a compiled backward pass is traced as if it were off.
    return torch.autocast(device.type, enabled=False) if device.type in AUTOCAST else nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32 if it was half precision, unchanged otherwise (float64 tests stay float64)."""
    # Laid out as its shape says: heads cut from a wider tensor would be copied once more by the product after it.
    return x.to(torch.float32, memory_format=torch.contiguous_format) if x.dtype in HALF else x


def as_residual(x: Tensor) -> Tensor:
    """`x` as the residual stream that blocks add to: under autocast in float32, since a sum of halves loses digits."""
    return at_least_float32(x) if autocasts(x) else x


def product_type(x: Tensor) -> torch.dtype:
    """The type in which a matrix product of `x` is computed: autocast's where it is on, else that of `x`."""
    return torch.get_autocast_dtype(x.device.type) if autocasts(x) else x.dtype
