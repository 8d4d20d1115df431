"""Compute what a training step of every system needs, into data/memory: `python -m vixlib.reproduce.memory`."""
from __future__ import annotations

import argparse

from ..files import while_read
from ..models.zoo import names
from ..report.memory import MEMORY, fits_table, write
from .arguments import folder


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m vixlib.reproduce.memory", description=__doc__)
    parser.add_argument("--names", nargs="+", choices=names(), metavar="NAME", help="only these systems")
    parser.add_argument("--to", type=folder, default=MEMORY, help="folder of the files")
    parser.add_argument("--show", action="store_true", help="print what fits, from the file")
    chosen = parser.parse_args(arguments)
    if chosen.show and chosen.names:
        parser.error("--show prints the whole file, and would ignore --names")
    try:
        if not chosen.show:
            print(write(chosen.to, only=chosen.names))
        print(fits_table(chosen.to))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    with while_read():
        main()
