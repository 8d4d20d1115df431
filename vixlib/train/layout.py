"""What a model is made of, in plain data: two models of the same layout compute the same from the same weights."""

from __future__ import annotations

import torch
from torch import nn

SAME_NUMBERS = ("checkpointing", "fused")  # options that change a step's memory and time alone


def shapes(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """The shape and type of each tensor of a model's state."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()
            if isinstance(tensor, torch.Tensor)}


def layout(model: nn.Module) -> dict:
    """What the model is made of: shapes, which parameters are trained, its parts and their settings."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors = {name: f"{list(shape)}{'' if name in trained else ', not trained'}"
               for name, (shape, _) in shapes(model).items()}
    parts = {f"part {name}": type(part).__name__ for name, part in model.named_modules()
             if name and not isinstance(part, nn.modules.batchnorm._BatchNorm)}  # several processes have one of theirs
    # In modules of others an attribute may be anything: a counter, a path.
    known = [(name or "model", part) for name, part in model.named_modules()
             if type(part).__module__.split(".")[0] in ("vixlib", "torch")]
    settings = {f"setting {name}.{key}": repr(value) for name, part in known
                for key, value in vars(part).items() if _is_setting(key, value)}
    return tensors | parts | settings


def _is_setting(name: str, value: object) -> bool:
    """Whether a module's attribute decides what it computes: a plain value, such as a number of heads or a stride."""
    if name.startswith("_") or name in (*SAME_NUMBERS, "training", "was_trained"):
        return False
    if isinstance(value, (tuple, list)):
        return all(_is_setting("", item) for item in value)
    return value is None or type(value) in (bool, int, float, str)
