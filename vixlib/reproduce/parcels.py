"""Bringing results home: records and unfinished checkpoints packed into a few files of limited size, and merged there.

One .tar of them is cut into parcels; parcels.json beside these has their checksums and says what is in them. Nothing of
it is trusted on arrival: every checksum, name and content is looked at first.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..files import held, listed, write_atomic
from ..report import memory
from ..report.batches import batches_folder, parse_batches
from ..report.records import parse_record, record_name
from ..train import checkpoint
from ..train.in_use import PATIENCE, CheckpointInUse, alone

FORMAT = 2
PARCELS, PARCEL_BYTES = 7, 6_000_000  # few and small enough for any way of copying, there and back
TAR_BYTES = 16_384  # more than the .tar itself takes of them for one file and its own end
LIST = "parcels.json"
BEGUN = ".before-export.json"  # beside the checkpoints
FILE = r"[A-Za-z0-9=_+-][A-Za-z0-9=._+-]*"
NAMES = re.compile(rf"((results|results/batches|memory)/{FILE}\.json|checkpoints/{FILE}\.pt)")


def contents(results: Path, checkpoints: Path) -> dict[str, Path]:
    """What there is to take home, by its name in a parcel: records first, then the checkpoints of unfinished runs,
    the smallest first."""
    files = {f"{folder}/{path.name}": path for folder in ("results", "results/batches", "memory")
             for path in listed(folders(results, checkpoints)[folder], ".json")}
    unfinished = [path for path in listed(checkpoints, ".pt") if not (results / f"{path.stem}.json").exists()]
    return files | {f"checkpoints/{path.name}": path for path in sorted(unfinished, key=lambda p: p.stat().st_size)}


def folders(results: Path, checkpoints: Path) -> dict[str, Path]:
    """The folder here of each folder in a parcel; data/memory lies beside data/results."""
    return {"results": results, "results/batches": batches_folder(results), "memory": results.parent / "memory",
            "checkpoints": checkpoints}


def stamps(files: dict[str, Path]) -> dict[str, tuple[int, int]]:
    """When each file was changed and how large it is, to tell later which are new."""
    return {name: (path.stat().st_mtime_ns, path.stat().st_size) for name, path in files.items()}


def before_export(results: Path, checkpoints: Path) -> dict[str, tuple[int, int]]:
    """The stamps of what is there as a call begins that will export what is new; those of an earlier such call, if it
    was killed before its export (see `exported`)."""
    try:
        return {name: tuple(stamp) for name, stamp in json.loads((checkpoints / BEGUN).read_bytes()).items()}
    except (AttributeError, OSError, TypeError, ValueError):
        now = stamps(contents(results, checkpoints))
        write_atomic(checkpoints / BEGUN, json.dumps(now))
        return now


@contextmanager
def exporting(checkpoints: Path) -> Iterator[None]:
    """While this lasts no other call may export from `checkpoints`: the first to end would take back what the other
    has noted of its beginning."""
    with held(checkpoints / f"{BEGUN}.lock", PATIENCE) as free:
        if not free:
            raise ValueError(f"--export: another call that exports is at work on {checkpoints}; wait for it, or name "
                             "other --results and --checkpoints")
        yield


def exported(checkpoints: Path, taken: dict[str, tuple[int, int]] | None = None) -> None:
    """Note that what was made since `before_export` has been packed; taken: where some of it was left out, the stamps
    of all that the next export need not take."""
    if taken is None:
        (checkpoints / BEGUN).unlink(missing_ok=True)
    else:
        write_atomic(checkpoints / BEGUN, json.dumps(taken))


def has_room(size: int, taken: int = 0) -> bool:
    """Whether an export that has `taken` bytes already takes a file of `size` bytes, too."""
    return taken + size + TAR_BYTES <= PARCELS * PARCEL_BYTES


def export(files: dict[str, Path], folder: Path) -> list[str]:
    """Pack `files` into `folder`, which must not hold parcels yet; returns the names of those that didn't fit."""
    if (folder / LIST).exists():
        raise ValueError(f"folder={str(folder)!r} holds parcels already; import them, or name another folder")
    buffer, packed, left_out = io.BytesIO(), [], []
    # Not compressed: weights are noise to a compressor, and a borrowed machine's time is better spent on training.
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in files.items():
            content = path.read_bytes()
            if not has_room(len(content), archive.offset):
                left_out.append(name)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
            packed.append(name)
    whole = buffer.getvalue() if packed else b""
    parcels = {f"parcel-{start // PARCEL_BYTES}": whole[start:start + PARCEL_BYTES]
               for start in range(0, len(whole), PARCEL_BYTES)}
    for file, content in parcels.items():
        write_atomic(folder / file, content)
    # Last, so that a list always stands for whole parcels.
    write_atomic(folder / LIST, json.dumps(
        {"format": FORMAT, "parcels": {file: _digest(content) for file, content in parcels.items()},
         "files": packed, "left_out": left_out}, indent=1) + "\n")
    return left_out


def unpack(folder: Path) -> dict[str, bytes]:
    """The files in the parcels of `folder`, by name, every checksum tested. ValueError names what is wrong."""
    path = folder / LIST
    if not path.exists():
        raise ValueError(f"folder={str(folder)!r} holds no {LIST}; name the folder that --export wrote")
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
        if listing["format"] != FORMAT:
            raise ValueError(f"format {listing['format']} instead of {FORMAT}")
        digests = listing["parcels"]
        whole = b"".join(_read(folder / f"parcel-{number}", digests[f"parcel-{number}"])
                         for number in range(len(digests)))
        files = _members(whole, folder) if whole else {}
        if list(files) != listing["files"]:
            raise ValueError(f"the parcels in {folder} hold other files than {LIST} says; export again")
        return files
    except (AttributeError, EOFError, IndexError, KeyError, OSError, RecursionError, TypeError, UnicodeDecodeError,
            json.JSONDecodeError, tarfile.TarError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); export again") from error


def _read(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; all files of an export belong together") from None
    if _digest(content) != digest:
        raise ValueError(f"{path} is damaged or has been changed: its checksum is another; export again")
    return content


def _members(whole: bytes, folder: Path) -> dict[str, bytes]:
    """The files of a .tar, read into memory and never unpacked to disk: no name or link in it can lead anywhere."""
    files = {}
    with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as archive:
        for entry in archive:
            if not NAMES.fullmatch(entry.name):
                raise ValueError(f"the parcels in {folder} hold {entry.name!r}, which is neither a record nor a "
                                 "checkpoint")
            if not entry.isreg() or entry.issparse():  # a sparse one of a few bytes may read as any number
                raise ValueError(f"{entry.name} in {folder} is no plain file; export again")
            files[entry.name] = archive.extractfile(entry).read()
    return files


def merge(folder: Path, results: Path, checkpoints: Path) -> list[str]:
    """Take the parcels of `folder` in, and say what became of each file. What is here stays where it is at least as
    complete and as new. ValueError, and nothing taken in, if any file is damaged or not what its name says."""
    files = unpack(folder)
    said, taken = {}, {}
    for name, content in files.items():  # before anything is written
        kind, _, file = name.rpartition("/")
        target = folders(results, checkpoints)[kind] / file
        arrived = _told(name, content)
        if kind == "checkpoints" and (results / f"{target.stem}.json").exists():
            said[target] = f"kept    {name}: the run is recorded here"
        elif ((here := _told_here(name, target)) and None not in (arrived.digest, here.digest)
              and arrived.digest != here.digest):
            said[target] = (f"kept    {name}: the one here is of other pictures, which were called the same; import "
                            "into other --results and --checkpoints")
        elif here and here.rank >= arrived.rank:
            said[target] = f"kept    {name}: the one here is as complete"
        else:
            taken[target] = content
            said[target] = f"taken   {name}"
    for target, content in taken.items():
        try:
            with alone(target if target.parent == checkpoints else None):  # its run would write over what is taken
                write_atomic(target, content)
        except CheckpointInUse:
            said[target] = f"kept    checkpoints/{target.name}: it is being trained; import once more afterwards"
    return list(said.values())


class Told(NamedTuple):
    """What a file says of itself.

    rank: its worth against another of its name: how much it holds, then when it was finished.   digest: of the pictures
    that a run was trained on; None where it does not say.
    """

    rank: tuple[int, str]
    digest: str | None = None


DAMAGED = Told((-1, ""))  # whatever arrives whole is better


def _told_here(name: str, target: Path) -> Told | None:
    """The same of the file that is here; None where there is none."""
    try:
        return _told(name, target.read_bytes()) if target.exists() else None
    except ValueError:
        return DAMAGED


def _told(name: str, content: bytes) -> Told:
    """ValueError if the content isn't what the name says."""
    if name.startswith("checkpoints/"):
        run, digest = checkpoint.peek(Path(name), content)
        return Told((len(run.history), run.finished_at or ""), digest)
    try:
        if name.startswith("memory/"):
            held = memory.parse_needs(content)
            return Told((len(held["rows"]), held["device"]))
        if name.startswith("results/batches/"):
            held = parse_batches(content)
            return Told((len(held["largest_batch"]), held["finished"]))
        held = parse_record(content, name)
        if f"results/{record_name(held)}" != name:
            raise ValueError(f"a record named {record_name(held)}")
        return Told((len(held["history"]), held["finished"] or ""), held.get("digest"))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not what its name says: {error}") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
