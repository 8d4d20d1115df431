"""Unpacking downloads: everything is looked at before anything is written, and a folder appears whole or not at all."""

from __future__ import annotations

import lzma
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
    a device, below a file; also for an encrypted or damaged archive, and where into/folder is a file or a link.
    OSError, which names the archive, where it cannot be read or its files not be written. What was unpacked so far is
    removed where unpacking fails.
    """
    temporary, target = into / f".{folder}.unpacking", into / folder
    if target.is_symlink() or target.is_file():
        raise ValueError(f"{target} is a link or a file, and {archive} cannot be unpacked there; move it away")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with (zipfile.ZipFile if zipfile.is_zipfile(archive) else tarfile.open)(archive) as opened:
            entries = _of_zip(opened) if isinstance(opened, zipfile.ZipFile) else _of_tar(opened)
            files = {PurePosixPath(name) for name, _, read in entries if read is not None}
            for name, plain, read in entries:
                path = PurePosixPath(name)
                if (not plain or path.is_absolute() or ".." in path.parts or {"\\", "\0"} & set(name)
                        or path.parts[:1] != (folder,) or files & {*path.parents, *([path] if read is None else [])}):
                    raise ValueError(f"{archive} holds {name!r}, which is no plain file below {folder}/; nothing was "
                                     "unpacked: delete it and get the archive anew, from its own source")
            for name, _, read in entries:
                if read is not None:
                    unpacked = temporary / name
                    unpacked.parent.mkdir(parents=True, exist_ok=True)
                    with read() as source, open(unpacked, "wb") as file:
                        shutil.copyfileobj(source, file)
        if not (temporary / folder).is_dir():
            raise ValueError(f"{archive} holds no files in {folder}/; delete it and get it anew, from its own source")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary / folder, target)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, EOFError,
            UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's; gzip and bz2 give no number
            raise OSError(error.errno, f"cannot unpack {archive} into {target}: {error.strerror} "
                          f"({str(error.filename)[-80:]}); make room there, or get the archive anew") from error
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"{archive} is truncated or no archive ({reason}); delete it and download again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _of_zip(archive: zipfile.ZipFile) -> list:
    """(name, whether it is a plain file or folder, how to open it: None for a folder) of every entry."""
    # Unix keeps the kind of a file in the upper half of the attributes, 0 where the archive is not from there.
    # The lowest flag: encrypted.
    return [(entry.filename, entry.external_attr >> 28 in (0, 0o4, 0o10) and not entry.flag_bits & 1,
             None if entry.is_dir() else lambda entry=entry: archive.open(entry)) for entry in archive.infolist()]


def _of_tar(archive: tarfile.TarFile) -> list:
    entries = [(entry.name, entry.isreg() or entry.isdir(),
                (lambda entry=entry: archive.extractfile(entry)) if entry.isreg() else None)
               for entry in archive.getmembers()]
    while archive.fileobj.read(2**20):  # the checksum of what is compressed stands after it, and tarfile stops before
        pass
    return entries
