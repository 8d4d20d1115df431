"""Looking inside a model: the inputs its mixers get, and where each token looks."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from .mixers import SoftmaxAttention


@torch.no_grad()
def mixer_inputs(model: nn.Module, images: Tensor) -> list[tuple[Tensor, object]]:
    """What each block's mixer is called with on `images` `[B, C, H, W]`: (x `[B, N, D]`, rotary or None) a layer.

    The host must hold its layers in `model.blocks`, each with a `mixer`. The model is left in the mode it was in.
    """
    if not hasattr(model, "blocks"):
        raise ValueError(f"model {type(model).__name__} has no .blocks with mixers to look into")
    seen: list[tuple[Tensor, object]] = []

    def remember(_module, arguments, keywords) -> None:
        seen.append((arguments[0], keywords.get("rotary")))

    hooks = [block.mixer.register_forward_pre_hook(remember, with_kwargs=True) for block in model.blocks]
    training = model.training
    try:
        model.eval()(images)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return seen


@torch.no_grad()
def attention_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The attention matrix of each softmax layer on `images`, `[B, H, N, N]` a layer; rows sum to one."""
    maps = []
    for block, (x, rotary) in zip(model.blocks, mixer_inputs(model, images), strict=True):
        if not isinstance(block.mixer, SoftmaxAttention):
            raise ValueError(f"{type(block.mixer).__name__} never forms an attention matrix; attention_maps needs a "
                             "softmax model, such as ViT")
        q, k, _ = block.mixer.split(x, rotary)
        maps.append(SoftmaxAttention.attention(q, k))
    return maps
