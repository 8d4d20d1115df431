"""The embedded data set: pictures whose class needs a fine local detail and a spatial relation at once.

Every picture holds one striped figure and one empty frame, each round or square, in random colours on a
shaded, noisy background. The class says how the stripes run (a detail within a few pixels, for which
convolutions and small patches are made) and where the striped figure is, seen from the frame (a relation
between distant pixels, for which a model needs global mixing and positions). Colours, sizes and kinds of
figure carry no information; the figure's place in the picture gives the relation in four cases out of five,
the frame decides the rest.

Tuned so that a linear model of the pixels stays near chance, a transformer without positions cannot tell the
relations apart, and a small ViT (patch 4, dim 64, depth 2) learns most of it in a few epochs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import require_count, require_room, require_seed
from .images import ImageData

STRIPES = ("horizontal", "vertical")
# Where the figure is, seen from the frame: (right, down) in units of their distance.
PLACES = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1), "inside": (0, 0)}
CLASSES = tuple(f"{stripes} stripes {place} the frame" for stripes in STRIPES for place in PLACES)

MIN_SIZE = 24  # pixels; on fewer, stripes of three pixels no longer fit into a figure beside a frame
NOISE = 0.12  # width of the uniform noise, on pixels in 0 ... 1
CHUNK = 1000  # pictures drawn at a time, to keep the float pictures small in memory


def make_shapes(train: int = 10_000, test: int = 2_000, seed: int = 0, size: int = 32) -> ImageData:
    """`train` and `test` pictures uint8 [N, 3, size, size] of ten equally frequent classes.

    The same seed gives the same pictures, and a larger set begins with the pictures of a smaller one. The two
    splits come from separate random streams, which no other seed (an integer from 0 on) shares.
    """
    require_count(train=train, test=test, size=size)
    if size < MIN_SIZE:
        raise ValueError(f"size={size} is too small for stripes beside a frame; use at least {MIN_SIZE}")
    require_seed("seed", seed, bits=31)
    drawn = (train + test + 4 * CHUNK) * 3 * size ** 2  # drawing takes several float pictures for each of a chunk
    require_room(drawn, train=train, test=test, size=size)
    with torch.device("cpu"):  # whatever torch's default device is: generators draw on their own alone
        return ImageData("shapes", CLASSES, *_split(train, 2 * seed, size), *_split(test, 2 * seed + 1, size))


def _split(count: int, stream: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(stream)
    labels = torch.arange(count) % len(CLASSES)
    # Whole chunks are drawn and then cut, so that `count` does not change what is in the pictures.
    chunk_labels = torch.arange(CHUNK) % len(CLASSES)
    chunks = [_draw(chunk_labels, size, generator) for _ in range(0, count, CHUNK)]
    return torch.cat(chunks)[:count], labels


def _draw(labels: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """One picture uint8 [3, size, size] for each label."""
    count, unit = len(labels), size / 32  # all lengths below are for 32 pixels

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *(shape or (1, 1)), generator=generator, dtype=torch.float32)

    stripes_run = labels // len(PLACES)
    figure_radius, figure_centre, frame_radius, frame_centre = _arrange(labels % len(PLACES), size, uniform)

    pixels = torch.arange(size, dtype=torch.float32) + 0.5  # whatever torch's default type is
    figure = _norm(pixels, figure_centre, square=uniform(0, 1) < 0.5) < figure_radius**2
    frame_norm = _norm(pixels, frame_centre, square=uniform(0, 1) < 0.5)
    thickness = uniform(1.0, 1.8) * unit
    frame = (frame_norm < frame_radius**2) & (frame_norm > (frame_radius - thickness) ** 2)

    period, phase = uniform(3, 4.5) * unit, uniform(0, 1)
    along = torch.where(stripes_run.view(count, 1, 1) == 0, pixels.view(1, size, 1), pixels.view(1, 1, size))
    dark_stripe = (along / period + phase) % 1 < 0.5

    background, shade = uniform(0.2, 0.8, 3, 1, 1), uniform(-0.3, 0.3, 3, 2)
    ramp = pixels / size - 0.5
    image = background + shade[..., 0, None, None] * ramp + shade[..., 1, None, None] * ramp[:, None]
    # Random hues, but one stripe always darker than the other, and the frame unlike its background.
    frame_paint = (background + uniform(0.3, 0.7, 3, 1, 1)) % 1
    dark, light = uniform(0, 0.4, 3, 1, 1), uniform(0.6, 1, 3, 1, 1)
    paint = (frame_paint, dark, light)
    masks = (frame, figure & dark_stripe, figure & ~dark_stripe)
    for mask, colour in zip(masks, paint, strict=True):
        image = torch.where(mask[:, None], colour, image)
    image = image + NOISE * (torch.rand(image.shape, generator=generator, dtype=torch.float32) - 0.5)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _arrange(place: Tensor, size: int, uniform: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Radius [count, 1, 1] and centre [count, 2] (right, down) of the figure, then of the frame, in pixels."""
    count, unit = len(place), size / 32
    direction = torch.tensor(list(PLACES.values()), dtype=torch.float32)[place]  # [count, 2]: right, down
    figure_radius, frame_radius = uniform(3.5, 4.5) * unit, uniform(7.0, 9.0) * unit
    distance = figure_radius + frame_radius + uniform(1.0, 2.5) * unit
    across, apart = direction.abs().flip(1), direction.abs().sum(1).view(count, 1, 1)
    # Beside the frame the figure may slip along its side; inside it, a little each way.
    slip = uniform(-2, 2, 2) * unit * across + uniform(-1, 1, 2) * unit * (1 - apart.view(count, 1))
    shift = direction * distance.view(count, 1) + slip

    # The pair is placed anywhere where it fits into the picture.
    reach = frame_radius.view(count, 1)
    low = torch.maximum(reach, figure_radius.view(count, 1) - shift)
    high = torch.minimum(size - reach, size - figure_radius.view(count, 1) - shift)
    frame_centre = low + (high - low) * uniform(0, 1, 2)
    return figure_radius, frame_centre + shift, frame_radius, frame_centre


def _norm(pixels: Tensor, centre: Tensor, square: Tensor) -> Tensor:
    """Squared distance of each pixel to the centre: Euclidean, or the largest coordinate where `square`."""
    right = (pixels.view(1, 1, -1) - centre[:, 0].view(-1, 1, 1)) ** 2
    down = (pixels.view(1, -1, 1) - centre[:, 1].view(-1, 1, 1)) ** 2
    return torch.where(square, torch.maximum(right, down), right + down)
