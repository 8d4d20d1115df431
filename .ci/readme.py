"""Fill README's generated parts from the records: whatever stands between <!-- NAME --> and <!-- /NAME -->."""
from __future__ import annotations

import re
import sys
from pathlib import Path

import vixlib as vix

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # benchmarks/ is no installed package

from benchmarks.summary import summary  # noqa: E402

README = ROOT / "README.md"
PARTS = {f"table {number}": lambda number=number: f"```text\n{vix.compare(number)}\n```" for number in (1, 3)}
PARTS["benchmarks"] = lambda: f"```text\n{summary()}\n```"


def filled(text: str) -> str:
    """`text` with every generated part made anew; a missing pair of markers is an error."""
    for name, make in PARTS.items():
        part = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not part.search(text):
            raise SystemExit(f"README.md lacks the markers <!-- {name} --> and <!-- /{name} -->")
        text = part.sub(lambda found, make=make: found[1] + make() + "\n" + found[2], text)
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
