"""Values from a command line, for argparse: an error says what was wrong with which of them."""
from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import require_seed


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def folder(text: str) -> Path:
    """A path, which an empty text, as from a variable that is not set, is not."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a folder, or leave it out")
    return Path(text)


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be above 0 and finite")
    return value


def seed(text: str) -> int:
    """An integer that generators take."""
    try:
        value = int(text)
        require_seed("seed", value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer from 0 to below 2**63") from None
    return value
