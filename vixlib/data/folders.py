"""Picture folders on disk: train/<class>/*.jpg, Tiny ImageNet's own layout, a cache of what was decoded."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import unicodedata
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import machine_memory
from ..files import bar_options, read_tensors, write_atomic

SUFFIXES = (".jpg", ".jpeg", ".png")
OTHER_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".ppm", ".tif", ".tiff", ".webp")  # pictures that are not read
TEST_FOLDERS = ("test", "val")
CACHE_NAME = ".vixlib-cache.pt"
CACHE_FROM = 10_000  # pictures; below this, decoding takes a second or two and a cache is not worth its file
CACHE_SHARE = 0.4  # of the machine's memory; above it, pictures are decoded each time

# A camera turns its pictures by a note in the file, which a picture that is saved anew has lost.
RESIZE = "ImageOps.exif_transpose(Image.open(path)).resize(({width}, {height})).save(path)"
LAYOUT = "train/<class>/*.jpg (or .jpeg, .png) beside test/<class>/ or val/<class>/"


@dataclass(frozen=True)
class Pictures:
    """A folder read into memory: images uint8 [N, 3, H, W], labels int64 [N], suffix of the files ("jpg")."""

    classes: tuple[str, ...]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    suffix: str


def is_image_folder(folder: Path) -> bool:
    """True if `folder` holds train/ and one of test/, val/ (the pictures themselves are not looked at)."""
    # os.path, because Path.is_dir raises where the folder may not be read.
    return os.path.isdir(folder / "train") and any(os.path.isdir(folder / name) for name in TEST_FOLDERS)


def read_image_folder(folder: Path) -> Pictures:
    """Decode every picture below `folder` to RGB, showing a progress bar.

    The decoded tensor of a large folder is kept beside the pictures (`.vixlib-cache.pt`, where the folder
    is writable) and used again as long as no file's name, size or time of change differs.

    Raises ValueError that names the folder or file for: wrong layout, no pictures, one class only, classes
    that differ between train and test, a truncated or unreadable picture, pictures of unequal size, more of them than
    this machine's memory holds. Raises OSError that names a folder which may not be read.
    """
    try:
        classes, train, test = _list_pictures(folder)
    except OSError as error:
        raise OSError(error.errno, f"{error.filename or folder} cannot be read: {error.strerror}; allow it with chmod, "
                      f"or get {folder} anew") from error
    files = [path for path, _ in train + test]
    fingerprint = _fingerprint(folder, files)
    cached = _read_cache(folder, fingerprint)
    images, transparent = _decode(files) if cached is None else cached
    if cached is None and len(files) >= CACHE_FROM:
        _write_cache(folder, fingerprint, images, transparent)
    if transparent:
        warnings.warn(f"{len(transparent)} pictures have transparent parts, for instance {files[transparent[0]]}: what "
                      "these hide is read, often black; put such pictures on a background first", stacklevel=4)
    return Pictures(
        classes=classes,
        train_images=images[: len(train)],
        train_labels=torch.tensor([label for _, label in train], device="cpu"),
        test_images=images[len(train) :],
        test_labels=torch.tensor([label for _, label in test], device="cpu"),
        suffix=files[0].suffix.lower().lstrip("."),
    )


def _list_pictures(folder: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]], list[tuple[Path, int]]]:
    if not (folder / "train").is_dir():
        raise ValueError(f"{folder} has no train/ folder; the layout must be {LAYOUT}")
    annotations = folder / "val" / "val_annotations.txt"
    present = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    if not present:
        raise ValueError(f"{folder} has neither test/ nor val/; put some pictures of each class there")
    train = _by_class(folder / "train")
    if annotations.is_file():  # Tiny ImageNet's test/ has no labels; its labelled held-out pictures are those of val/
        test = _by_annotation(annotations)
    else:  # as in many a competition, test/ may have no classes where val/ has
        with_classes = [part for part in present
                        if any(path.is_dir() and not path.name.startswith(".") for path in part.iterdir())]
        test = _by_class((with_classes or present)[0])
    if len(train) == 1:
        raise ValueError(f"{folder / 'train'} has a single class, {next(iter(train))!r}; it takes two")
    differing = sorted(set(train) ^ set(test))
    if differing:
        listed = ", ".join(map(repr, differing[:5])) + (" ..." if len(differing) > 5 else "")
        raise ValueError(f"the train and test pictures of {folder} must have the same classes; "
                         f"only one of the two has {listed}")
    names = sorted(train)
    train_files = [(path, label) for label, name in enumerate(names) for path in train[name]]
    test_files = [(path, label) for label, name in enumerate(names) for path in test[name]]
    return _readable(folder, names), train_files, test_files


def _by_class(part: Path) -> dict[str, list[Path]]:
    """{class: its pictures} of train/<class>/**; Tiny ImageNet keeps them deeper, in <class>/images/."""
    found: dict[str, list[Path]] = {}
    others: list[Path] = []
    for class_folder in sorted(p for p in part.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = _files_below(class_folder)
        pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
        others += [path for path in files if path.suffix.lower() in OTHER_SUFFIXES]
        if not pictures:
            raise ValueError(f"no images in {class_folder}; expected {', '.join(SUFFIXES)} files")
        found.setdefault(_one_spelling(class_folder.name), []).extend(pictures)
    if not found:
        raise ValueError(f"no images in {part}: it has no class folders; the layout must be {LAYOUT}")
    strays = sorted(p for p in part.iterdir() if p.is_file() and not p.name.startswith(".")
                    and p.suffix.lower() in (*SUFFIXES, *OTHER_SUFFIXES))
    for passed, why in ((others, f"they are no {', '.join(SUFFIXES)}; convert them first"),
                        (strays, "they are in no class folder; move each into its own")):
        if passed:
            warnings.warn(f"{len(passed)} pictures in {part} are passed over, for instance {passed[0].name}: {why}",
                          stacklevel=6)
    return found


def _one_spelling(name: str) -> str:
    """The class `name` with each letter with an accent as one character; some systems store it as two."""
    return unicodedata.normalize("NFC", name)


def _files_below(folder: Path) -> list[Path]:
    """Every file in `folder` and the folders in it, linked ones included, each once, but for hidden ones; an OSError
    where one may not be read."""
    def refuse(error: OSError) -> None:
        raise error

    here = Path(os.path.realpath(folder))
    found, seen = [], {here, *here.parents}  # a link may lead back to where it is

    def is_new(path: str) -> bool:
        real = Path(os.path.realpath(path))
        return not (real in seen or seen.add(real))

    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        visible = [name for name in sorted(folders) if not name.startswith(".")]
        folders[:] = [name for name in visible if is_new(os.path.join(place, name))]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(found)


def _by_annotation(annotations: Path) -> dict[str, list[Path]]:
    """{class: its pictures} of Tiny ImageNet's val/, whose classes stand in a tab-separated text file."""
    found: dict[str, list[Path]] = {}
    for number, line in enumerate(annotations.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        fields = line.split("\t")
        # The name of a file in images/ alone: a path would lead to another folder.
        if len(fields) < 2 or set("/\\\0") & set(fields[0]) or not fields[0].strip("."):
            raise ValueError(f"{annotations}, line {number}: expected file TAB class, found {line[:60]!r}")
        found.setdefault(_one_spelling(fields[1]), []).append(annotations.parent / "images" / fields[0])
    if not found:
        raise ValueError(f"no images listed in {annotations}: the file is empty")
    return found


def _readable(folder: Path, names: list[str]) -> tuple[str, ...]:
    """Class names; for Tiny ImageNet the first word of words.txt ("goldfish"), not the WordNet number."""
    words = folder / "words.txt"
    if not words.is_file():
        return tuple(names)
    first = {}
    for line in words.read_text(encoding="utf-8", errors="replace").splitlines():
        number, _, meanings = line.partition("\t")
        first[number] = meanings.split(",")[0].strip() or number
    return tuple(first.get(name, name) for name in names)


def _raw_mode(how: object) -> str:
    """The raw mode among what PIL passes to a decoder: alone, or first of several; "" where there is none."""
    first = how[0] if isinstance(how, tuple) and how else how
    return first if isinstance(first, str) else ""


def _decode(files: list[Path]) -> tuple[Tensor, list[int]]:
    """(pictures uint8 [N, 3, H, W], indices of those with transparent parts).

    One thread: for pictures this small, more threads were slower.
    """
    import numpy as np
    from PIL import Image, ImageOps
    from tqdm.auto import tqdm

    images, transparent = None, []
    for i, path in enumerate(tqdm(files, desc="reading pictures", unit=" pictures", leave=False, **bar_options())):
        try:
            with Image.open(path) as opened:
                # PIL cuts colours of 16 bits to 8 without a word, and tells of them in how it will decode alone.
                deep = opened.mode.startswith(("I", "F")) or any("16" in _raw_mode(tile[3]) for tile in opened.tile)
                upright = ImageOps.exif_transpose(opened)  # a camera turns its pictures by a note in the file
                if "A" in upright.getbands() or "transparency" in upright.info:
                    transparent += [i] if upright.convert("RGBA").getextrema()[3][0] < 255 else []
                    upright.info.pop("transparency", None)  # RGB has none, and PIL warns of a palette's
                image = torch.from_numpy(np.array(upright.convert("RGB"))).permute(2, 0, 1)
        except Exception as error:  # PIL has a dozen kinds for a broken picture, SyntaxError among them
            raise ValueError(f"cannot read {path}: truncated, damaged or no picture ({error}); "
                             "replace or delete the file") from None
        if deep:
            raise ValueError(f"{path} has more than 8 bits a channel; convert it to an 8-bit PNG or JPEG")
        if images is None:
            _require_memory(files, image)
            images = torch.empty(len(files), *image.shape, dtype=torch.uint8, device="cpu")
        if image.shape != images.shape[1:]:
            sizes = [f"{width}x{height}" for _, height, width in (images.shape[1:], image.shape)]
            raise ValueError(
                f"unequal sizes: {files[0]} is {sizes[0]} but {path} is {sizes[1]} (width x height); "
                "resize all pictures to one size first, e.g. with PIL: "
                + RESIZE.format(width=images.shape[3], height=images.shape[2])
            )
        images[i] = image
    return images, transparent


def _require_memory(files: list[Path], image: Tensor) -> None:
    """Pictures like `image`, one for each of `files`, must fit this machine's memory."""
    needed, memory = len(files) * image.numel(), machine_memory()
    if memory is not None and needed > memory:
        raise ValueError(f"{len(files)} pictures of {image.shape[2]}x{image.shape[1]} like {files[0]} take "
                         f"{needed / 2**30:,.1f} GiB, more than this machine's {memory / 2**30:,.1f}; make them "
                         f"smaller, e.g. with PIL: {RESIZE.format(width=64, height=64)}, or keep fewer of them")


def _fingerprint(folder: Path, files: list[Path]) -> str:
    digest = hashlib.sha256(b"upright")  # how pictures are decoded: a cache of before has others
    for path in files:
        try:
            entry = path.stat()
        except OSError:  # a link to nowhere or to itself, too
            raise ValueError(f"{path} is listed in {folder} but missing; unpack the data set again") from None
        if not stat.S_ISREG(entry.st_mode):  # reading a pipe would wait for ever
            raise ValueError(f"{path} is no file of a picture; delete it")
        digest.update(os.fsencode(path.relative_to(folder)) + f" {entry.st_size} {entry.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _read_cache(folder: Path, fingerprint: str) -> tuple[Tensor, list[int]] | None:
    """What `_decode` made of these very files before; None if that is not known."""
    try:
        cache = read_tensors((folder / CACHE_NAME).read_bytes())
        return (cache["images"], cache["transparent"]) if cache["fingerprint"] == fingerprint else None
    except Exception:  # absent or damaged in one of many ways: the pictures themselves are the truth
        return None


def _write_cache(folder: Path, fingerprint: str, images: Tensor, transparent: list[int]) -> None:
    memory = machine_memory()
    # To write it and to read it takes the pictures' memory twice.
    if not os.access(folder, os.W_OK) or (memory is not None and images.numel() > CACHE_SHARE * memory):
        return
    buffer = io.BytesIO()
    torch.save({"fingerprint": fingerprint, "images": images, "transparent": transparent}, buffer)
    try:
        write_atomic(folder / CACHE_NAME, buffer.getvalue())
    except OSError as error:  # the pictures are read; only the next time will take as long again
        warnings.warn(f"{error}; {folder} will be decoded again next time", stacklevel=5)
