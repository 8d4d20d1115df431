"""Bringing results home: records and unfinished checkpoints packed into a few files of limited size, and merged there.

A parcel is a .tar.xz of pieces of files; parcels.json beside the parcels says which pieces make which file, with
checksums of both. Nothing of it is trusted on arrival: every checksum, name and content is looked at first.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import require_kinds
from ..files import write_atomic
from ..report import memory
from ..report.records import parse_record, record_name
from ..train import checkpoint

FORMAT = 1
PARCELS, PARCEL_BYTES = 7, 6_000_000  # few and small enough for any way of copying, there and back
LIST = "parcels.json"
FILE = r"[A-Za-z0-9=_+-][A-Za-z0-9=._+-]*"
NAMES = re.compile(rf"((results|results/batches|memory)/{FILE}\.json|checkpoints/{FILE}\.pt)")


def contents(results: Path, checkpoints: Path) -> dict[str, Path]:
    """What there is to take home, by its name in a parcel: records first, then the checkpoints of unfinished runs,
    the smallest first."""
    files = {f"{folder}/{path.name}": path for folder in ("results", "results/batches", "memory")
             for path in _listed(_place(folder, results, checkpoints), ".json")}
    unfinished = [path for path in _listed(checkpoints, ".pt") if not (results / f"{path.stem}.json").exists()]
    return files | {f"checkpoints/{path.name}": path for path in sorted(unfinished, key=lambda p: p.stat().st_size)}


def _listed(folder: Path, ending: str) -> list[Path]:
    """The files in `folder`, if there is one; glob would find none where it may not be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(ending))
    except FileNotFoundError:
        return []


def _place(folder: str, results: Path, checkpoints: Path) -> Path:
    """The folder here of a folder in a parcel; data/memory lies beside data/results."""
    return {"results": results, "results/batches": results / "batches", "memory": results.parent / "memory",
            "checkpoints": checkpoints}[folder]


def stamps(files: dict[str, Path]) -> dict[str, tuple[int, int]]:
    """When each file was changed and how large it is, to tell later which are new."""
    return {name: (path.stat().st_mtime_ns, path.stat().st_size) for name, path in files.items()}


def export(files: dict[str, Path], folder: Path) -> list[str]:
    """Pack `files` into `folder`, which must not hold parcels yet; returns the names of those that didn't fit."""
    if (folder / LIST).exists():
        raise ValueError(f"folder={str(folder)!r} holds parcels already; import them, or name another folder")
    parcels: list[list[bytes]] = [[]]
    room, listed, left_out = PARCEL_BYTES, [], []
    for name, path in files.items():
        content = path.read_bytes()
        if len(content) > room + (PARCELS - len(parcels)) * PARCEL_BYTES:
            left_out.append(name)
            continue
        pieces, rest = [], content
        while rest:
            if not room:
                parcels.append([])
                room = PARCEL_BYTES
            piece, rest = rest[:room], rest[room:]
            parcels[-1].append(piece)
            pieces.append([len(parcels) - 1, len(parcels[-1]) - 1])
            room -= len(piece)
        listed.append({"name": name, "sha256": _digest(content), "bytes": len(content), "pieces": pieces})
    with ThreadPoolExecutor() as pool:
        packed = {f"parcel-{number}.tar.xz": content
                  for number, content in enumerate(pool.map(_pack, filter(None, parcels)))}
    for file, content in packed.items():
        write_atomic(folder / file, content)
    # Last, so that a list always stands for whole parcels.
    write_atomic(folder / LIST, json.dumps(
        {"format": FORMAT, "parcels": {file: _digest(content) for file, content in packed.items()},
         "files": listed, "left_out": left_out}, indent=1) + "\n")
    return left_out


def _pack(pieces: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    # preset 0: weights are noise to a compressor, and a borrowed machine's time is better spent on training.
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=0) as archive:
        for number, piece in enumerate(pieces):
            entry = tarfile.TarInfo(str(number))
            entry.size = len(piece)
            archive.addfile(entry, io.BytesIO(piece))
    return buffer.getvalue()


def unpack(folder: Path) -> dict[str, bytes]:
    """The files in the parcels of `folder`, by name, every checksum tested. ValueError names what is wrong."""
    path = folder / LIST
    if not path.exists():
        raise ValueError(f"folder={str(folder)!r} holds no {LIST}; name the folder that --export wrote")
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
        if listing["format"] != FORMAT:
            raise ValueError(f"format {listing['format']} instead of {FORMAT}")
        wanted = [(item["name"], item["sha256"], item["bytes"], item["pieces"]) for item in listing["files"]]
        archives = [_open(folder / f"parcel-{number}.tar.xz", listing["parcels"][f"parcel-{number}.tar.xz"])
                    for number in range(len(listing["parcels"]))]
        files = {}
        for name, digest, size, pieces in wanted:
            if not NAMES.fullmatch(name):
                raise ValueError(f"{path} names a file {name!r}, which is neither a record nor a checkpoint")
            content = b"".join(_piece(archives[piece[0]], piece[1], folder) for piece in pieces)
            if len(content) != size or _digest(content) != digest:
                raise ValueError(f"{name} in {folder} is damaged: its checksum is another; export again")
            files[name] = content
        return files
    except (AttributeError, EOFError, IndexError, KeyError, RecursionError, TypeError, OSError, UnicodeDecodeError,
            json.JSONDecodeError, tarfile.TarError, lzma.LZMAError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); export again") from error


def _open(path: Path, digest: str) -> tarfile.TarFile:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; all files of an export belong together") from None
    if _digest(content) != digest:
        raise ValueError(f"{path} is damaged or has been changed: its checksum is another; export again")
    return tarfile.open(fileobj=io.BytesIO(content), mode="r:xz")


def _piece(archive: tarfile.TarFile, number: int, folder: Path) -> bytes:
    # Read into memory and never unpacked to disk: a name or a link in the archive can lead nowhere.
    entry = archive.getmember(str(number))
    if not entry.isreg() or entry.size > PARCEL_BYTES:
        raise ValueError(f"a parcel in {folder} holds something else than pieces of files; export again")
    return archive.extractfile(entry).read()


def merge(folder: Path, results: Path, checkpoints: Path) -> list[str]:
    """Take the parcels of `folder` in, and say what became of each file. What is here stays where it is at least as
    complete and as new. ValueError, and nothing taken in, if any file is damaged or not what its name says."""
    files = unpack(folder)
    said, taken = [], {}
    for name, content in files.items():  # before anything is written
        folder, _, file = name.rpartition("/")
        target, rank = _place(folder, results, checkpoints) / file, _rank(name, content)
        if folder == "checkpoints" and (results / f"{target.stem}.json").exists():
            said.append(f"kept    {name}: the run is recorded here")
        elif target.exists() and _rank_of(name, target.read_bytes()) >= rank:
            said.append(f"kept    {name}: the one here is as complete")
        else:
            taken[target] = content
            said.append(f"taken   {name}")
    for target, content in taken.items():
        write_atomic(target, content)
    return said


def _rank_of(name: str, content: bytes) -> tuple[int, str]:
    """What a file is worth against another of its name: how much it holds, then when it was finished."""
    try:
        return _rank(name, content)
    except ValueError:
        return -1, ""  # damaged here: whatever arrives whole is better


def _rank(name: str, content: bytes) -> tuple[int, str]:
    """ValueError if the content isn't what the name says."""
    if name.startswith("checkpoints/"):
        run = checkpoint.run_in(Path(name), content)
        return len(run.history), run.finished_at or ""
    try:
        if name.startswith("memory/"):
            held = memory.parse_needs(content)
            return len(held["rows"]), held["device"]
        if name.startswith("results/batches/"):
            held = json.loads(content)
            require_kinds(held, {"largest_batch": dict, "finished": str}, "a file of largest batches")
            return len(held["largest_batch"]), held["finished"]
        held = parse_record(content, name)
        if f"results/{record_name(held)}" != name:
            raise ValueError(f"a record named {record_name(held)}")
        return len(held["history"]), held["finished"] or ""
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not what its name says: {error}") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
