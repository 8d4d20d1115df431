"""A whole data set in memory as uint8, on one device, with batches by index."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..device import require_working
from ..errors import require_count, require_known, require_number, require_seed, require_strided, require_type, shown

AUGMENTATIONS = ("flip", "crop")
CROP_PADDING = 4  # pixels, as in "Deep Residual Learning for Image Recognition", section 4.2, on CIFAR-10


def require_pictures(name: str, images: object, least: int = 1) -> None:
    """`images` must be pictures as they are stored, uint8 [B, C, H, W] with B of at least `least`."""
    require_type(name, images, Tensor, "a tensor, uint8 [B, C, H, W]")
    require_strided(name, images)
    if images.is_meta:
        raise ValueError(f"{name} are on the meta device, which holds no numbers; pass a tensor on a CPU or GPU")
    if images.dtype != torch.uint8 or images.ndim != 4 or 0 in images.shape or len(images) < least:
        raise ValueError(f"{name} are {images.dtype} {list(images.shape)}, not uint8 [B, C, H, W], B >= {least}; "
                         "pass a single one as image[None], and pixels as 0 ... 255")


def require_labels(name: str, labels: object, count: int, classes: int) -> None:
    """`labels` must be int64 [count], from 0 to below `classes`."""
    require_type(name, labels, Tensor, "a tensor, int64 [N]")
    require_strided(name, labels)
    if labels.is_meta:
        raise ValueError(f"{name} are on the meta device, which holds no numbers")
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise ValueError(f"{name} must be int64 [{count}], one for each picture, "
                         f"got {labels.dtype} {list(labels.shape)}")
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(f"{name} run from {low} to {high}, but {classes} classes allow 0 to {classes - 1}")


@dataclass(frozen=True, eq=False, repr=False)
class ImageData:
    """A labelled set of pictures, whole in memory and on one device.

    Images are uint8 [N, C, H, W], labels int64 [N] in 0 ... num_classes - 1. `name` labels every result made
    with it.
    """

    name: str
    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def __post_init__(self) -> None:
        require_type("name", self.name, str, "a text")
        require_type("classes", self.classes, (tuple, list), "a tuple of names")
        for name in self.classes:
            require_type(f"classes={shown(self.classes)}: a name", name, (str, int), "a text or a number")
        # As plain text: np.str_, for instance, could not be read back from a checkpoint.
        object.__setattr__(self, "name", str(self.name))
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        if len(self.classes) < 2:
            raise ValueError(f"classes={self.classes!r} must name at least two classes")
        for split in ("train", "test"):
            images, labels = self._split(split)
            require_pictures(f"{split}_images", images)
            require_labels(f"{split}_labels", labels, len(images), len(self.classes))
        if self.train_images.shape[1:] != self.test_images.shape[1:]:
            raise ValueError(f"train_images are {list(self.train_images.shape[1:])} but test_images are "
                             f"{list(self.test_images.shape[1:])} [C, H, W]; resize them to one size")

    @property
    def bytes(self) -> int:
        """Of all pictures and labels together."""
        return sum(t.nbytes for t in (self.train_images, self.train_labels, self.test_images, self.test_labels))

    @cached_property
    def digest(self) -> str:
        """Tells this data from another of the same name and size: a checksum of all pictures and labels."""
        checksum = hashlib.sha256()
        for part in (self.train_labels, self.test_labels, self.train_images, self.test_images):
            checksum.update(part.cpu().contiguous().numpy())
        return checksum.hexdigest()[:16]

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.train_images.shape[2], self.train_images.shape[3]

    @property
    def channels(self) -> int:
        return self.train_images.shape[1]

    @property
    def device(self) -> torch.device:
        return self.train_images.device

    def __repr__(self) -> str:
        height, width = self.image_size
        return (f"ImageData({self.name!r}: {len(self.train_labels):,} training and "
                f"{len(self.test_labels):,} test pictures of {height}x{width}x{self.channels}, "
                f"{self.num_classes} classes, on {self.device})")

    def to(self, device: str | torch.device) -> ImageData:
        """The same data with all tensors on `device`."""
        device = require_working(device)
        fields = ("train_images", "train_labels", "test_images", "test_labels")
        return replace(self, **{field: getattr(self, field).to(device) for field in fields})

    def some(self, count: int, split: str = "test") -> Tensor:
        """Indices of `count` pictures of a split (all of them, if there are fewer), drawn at random and the same every
        time. The first ones of a folder are all of one class."""
        require_count(count=count)
        require_known("split", split, ("train", "test"))
        order = torch.randperm(len(self._split(split)[1]), generator=torch.Generator().manual_seed(0), device="cpu")
        return order[:count].to(self.device)

    def subset(self, fraction: float, seed: int = 0) -> ImageData:
        """The same `fraction` (above 0, at most 1) of each class's training pictures; the test set untouched.

        With one seed a smaller subset is part of every larger one. At least one picture a class is kept.
        """
        require_number("fraction", fraction, lambda part: 0 < part <= 1, "greater than 0 and at most 1")
        require_seed("seed", seed)
        generator = torch.Generator().manual_seed(seed)
        labels, kept = self.train_labels.cpu(), []
        for label in range(self.num_classes):
            members = (labels == label).nonzero().squeeze(1)
            order = torch.randperm(len(members), generator=generator, device="cpu")
            kept.append(members[order[: max(1, round(fraction * len(members)))]])
        index = torch.cat(kept).sort().values.to(self.device)
        return replace(self, train_images=self.train_images[index], train_labels=self.train_labels[index])

    def batch(self, index: Tensor, split: str = "train", augment: Collection[str] = (),
              generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Pictures float32 [B, C, H, W], normalised to [-1, 1] (mean = std = 0.5), and labels [B].

        `index`: int64 [B] into `split` ("train" or "test"). `augment`: any of "flip" (mirrored left-right
        with probability 1/2) and "crop" (moved by up to 4 pixels each way, black comes in), drawn for each
        picture from `generator`, which may live on another device (default: the global one of this device).
        """
        require_known("split", split, ("train", "test"))
        require_type("augment", augment, (tuple, list, set, frozenset), 'a tuple, for instance ("flip",)')
        for kind in augment:
            require_known("augment", kind, AUGMENTATIONS)
        require_type("generator", generator, (torch.Generator, type(None)), "a torch.Generator or None")
        all_images, all_labels = self._split(split)
        _require_index(index, len(all_labels))
        index = index.to(self.device)
        images, labels = all_images[index], all_labels[index]
        if "flip" in augment:
            images = _flip(images, generator)
        if "crop" in augment:
            images = _crop(images, generator)
        return normalised(images), labels

    def _split(self, split: str) -> tuple[Tensor, Tensor]:
        return getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")


def normalised(images: Tensor) -> Tensor:
    """Pixels of 0 ... 255, of any type, as models take them: float32 from -1 to 1, the same shape."""
    return images.float().div(127.5).sub(1)


def _require_index(index: Tensor, count: int) -> None:
    require_type("index", index, Tensor, "a tensor, int64 [B]")
    if index.dtype != torch.int64 or index.ndim != 1 or len(index) == 0:
        raise ValueError(f"index is {index.dtype} {list(index.shape)}, but must be int64 [B], B >= 1")
    if index.device.type == "cpu":  # on a GPU the host would have to wait for the answer
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= count:
            raise ValueError(f"index runs from {low} to {high}, but there are pictures 0 to {count - 1}")


def _flip(images: Tensor, generator: torch.Generator | None) -> Tensor:
    where = images.device if generator is None else generator.device
    flipped = torch.rand(len(images), generator=generator, device=where, dtype=torch.float32) < 0.5
    return torch.where(flipped.to(images.device)[:, None, None, None], images.flip(-1), images)


def _crop(images: Tensor, generator: torch.Generator | None) -> Tensor:
    batch, channels, height, width = images.shape
    where = images.device if generator is None else generator.device
    corner = torch.randint(2 * CROP_PADDING + 1, (2, batch, 1), generator=generator, device=where)
    top, left = corner.to(images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    padded = F.pad(images, (CROP_PADDING,) * 4)
    picture = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[picture, channel, rows[:, None, :, None], columns[:, None, None, :]]
