"""Fill the READMEs' generated parts from the records: whatever stands between <!-- NAME --> and <!-- /NAME -->."""
from __future__ import annotations

import re
import sys
from pathlib import Path

import vixlib as vix
from vixlib.memory import fits_table
from vixlib.verdicts import verdict_table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is no installed package

from benchmarks.summary import summary  # noqa: E402

README, VERDICTS = ROOT / "README.md", ROOT / "notebooks" / "README.md"
PARTS = {README: {**{f"table {number}": lambda number=number: vix.compare(number) for number in (1, 3, 4, "cxv")},
                  "memory": fits_table, "benchmarks": summary},
         VERDICTS: {"verdicts": verdict_table}}


def filled(path: Path) -> str:
    """The text of a README with every generated part made anew; a missing pair of markers is an error."""
    text = path.read_text()
    for name, make in PARTS[path].items():
        part = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not part.search(text):
            raise SystemExit(f"{path} lacks the markers <!-- {name} --> and <!-- /{name} -->")
        text = part.sub(lambda found, make=make: f"{found[1]}```text\n{make()}\n```\n{found[2]}", text)
    return text


if __name__ == "__main__":
    for path in PARTS:
        path.write_text(filled(path))
