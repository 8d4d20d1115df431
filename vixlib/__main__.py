"""python -m vixlib: every system by name, with its parameters."""
import argparse

from .files import while_read
from .measure.parameters import count_parameters
from .models.zoo import SYSTEMS, build
from .table import Table


def main() -> None:
    """Print the systems as a table: parameters at CIFAR-10's shape in both configurations, one line about each."""
    argparse.ArgumentParser(prog="python -m vixlib", description=main.__doc__).parse_args()
    rows = []
    for name, system in SYSTEMS.items():
        uniform, paper = (count_parameters(build(name, config)) for config in ("uniform", "paper"))
        rows.append([name, f"{uniform.true:,}", f"{paper.true:,}", f"{paper.as_paper:,}", system.about])
    header = ["name", "parameters\nuniform", "parameters\npaper", "as the\npaper counts", "what it is"]
    print(Table("Systems of vixlib: vix.build(NAME, config=...)", header, rows, left=(0, 4)))


if __name__ == "__main__":
    with while_read():
        main()
