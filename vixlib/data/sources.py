"""Where a named data set is: a copy on disk or at Kaggle, else a download. Paths only, no pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from ..errors import as_path
from ..files import ROOT
from .archives import unpack
from .folders import is_image_folder

KAGGLE_INPUT = Path("/kaggle/input")
SEARCH_DEPTH = 5  # reaches /kaggle/input/datasets/OWNER/SLUG/folder/folder
NOT_SEARCHED = frozenset({"train", "test", "val", "site-packages", "__pycache__"})


@dataclass(frozen=True)
class Source:
    """How a data set is told and fetched.

    `folder_names`: what an image folder must be called to be taken for it. `torchvision`: the class that
    reads and checks the original's pickles, which are known by the file names `pickles`, whatever their
    folder is called. `megabytes`: size of the download, None if there is none.
    """

    folder_names: tuple[str, ...]
    torchvision: str | None = None
    pickles: tuple[str, ...] = ()
    megabytes: int | None = None
    url: str | None = None
    md5: str | None = None


SOURCES = {
    "cifar10": Source(("cifar10", "cifar-10"), "CIFAR10", ("data_batch_1", "batches.meta"), megabytes=170),
    "cifar10-jpg": Source(("cifar10-jpg",)),
    "cifar100": Source(("cifar100", "cifar-100"), "CIFAR100", ("train", "test", "meta"), megabytes=169),
    "tiny-imagenet": Source(("tiny-imagenet", "tiny-imagenet-200"), megabytes=248,
                            url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                            md5="90528d7ca1a48142e341f4ef8d21d0de"),
}

HELP = ("attach a copy of the data set to the notebook (Kaggle: Add Input), put one into data/ or into the "
        "folder named by VIX_DATA, or use load('shapes'), which always works")


def find(name: str, root: Path | None = None) -> Path | None:
    """Folder of the first copy of `name` in root, VIX_DATA, ./data, the repository's data/, ~/data, Kaggle.

    Raises ValueError if VIX_DATA is set to something that is no folder.
    """
    for start in _search_roots(root):
        for folder in _folders_below(start, SEARCH_DEPTH):
            if _holds_pickles(folder, name) or (own_name(folder) in SOURCES[name].folder_names
                                                and is_image_folder(folder)):
                return folder
    return None


def pickled_copy(folder: Path) -> tuple[str, Path] | None:
    """(data set, folder) of torchvision's pickles in `folder` or one below, None if there are none."""
    for level in ([folder], _inside(folder)):
        copies = [(name, candidate) for candidate in level for name in SOURCES if _holds_pickles(candidate, name)]
        if len(copies) > 1:
            raise ValueError(f"{folder} holds {' and '.join(name for name, _ in copies)}; name the folder of one, such "
                             f"as {str(copies[0][1])!r}, or load by name with root={str(folder)!r}")
        if copies:
            return copies[0]
    return None


def own_name(folder: Path) -> str:
    """The folder's own name in small letters; also for ".", whose Path.name is empty."""
    return Path(os.path.abspath(folder)).name.lower()


def download(name: str, root: Path | None, allowed: bool = True) -> Path:
    """Fetch `name` with progress and checksum into root, VIX_DATA or data/; returns its folder.

    Raises RuntimeError, saying what helps, if there is nothing to download, it is not allowed, or it fails.
    """
    source = SOURCES[name]
    if source.megabytes is None:
        raise RuntimeError(f"no folder {name}/ with train/ and test/ in it was found, "
                           f"and {name} has no download: {HELP}")
    if not allowed:
        raise RuntimeError(f"no copy of {name} was found, and download=False: {HELP}")
    into = root or _named() or _own_data_folder()
    print(f"No copy of {name} found; downloading {source.megabytes} MB into {into.resolve()}.")
    if source.torchvision:
        minutes = source.megabytes * 1000 / 50 / 60
        print("Its host in Toronto has been throttled to some tens of KB/s since mid-2026: at 50 KB/s this "
              f"takes about {minutes:.0f} minutes. Instead you can interrupt and {HELP}.")
    try:
        return _fetch(source, into)
    except (OSError, RuntimeError, ValueError, HTTPException) as error:
        raise RuntimeError(f"{name} could not be downloaded ({error}): switch the internet on "
                           f"(Kaggle: Settings > Internet) and try again, {HELP}") from None


def _fetch(source: Source, into: Path) -> Path:
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    if source.torchvision:
        original = getattr(datasets, source.torchvision)
        url, md5, folder = original.url, original.tgz_md5, original.base_folder
    else:
        url, md5, folder = source.url, source.md5, "tiny-imagenet-200"
    archive = into / url.rpartition("/")[2]
    download_url(url, into, archive.name, md5)  # a RuntimeError if the checksum is another
    return unpack(archive, into, folder)


def _own_data_folder() -> Path:
    """data/ of the repository if the package runs from one, else of the working folder."""
    return ROOT / "data" if (ROOT / "pyproject.toml").is_file() else Path("data")


def _search_roots(root: Path | None) -> Iterator[Path]:
    if root is not None:
        yield root
    if named := _named():
        yield named
    # os.path leaves "~" as it is where nobody knows the home folder.
    yield from (Path("data"), ROOT / "data", Path(os.path.expanduser("~/data")), KAGGLE_INPUT)


def _named() -> Path | None:
    """The folder that VIX_DATA names, if it is set."""
    named = os.environ.get("VIX_DATA")
    if not named:
        return None
    folder = as_path("the environment variable VIX_DATA", named)
    if not folder.is_dir():
        raise ValueError(f"the environment variable VIX_DATA={named!r} is no folder; "
                         "set it to the folder that holds the data sets, or unset it")
    return folder


def _folders_below(start: Path, depth: int) -> Iterator[Path]:
    """`start` and the folders in it, nearest first; those that hold the pictures are not entered."""
    level = [start] if os.path.isdir(start) else []
    for _ in range(depth + 1):
        yield from level
        level = [folder for parent in level for folder in _inside(parent)]


def _inside(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return sorted(Path(entry.path) for entry in entries if _is_folder(entry)
                          and entry.name not in NOT_SEARCHED and not entry.name.startswith("."))
    except OSError:
        return []  # somebody else's folder on the way: not ours to read, and no reason to stop looking


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for instance
        return False


def _holds_pickles(folder: Path, name: str) -> bool:
    files = SOURCES[name].pickles
    return bool(files) and all(os.path.isfile(folder / file) for file in files)
