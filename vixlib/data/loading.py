"""`load`: a data set by name or path, from the copy at hand or a download."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from ..device import require_working
from ..errors import as_path, require_flag
from .folders import is_image_folder, read_image_folder
from .images import ImageData
from .shapes import make_shapes
from .sources import SOURCES, find, own_name, pickled_copy
from .sources import download as fetch

NAMES = (*SOURCES, "shapes")


def load(name: str | os.PathLike = "cifar10", root: str | os.PathLike | None = None, download: bool = True,
         device: str | torch.device = "cpu", **shape_options: int) -> ImageData:
    """A data set by name (`NAMES`) or from a folder (train/<class>/*.jpg beside test/ or val/).

    An existing copy is looked for in `root`, the folder named by the environment variable VIX_DATA, ./data,
    the repository's data/, ~/data and below /kaggle/input. Only if there is none, and `download` is true, it
    is fetched. `shape_options` (train, test, seed, size) go to `make_shapes` and fit "shapes" only.

    Raises ValueError for an unknown name or unusable files, OSError for those that may not be read, RuntimeError
    if the data set cannot be had.
    """
    known = isinstance(name, str) and name in NAMES
    folder = None if known else as_path("name", name)
    require_flag(download=download)
    root = None if root is None else as_path("root", root)
    if root is not None and root.exists() and not root.is_dir():
        raise ValueError(f"root={str(root)!r} is no folder; name the one that holds the data sets, or will")
    device = require_working(device)  # before minutes are spent on reading
    if name == "shapes":
        return make_shapes(**shape_options).to(device)
    if shape_options:
        raise TypeError(f"{', '.join(shape_options)}: for load('shapes') only, not for load({str(name)!r})")
    if known:
        folder = find(name, root) or fetch(name, root, allowed=download)
    elif not folder.is_dir():
        raise ValueError(f"name={str(name)!r} is neither a folder nor a known data set; use one of "
                         f"{', '.join(map(repr, NAMES))}, or the path of an image folder")
    return _read(folder).to(device)


def _read(folder: Path) -> ImageData:
    if not is_image_folder(folder) and (copy := pickled_copy(folder)) is not None:
        return _read_pickles(*copy)
    pictures = read_image_folder(folder)
    own = own_name(folder)
    name = next((known for known, source in SOURCES.items() if own in source.folder_names), own)
    # Pictures in a folder may have lost detail as JPEG, or be others, so they never carry the name of an original.
    original = name == "shapes" or name in SOURCES and SOURCES[name].torchvision
    label = f"{name}-{pictures.suffix}" if original else name
    return ImageData(label, pictures.classes, pictures.train_images, pictures.train_labels,
                     pictures.test_images, pictures.test_labels)


def _read_pickles(name: str, folder: Path) -> ImageData:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    original = getattr(datasets, SOURCES[name].torchvision)
    checksums = [*original.train_list, *original.test_list, (original.meta["filename"], original.meta["md5"])]
    for file, md5 in checksums:
        if not check_integrity(folder / file, md5):
            raise ValueError(f"{folder / file} is missing, truncated or damaged (its checksum is not that of "
                             f"{name}); delete {folder} and load again, or copy it anew")
    # torchvision insists on its own folder name; the checksums just tested say more than a name does.
    reader = type(original.__name__, (original,), {"base_folder": folder.absolute().name})
    train, test = (reader(folder.absolute().parent, train=is_train) for is_train in (True, False))
    return ImageData(name, tuple(train.classes), *_tensors(train), *_tensors(test))


def _tensors(dataset: torch.utils.data.Dataset) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)
