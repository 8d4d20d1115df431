"""A run in the making: everything that a training step or an epoch changes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from ..measure.step import may_fuse
from .averaging import WeightAverage
from .layout import layout, shapes
from .run import Run


@dataclass
class Training:
    """Everything that a training step or an epoch changes.

    forward: what a step calls, the model or several processes' wrapper around it.
    order draws the data order, on the CPU so that it is the same on every device; augmentation draws flips and crops on
    the training device.   stepping: whether training steps are being made just now.
    saved: how many epochs the checkpoint holds.   layout, shapes: of the model before it was trained.
    """

    model: nn.Module
    forward: nn.Module
    scaler: torch.amp.GradScaler
    order: torch.Generator
    augmentation: torch.Generator
    device: torch.device
    run: Run
    average: WeightAverage | None
    optimizer: torch.optim.Optimizer | None = None
    stepping: bool = False
    saved: int = 0
    layout: dict = field(init=False)
    shapes: dict[str, tuple[torch.Size, torch.dtype]] = field(init=False)

    def __post_init__(self) -> None:
        self.layout, self.shapes = layout(self.model), shapes(self.model)

    @property
    def evaluated(self) -> nn.Module:
        """The weights that count: the running average where one is kept."""
        return self.model if self.average is None else self.average.model

    def leave(self) -> None:
        """Leave the model as its scores are: in evaluation mode, with the averaged weights where there are such."""
        self.model.eval()
        if self.average is not None:
            self.average.copy_to(self.model)

    def enter_phase(self, epoch: int) -> None:
        """Put the optimiser in place that `epoch` (counted from 1) is trained with, if it isn't there yet."""
        config = self.run.config
        groups = self.optimizer.param_groups if self.optimizer else ()
        known = {id(parameter) for group in groups for parameter in group["params"]}
        new = [name for name, parameter in self.model.named_parameters() if known and id(parameter) not in known]
        if new:
            raise ValueError(f"model={self.run.model} got {new[0]} after its training began, and nothing would train "
                             "it; change a model before fit, or end one fit and begin another")
        kind = torch.optim.AdamW if epoch <= config.adamw_epochs else torch.optim.SGD
        if type(self.optimizer) is kind:
            return
        fused = may_fuse(self.model)
        self.optimizer = (torch.optim.SGD(self.model.parameters(), lr=config.sgd_lr, momentum=0.9, fused=fused)
                          if kind is torch.optim.SGD else
                          torch.optim.AdamW(self.model.parameters(), lr=config.lr, betas=config.betas, eps=config.eps,
                                            weight_decay=config.weight_decay, fused=fused))
        if kind is torch.optim.SGD:  # the fused form leaves momentum unwritten if float16's scaler skips step 1
            for parameter in self.model.parameters():
                self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
