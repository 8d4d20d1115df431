"""README's part: the tables of the recorded benchmarks."""
from __future__ import annotations

from pathlib import Path

from vixlib.report.benchmarks import BENCHMARKS, crossings, read
from vixlib.report.comparison import NOT_MEASURED

from . import peers, roofline

TABLES = {"peers": lambda found: [peers.table(found)], "scaling": crossings,
          "roofline": lambda found: [roofline.table(found)]}


def summary(folder: Path = BENCHMARKS) -> str:
    """All tables of a folder's records, as text; "not measured" if there is none."""
    found = read(folder)
    tables = [table for name, make in TABLES.items()
              for one in found if one["benchmark"] == name for table in make(one)]
    return "\n\n".join(map(str, tables)) or NOT_MEASURED
