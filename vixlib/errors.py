"""Checks of arguments: an error names the argument, its value and the fix."""
from __future__ import annotations


def require_count(**values: int) -> None:
    """Each keyword must be an integer of at least 1; TypeError or ValueError names the first that is not."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}={value!r} must be an integer, got {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")


def require_known(name: str, value: object, known: dict | list | tuple) -> None:
    """`value` must be one of `known`; the ValueError lists them."""
    if value not in known:
        raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(map(repr, known))}")
