"""When a backward pass written by hand may stand in for torch's: only where the module is as torch made it, without
hooks or a forward of its own, and never for a second derivative, which is an error."""
from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules


def untouched(part: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether `part` computes what `kind` does and nothing besides: no class derived from it (LoRA, parametrisations),
    no hooks (pruning, features that somebody looks at), no forward of its own."""
    hooked = (part._forward_pre_hooks or part._forward_hooks or part._backward_pre_hooks or part._backward_hooks
              or hooked_everywhere())
    return type(part) is kind and not hooked and "forward" not in part.__dict__


def hooked_everywhere() -> bool:
    """Whether somebody listens to all modules there are (torch.nn.modules.module.register_module_forward_hook, ...)."""
    return bool(torch_modules._global_forward_hooks or torch_modules._global_forward_pre_hooks
                or torch_modules._global_backward_hooks or torch_modules._global_backward_pre_hooks)


def weight_of(part: nn.Module) -> Tensor | None:
    """The weight of a linear map as torch made it; None for what somebody has put in its place (adapters, a quantised
    map), which decides for itself what it takes."""
    return part.weight if untouched(part, nn.Linear) else None


def as_new(out: Tensor) -> Tensor:
    """What an operation in place has made, as the output of an autograd.Function. Compiled by torch 2.11, the bare
    tensor would have gradients of zero (pytorch issue 180642); not compiled, a view could not be changed in place."""
    return out.view_as(out) if torch.compiler.is_compiling() else out


def once_differentiable(backward: Callable) -> Callable:
    """For the backward pass of an autograd.Function: ValueError where its result is to be differentiated again.

    torch's own decorator says so later, and not at all where torch.autograd.grad is asked for the gradient of an
    input: the second derivative is then wrong without a word.
    """
    @wraps(backward)
    def once(ctx, *gradients):
        if torch.is_grad_enabled():  # in a backward pass with create_graph=True alone
            raise ValueError("create_graph=True: vixlib's own backward passes cannot be differentiated again; leave it "
                             "out, and take second derivatives as differences of gradients")
        return backward(ctx, *gradients)

    return once
