"""Recorded runs on disk: one JSON file a run, written atomically. A table is a query over these files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import subprocess
import time
import zipfile
from pathlib import Path
from typing import BinaryIO

import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from .device import device_name, pick_device
from .errors import require_kinds, require_mapping, require_path

YOUNG = 5.0  # seconds; locking follows opening within microseconds
ROOT = Path(__file__).resolve().parent.parent
# The files that the project keeps: data/ of the checkout; a wheel carries them inside the package (see pyproject.toml).
_STORED = Path(__file__).resolve().parent / "stored"
DATA = _STORED if _STORED.is_dir() else ROOT / "data"
RESULTS = DATA / "results"

# In a record's "table": an experiment beside the tables, with an option changed (see tables.EXPERIMENTS).
VARIANTS = "variants"
IDENTITY = ("dataset", "profile", "model", "config", "position", "options", "seed")
FIELDS = (*IDENTITY, "table", "train", "params", "history", "best_top1", "last_top1", "peak_memory_bytes",
          "images_per_second", "device", "memory_limit_gb", "torch", "vixlib", "commit", "started",
          "finished")

NUMBER = (int, float)
KINDS = {"dataset": str, "profile": str, "model": str, "config": (str, type(None)), "position": str, "options": dict,
         "seed": int, "table": (int, str, type(None)), "train": dict, "params": dict, "history": list,
         "best_top1": NUMBER, "last_top1": NUMBER, "device": str}  # of the fields that tables and verdicts compute with
EPOCH_KINDS = {"epoch": int, "loss": NUMBER, "top1": NUMBER, "top5": NUMBER, "seconds": NUMBER}


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write `data` to `path` so that a reader, or a crash at any moment, sees the old file or the new one.

    Missing folders are made. An OSError names the path; the old file is intact and no temporary file stays, not even
    from a process that was killed while it wrote into this folder: the next write there removes it.
    """
    path = Path(path)
    # In the same folder, because a rename is atomic only within one file system.
    temporary = path.with_name(f".{secrets.token_hex(6)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        with open(temporary, "wb") as file:
            locked = _lock(file)
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
            if locked:  # while it is, so that no other process takes it for abandoned
                os.replace(temporary, path)
        if not locked:
            os.replace(temporary, path)
    except OSError as error:
        _remove(temporary)
        message = f"cannot write {path}: {error.strerror or error}; what was there before is unchanged"
        raise OSError(error.errno, message) from error
    except BaseException:  # an interrupt, too, must not leave a temporary file behind
        _remove(temporary)
        raise
    return path


def _lock(file: BinaryIO) -> bool:
    """Hold `file` until it is closed, by this process or by its end; False where the system has no such locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (AttributeError, OSError):  # Windows has no fcntl, some network folders no locks
        return False
    return True


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in `folder` whose writers are gone: those that nobody holds locked. One that is a few
    seconds old may be about to be locked."""
    for path in folder.glob(".*.tmp"):
        try:
            if re.fullmatch(r"\.[0-9a-f]{12}\.tmp", path.name) and time.time() - path.stat().st_mtime > YOUNG:
                with open(path, "r+b") as file:
                    if _lock(file):
                        path.unlink(missing_ok=True)
        except OSError:
            continue  # removed by somebody else meanwhile, or not ours to touch


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # the first error is the one to report


def read_tensors(content: bytes) -> dict:
    """What torch.save wrote, as data and never as code, after every checksum in it was tested, which torch leaves out.

    Raises whatever zipfile and torch.load raise for content that is damaged or something else.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} is another")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def record_name(record: dict) -> str:
    """The file name of a record, from the fields in IDENTITY alone: the same run always has the same name.

    The readable part is shortened and cleaned; the digest at its end tells apart whatever that merged.
    """
    _require(record, IDENTITY, "record_name")
    options = "-".join(f"{key}={value}" for key, value in sorted(record["options"].items()))
    parts = [record["dataset"], record["profile"], record["model"], record["config"],
             record["position"], options, f"seed{record['seed']}"]
    cleaned = (re.sub(r"[^A-Za-z0-9=.-]+", "-", str(part)).strip("-.")[:60] for part in parts)
    identity = json.dumps([record[field] for field in IDENTITY], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return "_".join([*filter(None, cleaned), digest]) + ".json"


def write_record(record: dict, folder: str | Path | None = None) -> Path:
    """Write one run to `folder` (default: the repository's data/results) and return its path.

    A record with the same identity is replaced. ValueError names missing fields and non-finite numbers.
    """
    _require(record, FIELDS, "write_record")
    try:
        text = json.dumps(record, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"record {record_name(record)} cannot be written as JSON: {error}") from error
    return write_atomic(Path(folder or RESULTS) / record_name(record), text + "\n")


def read_records(folder: str | Path | None = None, **match) -> list[dict]:
    """All records of `folder` (default: the repository's data/results) whose fields equal `match`.

    `read_records(model="ViN", profile="paper")`; sorted by file name; a missing folder holds no records.
    Runs of the experiments beside the tables are no seeds of a table's systems: only `table="variants"` reads them.
    A damaged or incomplete file, and a copy of another one, is a ValueError that names it; an unknown field in `match`
    a TypeError.
    """
    unknown = sorted(set(match) - set(FIELDS))
    if unknown:
        raise TypeError(f"read_records() got unknown fields {unknown}; a record has {', '.join(FIELDS)}")
    if folder is not None:
        require_path("folder", folder)
    try:
        wanted = json.loads(json.dumps(match))  # as it would come back from a file: tuples are lists
    except (TypeError, ValueError) as error:
        raise TypeError(f"match={match!r} holds what no record can hold: {error}") from error
    records: dict[str, dict] = {}
    files: dict[str, Path] = {}
    for path in sorted(Path(folder or RESULTS).glob("*.json")):
        record = _read(path)
        name = record_name(record)
        if name in records:  # counted as two seeds it would decide what one cannot
            raise ValueError(f"{path} and {files[name]} record the same run; delete one of them")
        records[name], files[name] = record, path
    return [record for record in records.values() if all(record[field] == value for field, value in wanted.items())
            and (record["table"] != VARIANTS or "table" in wanted)]


def _read(path: Path) -> dict:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} is no valid JSON ({error}); restore it or delete it") from error
    _require(record, FIELDS, path)
    try:
        require_kinds(record, KINDS, "the record")
        require_epochs(record["history"])
    except TypeError as error:
        raise ValueError(f"{path}: {error}; restore it or delete it") from error
    return record


def require_epochs(history: list) -> None:
    """Each entry of a run's `history` must be an epoch as training writes it; the TypeError says what is not."""
    for epoch in history:
        require_mapping("an epoch", epoch)
        require_kinds(epoch, EPOCH_KINDS, "an epoch")


def _require(record: dict, fields: tuple[str, ...], where: str | Path) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a record is a JSON object, not {type(record).__name__}")
    missing = [field for field in fields if field not in record]
    if missing:
        raise ValueError(f"{where}: the record lacks {', '.join(missing)}")


def environment(device: torch.device | str | None = None) -> dict:
    """What a result is computed with: {device, torch, vixlib, commit}; device None picks the working one."""
    import vixlib

    return {"device": device_name(device if device is not None else pick_device()),
            "torch": torch.__version__,
            "vixlib": getattr(vixlib, "__version__", None),
            "commit": _commit()}


def _commit() -> str | None:
    """The repository's commit, with "+changes" where vixlib/ differs from it; outside of a repository what the
    environment variable VIX_COMMIT says, or None."""
    head = _git("rev-parse", "--show-toplevel", "HEAD")
    # An installed package may lie inside somebody else's repository, whose commit says nothing about it.
    if head is None or Path(head.split("\n")[0]).resolve() != ROOT:
        return os.environ.get("VIX_COMMIT")
    changed = _git("status", "--porcelain", "--", "vixlib")
    return head.split("\n")[1] + ("+changes" if changed else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
