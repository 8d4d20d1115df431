"""A running average of a model's weights, which is evaluated in the model's place."""

from __future__ import annotations

from itertools import compress

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..errors import copied


class WeightAverage:
    """The exponential moving average of a model's weights and running statistics of normalisations over training steps.

    average <- d average + (1 - d) weights after every step, with d = min(decay, (1 + steps) / (10 + steps)), so
    that the start is soon forgotten (Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging",
    is where averaging comes from; the growing d is that of TensorFlow's ExponentialMovingAverage).
    Other buffers, such as a counter, a mask or random directions, mean nothing on average and are as the last step left
    them.
    torch's own AveragedModel counts its steps on the device, and reading them would make the host wait every step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copied(model)
        self.model.requires_grad_(False)
        self.model.eval()
        self.decay, self.steps = decay, 0
        norms = [part for part in self.model.modules() if isinstance(part, nn.modules.batchnorm._NormBase)]
        averaged = {id(tensor) for tensor in self.model.parameters()} | {
            id(tensor) for part in norms for tensor in part.buffers()}
        self.averages = [id(tensor) in averaged and (tensor.is_floating_point() or tensor.is_complex())
                         and bool(tensor.isfinite().all()) for tensor in _tensors(self.model)]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights that a step has just changed."""
        ours, theirs = _tensors(self.model), _tensors(model)
        if not self._fit(ours, theirs):
            raise ValueError("ema_decay averages the tensors that a model has before it is trained, and a step has "
                             "given this one others; make its buffers in __init__, with their final shapes and types")
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(*([_as_real(tensor) for tensor in compress(side, self.averages)]
                                       for side in (ours, theirs)), None)
        for own, other, averages in zip(ours, theirs, self.averages, strict=True):
            if not averages:
                own.resize_as_(other).copy_(other)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Give `model` the averaged weights, unless it has become another (see `update`)."""
        ours, theirs = _tensors(self.model), _tensors(model)
        if self._fit(ours, theirs):
            for own, other in compress(zip(ours, theirs, strict=True), self.averages):
                other.copy_(own)

    def _fit(self, ours: list[Tensor], theirs: list[Tensor]) -> bool:
        """Whether there are as many tensors as ever, those that are averaged of the same shapes and types."""
        return len(theirs) == len(ours) and all(
            (own.shape, own.dtype) == (other.shape, other.dtype)
            for own, other in compress(zip(ours, theirs, strict=True), self.averages))

    def state_dict(self) -> dict:
        return {"steps": self.steps, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        self.model.load_state_dict(state["model"])


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _as_real(tensor: Tensor) -> Tensor:
    """Real and imaginary part side by side: torch averages real numbers alone."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
