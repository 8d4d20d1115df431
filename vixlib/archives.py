"""Unpacking downloads: everything is looked at before anything is written, and a folder appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath


def unpack(archive: Path, into: Path, folder: str) -> Path:
    """Unpack `archive` (.zip or .tar.*), whose entries must be plain files and folders below `folder`; returns
    into/folder, which is replaced if it is there.

    ValueError, and nothing written, for an entry that leads elsewhere: another folder, "..", an absolute path, a link,
    a device; also for a damaged archive. What was unpacked so far is removed where unpacking fails.
    """
    temporary = into / f".{folder}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with (zipfile.ZipFile if zipfile.is_zipfile(archive) else tarfile.open)(archive) as opened:
            entries = _of_zip(opened) if isinstance(opened, zipfile.ZipFile) else _of_tar(opened)
            for name, plain, _ in entries:
                path = PurePosixPath(name)
                if not plain or path.is_absolute() or ".." in path.parts or "\\" in name or path.parts[:1] != (folder,):
                    raise ValueError(f"{archive} holds {name!r}, which is no plain file below {folder}/; nothing was "
                                     "unpacked: delete it and get the archive anew, from its own source")
            for name, _, read in entries:
                if read is not None:
                    target = temporary / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with read() as source, open(target, "wb") as file:
                        shutil.copyfileobj(source, file)
        if not (temporary / folder).is_dir():
            raise ValueError(f"{archive} holds no files in {folder}/; delete it and get it anew, from its own source")
        shutil.rmtree(into / folder, ignore_errors=True)
        os.replace(temporary / folder, into / folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"{archive} is truncated or no archive ({reason}); delete it and download again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return into / folder


def _of_zip(archive: zipfile.ZipFile) -> list:
    """(name, whether it is a plain file or folder, how to open it: None for a folder) of every entry."""
    # Unix keeps the kind of a file in the upper half of the attributes, 0 where the archive is not from there.
    return [(entry.filename, entry.external_attr >> 28 in (0, 0o4, 0o10),
             None if entry.is_dir() else lambda entry=entry: archive.open(entry)) for entry in archive.infolist()]


def _of_tar(archive: tarfile.TarFile) -> list:
    return [(entry.name, entry.isreg() or entry.isdir(),
             (lambda entry=entry: archive.extractfile(entry)) if entry.isreg() else None)
            for entry in archive.getmembers()]
