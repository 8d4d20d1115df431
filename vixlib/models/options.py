"""Flat options: `num_landmarks=16` in a host's constructor finds the part that it belongs to."""
from __future__ import annotations

import inspect

# Arguments that the host fills in itself.
COMMON = {"self", "dim", "heads", "dim_head", "seq_len", "channels", "patch_size", "grid", "cls"}


def own_options(part: type) -> set[str]:
    """The argument names that are this part's alone."""
    return set(inspect.signature(part).parameters) - COMMON


def distribute(owner: str, options: dict, *parts: type) -> list[dict]:
    """One dict of keyword arguments for each of `parts`; a name that none of them takes is a TypeError."""
    known = [own_options(part) for part in parts]
    for name in options:
        if not any(name in names for names in known):
            takes = ", ".join(sorted(set().union(*known))) or "none"
            raise TypeError(f"{owner} got {name}={options[name]!r}, which neither it nor its parts take; "
                            f"the options of {', '.join(part.__name__ for part in parts)} are: {takes}")
    return [{name: value for name, value in options.items() if name in names} for names in known]


def takes(host: type, settings: dict) -> set[str]:
    """Every option name that `host` and the parts chosen in `settings` understand (see the host's `parts`)."""
    named = set(inspect.signature(host).parameters) - {"options"}
    return named.union(*(own_options(part) for part in host.parts(settings)))
