"""What a result was computed with: device, versions, commit."""

from __future__ import annotations

import os
import subprocess
from contextvars import ContextVar
from datetime import datetime, timezone
from pathlib import Path

import torch

from .device import device_name
from .files import ROOT

# How many training runs share the device, as the one who starts them says (see reproduce.jobs).
SHARED_BY: ContextVar[int] = ContextVar("SHARED_BY", default=1)

THEN = " then "  # between the devices of a run that was begun on one and finished on another


VERSIONS = ("torch", "vixlib", "commit")


def environment(device: torch.device | str) -> dict:
    """What a result on `device` is computed with: {device, torch, vixlib, commit}."""
    return {"device": device_name(device), **versions()}


def versions() -> dict:
    """The VERSIONS that compute just now."""
    import vixlib

    return dict(zip(VERSIONS, (torch.__version__, getattr(vixlib, "__version__", None), _commit()), strict=True))


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
    # A hook of another repository says by these which one git is to look at.
    own = {name: value for name, value in os.environ.items()
           if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")}
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, env=own, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def now() -> str:
    """The time in UTC, to the second: 2026-01-31T12:00:00+00:00."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
