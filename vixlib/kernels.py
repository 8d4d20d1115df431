"""By which of torch's kernels a GPU computes: fast or repeatable ones, in the precision that was asked for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.nn.functional as F

from .device import device_name

# For deterministic runs. torch looks once, at its first matrix product on a GPU, so any later is too late.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def training_kernels(deterministic: bool) -> Iterator[None]:
    """Convolutions by the kernel that is fastest here; or, if `deterministic`, no operation whose result depends on the
    order in which a GPU's threads finish (RuntimeError, from torch, at one that has no such form). No rounding of
    float32 convolutions to TF32, no attention kernel that is known to fail. The settings are as before afterwards."""
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    cudnn_attention = torch.backends.cuda.cudnn_sdp_enabled()
    warns_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if deterministic:
        torch.use_deterministic_algorithms(True)
    # It tries all kernels at each new shape, and need not choose the same one each time.
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cuda.enable_cudnn_sdp(cudnn_attention and not cudnn_attention_fails())
    try:
        with float32_convolutions():
            yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(cudnn_attention)
        torch.use_deterministic_algorithms(before, warn_only=warns_only)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def float32_convolutions() -> Iterator[None]:
    """Convolutions of float32 numbers in float32: torch lets GPUs round them to TF32's ten bits, as it does with no
    other operation, and a result would be called float32 all the same."""
    cudnn = torch.backends.cudnn
    # From torch 2.9 on each kind of operation has a setting, which overrules one for all. The older flag stands for two
    # of them, and cannot be read where they disagree with it.
    newer = [(getattr(cudnn, kind), "fp32_precision", "ieee") for kind in ("conv", "rnn") if hasattr(cudnn, kind)]
    wanted, before = [(cudnn, "allow_tf32", False), *newer], []
    for holder, name, _ in wanted:
        with suppress(RuntimeError):
            before.append((holder, name, getattr(holder, name)))
    try:
        for setting in wanted[len(wanted) - len(before):]:
            setattr(*setting)
        yield
    finally:
        for setting in before:
            setattr(*setting)


def cudnn_attention_fails() -> bool:
    """Whether cuDNN's attention, which torch prefers on GPUs of capability 9 (H100, H200), may give gradients that are
    NaN where there are 64 keys, as many as the paper has landmarks: before cuDNN 9.26 (pytorch issue 196678)."""
    # Where CUDA has not begun, or cannot, as in a forked process, nothing is trained on it.
    return (torch.cuda.is_initialized() and torch.cuda.get_device_capability()[0] == 9
            and (torch.backends.cudnn.version() or 0) < 92600)


def fused_attention_problem(device: torch.device | str, precision: str, dim_head: int) -> str | None:
    """Why scaled_dot_product_attention would store its N×N matrices here, in a sentence; None if it would not.

    Where no fused kernel takes the inputs, torch silently computes by the plain formula: the same result, but memory
    and time grow with N². Asked by running it, because kernels depend on device, precision, head width and build.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    q = torch.zeros(1, 1, 8, dim_head, device=device, dtype=getattr(torch, precision), requires_grad=True)
    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    fused += [] if cudnn_attention_fails() else [SDPBackend.CUDNN_ATTENTION]  # as `training_kernels` has it
    try:
        with warnings.catch_warnings(record=True) as said, sdpa_kernel(fused):
            warnings.simplefilter("always")
            F.scaled_dot_product_attention(q, q, q).sum().backward()
    except RuntimeError as error:
        reasons = " ".join(str(warning.message).split("(Triggered")[0].strip() for warning in said)
        return (f"no fused attention kernel takes {precision} with a head width of {dim_head} on "
                f"{device_name(device)}, so softmax attention stores N×N matrices "
                f"({reasons or str(error).splitlines()[0]}); "
                'use precision="auto" and a dim_head divisible by 8')
    return None
