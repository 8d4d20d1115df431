"""Files: where the project's own are, written atomically, tensors read as data, and output that nobody reads."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

YOUNG = 5.0  # seconds; locking follows opening within microseconds
ROOT = Path(__file__).resolve().parent.parent
# The files that the project keeps: data/ of the checkout; a wheel carries them inside the package (see pyproject.toml).
_STORED = Path(__file__).resolve().parent / "stored"
DATA = _STORED if _STORED.is_dir() else ROOT / "data"


def write_atomic(path: str | Path, data: bytes | str) -> Path:
    """Write `data` to `path` so that a reader, or a crash at any moment, sees the old file or the new one.

    Missing folders are made. An OSError names the path; the old file is intact and no temporary file stays, not even
    from a process that was killed while it wrote into this folder: the next write there removes it. Of a link, the
    file that it leads to is written; a file keeps its permissions.
    """
    path = Path(os.path.realpath(path))
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
            if path.exists():
                shutil.copymode(path, temporary)
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


def require_writable(path: Path) -> None:
    """A file can be written beside `path`, in a folder that is made; the OSError or ValueError names `path`."""
    folder = Path(os.path.realpath(path)).parent  # where write_atomic writes
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise type(error)(f"cannot write {path}: {error}") from error


def listed(folder: Path, ending: str) -> list[Path]:
    """The files in `folder`, if there is one, whose names end so, hidden ones (that another program left, or --export)
    aside; glob would find none where it may not be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(ending) and path.name[0] != ".")
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise ValueError(f"folder={str(folder)!r} is a file; name the folder that holds the {ending} files") from None
    except OSError as error:
        raise OSError(error.errno, f"folder={str(folder)!r} cannot be read: {error.strerror}; change its permissions, "
                      "or name another folder") from error


def file_part(text: str) -> str:
    """`text`, a device's name for instance, as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")


@contextmanager
def held(path: Path, patience: float = 0.0) -> Iterator[bool]:
    """Hold the file `path`, which is there only as long, as a sign that others respect. False while another process,
    or another caller in this one, holds it for more than `patience` seconds; where the system has no such locks, nobody
    can know, and it is True."""
    file, since = None, time.monotonic()
    while file is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "wb")
        except OSError:  # where nothing can be written, nobody can overwrite anything
            break
        locked = _lock(file)
        if locked is False:
            file.close()
            if time.monotonic() - since > patience:
                yield False
                return
            file = None
            time.sleep(0.05)
        elif locked and not (path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))):
            file.close()  # its last holder has just removed it: it is a sign to nobody
            file = None
    try:
        yield True
    finally:
        if file is not None:
            _remove(path)
            file.close()
            if fcntl is None:  # Windows removes no file that is open
                _remove(path)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Hold `path` against others that change it in this way, too: for reading a file, changing what it says and writing
    it again. An OSError where another process holds it for a minute."""
    with held(path.with_name(f".{path.name}.lock"), patience=60) as free:
        if not free:
            raise OSError(f"cannot write {path}: another process has been changing it for a minute; try again later")
        yield


def _lock(file: BinaryIO) -> bool | None:
    """Hold `file` until it is closed, by this process or by its end; False where another holds it, None where the
    system has no such locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (AttributeError, OSError):  # Windows has no fcntl, some network folders no locks
        return None
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


def bar_options(shown: bool = True) -> dict:
    """How tqdm is told to show nothing: where nobody wants it or standard error is closed (`2>&-`). Only "off" is
    passed on, so that TQDM_DISABLE still decides otherwise."""
    return {} if shown and sys.stderr is not None else {"disable": True}


@contextmanager
def while_read() -> Iterator[None]:
    """Ends a command quietly once its output is read no further, as by `| head`, with the status of such an end; what
    the terminal cannot show is written as its number and ends nothing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
        if sys.stdout is not None:  # closed by `>&-`
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise SystemExit(141) from None  # what a shell reports for SIGPIPE


def read_tensors(content: bytes) -> dict:
    """What torch.save wrote, as data and never as code, after every checksum in it was tested, which torch leaves out.

    Raises whatever zipfile and torch.load raise for content that is damaged or something else.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"the checksum of {damaged} is another")
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
