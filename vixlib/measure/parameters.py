"""How many numbers a model has: all of them, and as the paper counts."""
from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..embeddings import unwrapped
from ..errors import require_model


@dataclass(frozen=True)
class ParameterCount:
    """true: every number in its parameters, frozen ones too.
    as_paper: what the paper's column counts (see `count_parameters`)."""

    true: int
    as_paper: int


def count_parameters(model: nn.Module) -> ParameterCount:
    """All parameters, and the count that torchsummary printed for the paper.

    torchsummary adds up `weight` and `bias` of modules: position tables, CLS token and Linformer's sequence
    projections are bare parameters and left out; modules reachable by two paths were hooked, and counted,
    twice, which the zoo states in `model.counted_twice_by_paper` for the Performer rows of tables 1 and 3.
    """
    require_model(model)
    model = unwrapped(model)

    def weights_and_biases(part: nn.Module) -> int:
        return sum(p.numel() for module in part.modules()
                   for name, p in module.named_parameters(recurse=False) if name in ("weight", "bias"))

    twice = getattr(model, "counted_twice_by_paper", None)
    as_paper = weights_and_biases(model) + (weights_and_biases(model.get_submodule(twice)) if twice else 0)
    return ParameterCount(true=sum(p.numel() for p in model.parameters()), as_paper=as_paper)
