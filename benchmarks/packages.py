"""Other implementations, as their packages publish them: how to build each one's own blocks and load our weights.

None of them is needed: `pip install .[peers]` brings them, and a package that is absent or does not run with this
torch is a row that says so.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import nn

from .stacks import Shape


@dataclass(frozen=True)
class Package:
    """A package's stack of blocks, `[B, N, D] -> [B, N, D]`, for one of stacks.MODELS.

    build: makes it.   names: for each tensor or layer of vixlib's block, theirs in block {i}; several names take
    equal parts of it in turn.   ff_factor: where the feed-forward's width cannot be chosen, its multiple of dim.
    differs: why the same weights need not give the same outputs, or the same gradients; options: what makes vixlib's as
    close as can be.
    """

    name: str
    model: str
    build: Callable[[Shape], nn.Module]
    names: dict[str, str | tuple[str, ...]]
    ff_factor: int | None = None
    differs: str | None = None
    options: dict | None = None


def installed(package: str) -> str | None:
    """The version of an installed package, None if it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@torch.no_grad()
def load_weights(theirs: nn.Module, ours: nn.Sequential, names: dict[str, str | tuple[str, ...]]) -> None:
    """Copy vixlib's weights into the package's stack; a parameter left without one is a ValueError."""
    targets = {**dict(theirs.named_parameters()), **dict(theirs.named_buffers())}
    filled = set()
    for i, block in enumerate(ours):
        for key, value in block.state_dict().items():
            prefix = next((prefix for prefix in names if key == prefix or key.startswith(prefix + ".")), None)
            if prefix is None:
                raise ValueError(f"vixlib's {key} has no place in {type(theirs).__name__}")
            places = names[prefix] if isinstance(names[prefix], tuple) else (names[prefix],)
            for place, part in zip(places, value.chunk(len(places)), strict=True):
                target = place.format(i=i) + key.removeprefix(prefix)
                targets[target].copy_(part)
                filled.add(target)
    left = {name for name, _ in theirs.named_parameters()} - filled
    if left:
        raise ValueError(f"{type(theirs).__name__} has parameters that vixlib does not: {', '.join(sorted(left))}")


def vit_pytorch(shape: Shape) -> nn.Module:
    from vit_pytorch.vit import Transformer

    stack = Transformer(shape.dim, shape.depth, shape.heads, shape.dim_head, shape.mlp_dim)
    stack.norm = nn.Identity()  # the model's last normalisation, no part of a block
    return stack


def performer_pytorch(shape: Shape) -> nn.Module:
    from performer_pytorch import Performer

    return Performer(shape.dim, shape.depth, shape.heads, shape.dim_head, ff_mult=shape.mlp_dim // shape.dim,
                     auto_check_redraw=False)


def linformer(shape: Shape) -> nn.Module:
    from linformer import Linformer

    return Linformer(shape.dim, shape.tokens, shape.depth, k=shape.landmarks, heads=shape.heads,
                     dim_head=shape.dim_head, one_kv_head=True, share_kv=True)


def nystrom_attention(shape: Shape) -> nn.Module:
    from nystrom_attention import Nystromformer

    return Nystromformer(dim=shape.dim, depth=shape.depth, dim_head=shape.dim_head, heads=shape.heads,
                         num_landmarks=shape.landmarks)


def vision_xformer(model: str, shape: Shape, **own: str) -> nn.Module:
    """The blocks of a vision_xformer model. own: what it calls a field of Shape, e.g. k="landmarks"."""
    import vision_xformer

    # One row of pixels, each a token, after the CLS token: any number of tokens.
    whole = getattr(vision_xformer, model)(
        image_size=(1, shape.tokens - 1), patch_size=1, num_classes=10, dim=shape.dim, depth=shape.depth,
        mlp_dim=shape.mlp_dim, **{name: getattr(shape, field) for name, field in own.items()})
    return whole.token_mixer if model == "FNet" else whole.transformer


def block_names(prefix: str, mixer: dict[str, str | tuple[str, ...]],
                ff: tuple[str, str, str]) -> dict[str, str | tuple[str, ...]]:
    """`Package.names` with every name below "{prefix}{i}.". ff: norm, first and second layer of the feed-forward."""
    whole = {"mixer_norm": "0.norm", **{f"mixer.{ours}": theirs for ours, theirs in mixer.items()},
             "ff_norm": ff[0], "ff.0": ff[1], "ff.3": ff[2]}
    return {ours: tuple(f"{prefix}{{i}}.{name}" for name in (theirs if isinstance(theirs, tuple) else (theirs,)))
            for ours, theirs in whole.items()}


HEADS = {"heads": "heads", "dim_head": "dim_head"}
SPLIT_QKV = ("0.fn.to_q", "0.fn.to_k", "0.fn.to_v")
FAVOR = {"to_qkv": SPLIT_QKV, "directions": "0.fn.fast_attention.projection_matrix", "to_out": "0.fn.to_out"}
PROJECTED = {"to_q": "0.fn.to_q", "to_k": "0.fn.to_k", "project_k": "0.fn.proj_k", "to_out": "0.fn.to_out"}
LANDMARKS = {"to_qkv": "0.fn.to_qkv", "conv": "0.fn.res_conv", "to_out": "0.fn.to_out.0"}
NET = ("1.norm", "1.fn.net.0", "1.fn.net.3")
BATCH_SCALE = ("starts the pseudo-inverse from a maximum over the whole batch, with a gradient, vixlib's from one a "
               "matrix, without")
CONSTANT = "takes the stabiliser of its features for a constant in backward, vixlib's has its gradient"
FRONT = {"padding": "front"}

PACKAGES = (
    Package("vit-pytorch", "ViT", vit_pytorch, block_names(
        "layers.", {"to_qkv": "0.to_qkv", "to_out": "0.to_out.0"}, ("1.net.0", "1.net.1", "1.net.4"))),
    Package("performer-pytorch", "ViP", performer_pytorch, block_names(
        "net.layers.", FAVOR, ("1.norm", "1.fn.fn.w1", "1.fn.fn.w2")), differs=CONSTANT),
    Package("linformer", "ViL", linformer, block_names(
        "net.layers.", PROJECTED, ("1.norm", "1.fn.w1", "1.fn.w2")), ff_factor=4),
    Package("nystrom-attention", "ViN", nystrom_attention, block_names("layers.", LANDMARKS, NET), ff_factor=4,
            differs=BATCH_SCALE, options=FRONT),
    Package("vision-xformer", "ViP", partial(vision_xformer, "ViP", **HEADS), block_names("layers.", FAVOR, NET)),
    Package("vision-xformer", "ViL", partial(vision_xformer, "ViL", k="landmarks", **HEADS),
            block_names("layers.", PROJECTED, NET)),
    Package("vision-xformer", "ViN", partial(vision_xformer, "ViN", num_landmarks="landmarks", **HEADS),
            block_names("layers.", LANDMARKS, NET), differs=BATCH_SCALE, options=FRONT),
    Package("vision-xformer", "FNet", partial(vision_xformer, "FNet"), block_names("layers.", {}, NET)),
)
