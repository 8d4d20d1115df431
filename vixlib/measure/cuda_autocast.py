"""Mixed precision on a CPU with a GPU's choice of types, so that a prediction made here holds there."""
from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from ..precision import HALF

# What autocast computes in float32 on CUDA, as far as a model may use it ("CUDA Ops that can autocast to float32" in
# torch's documentation of AMP). On a CPU most of these keep the half type of their input.
FLOAT32_ON_CUDA = {
    "softmax", "log_softmax", "softmin", "softplus", "logsumexp", "cross_entropy", "nll_loss", "mse_loss", "layer_norm",
    "group_norm", "norm", "cosine_similarity", "cdist", "exp", "expm1", "log", "log10", "log1p", "log2", "pow",
    "__pow__", "__rpow__", "reciprocal", "rsqrt", "sum", "prod", "cumsum", "cumprod"}


class CudaAutocast(TorchFunctionMode):
    """Inside it, autocast on the CPU computes in float32 what it computes in float32 on CUDA."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in FLOAT32_ON_CUDA and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map(_widened, (args, kwargs))
        return function(*args, **kwargs)


def _widened(value: object) -> object:
    half = isinstance(value, Tensor) and value.dtype in HALF
    return value.float() if half else value
