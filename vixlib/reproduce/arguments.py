"""Values from a command line, for argparse: an error says what was wrong with which of them."""
from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import as_path, require_seed
from . import parcels

PLACES = {"results", "checkpoints"}
TAKES = {  # beside PLACES, what the calls that know themselves what to do leave to choose; any more would be ignored
    "import": set(),
    "todo": {"data", "minutes"},
    "next": {"data", "minutes", "jobs", "memory_gb", "compile", "export"}}


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def folder(text: str) -> Path:
    """A path, which an empty text, as from a variable that is not set, is not."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a folder, or leave it out")
    try:
        return as_path("folder", text)  # a shell expands no ~ after a =
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < 60 * value < float("inf"):  # minutes are reckoned in seconds
        raise argparse.ArgumentTypeError(f"{text} must be above 0 and finite")
    return value


def seed(text: str) -> int:
    """An integer that generators tell apart."""
    try:
        value = int(text)
    except ValueError:
        value = text
    try:
        require_seed("seed", value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("seed=")) from None
    return value


def check(chosen: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the command with an error where arguments do not go together, or name a place where nothing could be kept."""
    given = {name for name, value in vars(chosen).items() if value not in (parser.get_default(name), None)} - PLACES
    for call in TAKES.keys() & given:
        if ignored := given - TAKES[call] - {call}:
            parser.error(f"--{call} knows itself what to do, and would ignore {_flags(ignored)}; it takes "
                         + _flags(TAKES[call] | PLACES)
                         + ("; --todo lists what it would run" if call == "next" else ""))
    if chosen.list and (chosen.batches or chosen.export):
        parser.error("--list lists training runs and makes nothing; leave out --batches and --export")
    if chosen.batches and chosen.memory_gb is None:
        parser.error("--batches needs --memory-gb, for instance 16, the paper's card")
    if chosen.data == "":  # as from a variable that is not set
        parser.error("--data is empty; name a data set or a folder, or leave it out")
    if chosen.export is not None and (chosen.export / parcels.LIST).exists():
        parser.error(f"--export {chosen.export} holds parcels already; name another folder")
    places = {kind: place.resolve() for kind, place in parcels.folders(chosen.results, chosen.checkpoints).items()}
    if places["results"] == places["memory"]:
        parser.error(f"--results {chosen.results} is where figures of memory lie beside records; name another folder")
    kept_in = list(places.values())
    if chosen.export is not None and chosen.export.resolve() in kept_in:
        parser.error(f"--export {chosen.export} is where records or checkpoints are kept; name another folder")
    for name in ("export", "results", "checkpoints"):  # before anything is trained that could not be kept
        place = getattr(chosen, name)
        if place is not None and place.exists() and not place.is_dir():
            parser.error(f"--{name} {place} is a file; name a folder")


def _flags(names: set[str]) -> str:
    return ", ".join(f"--{name}".replace("_", "-") for name in sorted(names))
