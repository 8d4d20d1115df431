"""Looking inside a model: what its mixers get, where each token looks, what remains when a picture moves."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.images import normalised, require_labels, require_pictures
from ..errors import (
    MOST,
    require_between,
    require_count,
    require_known,
    require_like,
    require_pair,
    require_type,
    require_weights,
)
from ..mixers import (
    LinformerAttention,
    NystromAttention,
    PerformerAttention,
    SoftmaxAttention,
    segment_means,
)
from ..mixers.nystrom import pseudo_inverse, require_iterations
from ..positions import Rotary
from .scoring import evaluating, logits_of, place_of, uncompiled


@torch.no_grad()
def mixer_inputs(model: nn.Module, images: Tensor) -> list[tuple[Tensor, object]]:
    """What each block's mixer is called with on `images` `[B, C, H, W]`: (x `[B, N, D]`, rotary or None) a layer.

    The host must hold its layers in `model.blocks`, each with a `mixer`. The model is left in the mode it was in.
    """
    if not hasattr(model, "blocks") or not all(hasattr(block, "mixer") for block in model.blocks):
        raise ValueError(f"model {type(model).__name__} has no .blocks with mixers to look into")
    seen: list[tuple[Tensor, object]] = []

    def remember(_module, arguments, keywords) -> None:
        seen.append((arguments[0], keywords.get("rotary")))

    with ExitStack() as hooks, uncompiled(model):
        for mixer in {block.mixer: None for block in model.blocks}:  # layers may share one, which is called for each
            hooks.enter_context(mixer.register_forward_pre_hook(remember, with_kwargs=True))
        model(images)
    return seen


@torch.no_grad()
def attention_maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The attention matrix of each softmax layer on `images`, `[B, H, N, N]` a layer; rows sum to one."""
    maps, inputs = [], mixer_inputs(model, images)
    with evaluating(model):
        for block, (x, rotary) in zip(model.blocks, inputs, strict=True):
            if not isinstance(block.mixer, SoftmaxAttention):
                raise ValueError(f"{type(block.mixer).__name__} never forms an attention matrix; attention_maps needs "
                                 "a softmax model, such as ViT")
            q, k, _ = block.mixer.split(x, rotary)
            maps.append(SoftmaxAttention.attention(q, k, block.mixer.bias(q)))
    return maps


# One token's row of the matrix that a mixer applies to its values, `[B, H, N]`, from the mixer's own formula.

def query(q: Tensor, token: int) -> Tensor:
    """The query of `token` alone, `[B, H, N, d]` -> `[B, H, 1, d]`."""
    require_between(0, q.shape[2] - 1, token=token)
    return q[:, :, token:token + 1]


def softmax_row(q: Tensor, k: Tensor, token: int) -> Tensor:
    """softmax(q kᵀ / √d), the row of `token`; q, k `[B, H, N, d]`."""
    return SoftmaxAttention.attention(query(q, token), k).squeeze(2)


def performer_row(q: Tensor, k: Tensor, token: int, mixer: PerformerAttention) -> Tensor:
    """φ(q) φ(k)ᵀ over its sum, φ being `mixer`'s features: positive, in sum one."""
    phi_q = mixer.features(query(q, token), is_query=True) + mixer.epsilon
    weights = phi_q @ (mixer.features(k, is_query=False) + mixer.epsilon).mT
    return (weights / weights.sum(-1, keepdim=True)).squeeze(2)


def linformer_row(q: Tensor, k: Tensor, token: int, project_k: Tensor, project_v: Tensor) -> Tensor:
    """softmax(q (Pᵀk)ᵀ / √d) Pᵀ: how much of each token's value ends in the result, through all mixtures.

    Linformer attends to mixtures, not to tokens. A token counts with its share in every mixture, which P may make
    negative, and the sum over tokens need not be one. project_k, project_v: `[N, rank]`.
    """
    return (SoftmaxAttention.attention(query(q, token), project_k.mT @ k) @ project_v.mT).squeeze(2)


def nystrom_row(q: Tensor, k: Tensor, token: int, landmarks: int, iterations: int | None = 6) -> Tensor:
    """The row of F A⁺ B: softmax to landmark keys, the pseudo-inverse between landmarks, softmax to all keys."""
    require_iterations(iterations)
    q_land, k_land = segment_means(q, landmarks), segment_means(k, landmarks)
    between = SoftmaxAttention.attention(q_land, k_land)
    inverse = pseudo_inverse(between, iterations)
    return (softmax_row(q, k_land, token).unsqueeze(2) @ inverse @ SoftmaxAttention.attention(q_land, k)).squeeze(2)


@torch.no_grad()
def mixer_row(mixer: nn.Module, x: Tensor, token: int, rotary: Rotary | None = None) -> Tensor:
    """Where `token` looks in a trained mixer with input `x` `[B, N, D]`: `[B, H, N]`.

    What a Nyström mixer's convolution adds to it is left out. A ValueError for a mixer without such a matrix.
    """
    require_type("mixer", mixer, nn.Module, "a mixer, as model.blocks hold them")
    require_like("x", x, None)
    if x.ndim != 3:
        raise ValueError(f"x has shape {tuple(x.shape)}; expected tokens [B, N, D]")
    require_between(0, x.shape[1] - 1, token=token)
    with evaluating(mixer):
        return _row(mixer, x, token, rotary)


def _row(mixer: nn.Module, x: Tensor, token: int, rotary: Rotary | None) -> Tensor:
    if isinstance(mixer, LinformerAttention):
        mixer.check(x)
        q, k = mixer.as_heads(mixer.to_q(x)), mixer.as_heads(mixer.to_k(x))
        q, k = (q, k) if rotary is None else (rotary(q), rotary(k))
        other = mixer.project_k if mixer.project_v is None else mixer.project_v
        return linformer_row(q, k, token, mixer.project_k, other)
    if not isinstance(mixer, (SoftmaxAttention, PerformerAttention, NystromAttention)):
        raise ValueError(f"mixer {type(mixer).__name__} has no attention matrix to take a row of; use softmax, "
                         "Performer, Linformer or Nyström")
    q, k, _ = mixer.split(x, rotary)
    if isinstance(mixer, SoftmaxAttention) and mixer.bias_grid is not None:
        return SoftmaxAttention.attention(q, k, mixer.bias(q))[:, :, token]
    if isinstance(mixer, PerformerAttention):
        return performer_row(q, k, token, mixer)
    if isinstance(mixer, NystromAttention):
        if mixer.padding is not None:
            raise ValueError(f"padding={mixer.padding!r}: rows are rebuilt for padding=None only")
        return nystrom_row(q, k, token, mixer.num_landmarks, mixer.iterations)
    return softmax_row(q, k, token)


def imitated_rows(q: Tensor, k: Tensor, token: int, features: int, size: int) -> dict[str, Tensor]:
    """Softmax's row and what the approximations make of the same q and k, each `[B, H, N]`.

    features: Performer's; size: landmarks of Nyström. Linformer has to guess its P, which is otherwise trained: it
    gets the segment means, Nyström's landmarks without the correction.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # the same directions with every answer, or the map would flicker
        performer = PerformerAttention(1, heads=1, dim_head=q.shape[-1], num_features=features).to(q)
    tokens = torch.eye(q.shape[2]).to(q)
    means = segment_means(tokens[None, None], size)[0, 0].mT  # P whose columns average runs of tokens
    # Mixtures of unit weight: what a mean's value is made of.
    return {"softmax": softmax_row(q, k, token), "performer": performer_row(q, k, token, performer),
            "linformer, segment means": linformer_row(q, k, token, means, means),
            "nystrom": nystrom_row(q, k, token, size)}


PADDINGS = {"reflect": "reflect", "zero": "constant"}
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))  # (down, right)


class ShiftScores(NamedTuple):
    """How a model takes pictures moved by `pixels`, the mean over the four directions.

    top1: accuracy in percent.   agreement: percent of pictures whose class is the one predicted unmoved.
    cosine: between a picture's features moved and unmoved, -1 ... 1.
    """

    pixels: int
    top1: float
    agreement: float
    cosine: float


def shift_images(images: Tensor, down: int, right: int, padding: str = "reflect") -> Tensor:
    """Pictures `[B, C, H, W]`, float, moved by whole pixels; what comes in is mirrored ("reflect") or 0 ("zero")."""
    require_known("padding", padding, PADDINGS)
    require_type("images", images, Tensor, "a tensor [B, C, H, W]")
    require_pair("shift", (down, right), "(down, right)")
    if images.ndim != 4:
        raise ValueError(f"images has shape {tuple(images.shape)}; expected [B, C, H, W], a single one as image[None]")
    height, width = images.shape[-2:]
    if abs(down) >= height or abs(right) >= width:
        raise ValueError(f"a shift by {(down, right)} pixels moves a picture of {height}x{width} out of itself; "
                         f"use at most {height - 1} down or up and {width - 1} to a side")
    wide = F.pad(images, (abs(right), abs(right), abs(down), abs(down)), mode=PADDINGS[padding])
    top, left = abs(down) - down, abs(right) - right
    return wide[..., top:top + height, left:left + width]


@torch.no_grad()
def shift_consistency(model: nn.Module, images: Tensor, labels: Tensor, shifts: Sequence[int] = (0, 1, 2, 3, 4),
                      padding: str = "reflect", batch_size: int = 256) -> list[ShiftScores]:
    """Move pictures, uint8 `[B, C, H, W]` with labels `[B]`, up, down, left and right: what remains the same?

    padding: what comes in at the border, "reflect" (mirrored pixels) or "zero" (black).
    Features are the input of `model.head`, less their mean over the unmoved pictures: unrelated pictures then
    have a cosine near 0. The model stays where it is and in the mode it was in.
    """
    require_weights(model)
    if not hasattr(model, "head"):
        raise ValueError(f"model {type(model).__name__} has no .head whose input could be taken as features")
    require_pictures("images", images, least=2)
    require_type("shifts", shifts, Iterable, "numbers of pixels, such as (0, 1, 2)")
    shifts = tuple(shifts)
    require_labels("labels", labels, len(images), MOST)
    require_count(batch_size=batch_size)
    for pixels in shifts:
        require_between(0, MOST, pixels=pixels)
    device = place_of(model)
    labels, seen = labels.to(device), []
    hook = model.head.register_forward_pre_hook(lambda _head, arguments: seen.append(arguments[0]))

    def look(down: int, right: int) -> tuple[Tensor, Tensor, int]:
        """Features [B, D] and predicted classes [B] of all pictures, moved, and the number of classes."""
        seen.clear()
        guesses = []
        for part in images.split(batch_size):
            moved = shift_images(part.to(device).float(), down, right, padding)  # black is 0 before normalising
            logits = logits_of(model, normalised(moved))
            # A picture without an answer (NaN) is missed, and agrees with nothing.
            guesses.append(logits.argmax(dim=1).masked_fill(logits.isnan().any(dim=1), -1))
        return torch.cat(seen).double(), torch.cat(guesses), logits.shape[1]

    try:
        with uncompiled(model):
            features, classes, count = look(0, 0)
            require_labels("labels", labels, len(images), count)
            mean = features.mean(dim=0)
            scores = []
            for pixels in shifts:
                ways = [look(down * pixels, right * pixels) for down, right in (DIRECTIONS if pixels else [(0, 0)])]
                rates = [((c == labels).double().mean(), ((c == classes) & (c >= 0)).double().mean(),
                          F.cosine_similarity(f - mean, features - mean).mean()) for f, c, _ in ways]
                top1, agreement, cosine = torch.tensor(rates, dtype=torch.float64).mean(dim=0).tolist()
                scores.append(ShiftScores(pixels, 100 * top1, 100 * agreement, cosine))
    finally:
        hook.remove()
    return scores
