"""One run at a time on a checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ..files import held
from . import parallel

LONGEST = 255  # bytes that file systems allow a name
PATIENCE = 3.0  # seconds; a process that was killed takes a moment until it is gone


class CheckpointInUse(RuntimeError):
    """Another run, in this process or another, trains from the same checkpoint at this moment."""


@contextmanager
def alone(path: Path | None) -> Iterator[None]:
    """While this lasts no other run may train from the checkpoint `path`: they would overwrite one another's epochs."""
    sign = None
    if path is not None and parallel.rank() == 0:
        real = Path(os.path.realpath(path))  # a link is written through
        name = f".{real.name}.lock"
        if len(os.fsencode(name)) > LONGEST:
            name = f".{hashlib.sha256(os.fsencode(real.name)).hexdigest()}.lock"
        sign = real.with_name(name)
    with held(sign, PATIENCE) if sign else nullcontext(True) as free:
        if not parallel.from_first(free):
            raise CheckpointInUse(f"checkpoint {path} is that of a run which is being trained at this moment; wait for "
                                  "it, or give another name")
        yield
