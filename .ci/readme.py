"""Fill the READMEs' generated parts from the records: whatever stands between <!-- NAME --> and <!-- /NAME -->.

Draws README's picture, too, where the benchmark that it shows has changed.
"""
from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import vixlib as vix
from vixlib.measure.durations import read_minutes
from vixlib.report.experiments import reasons_table
from vixlib.report.logs import first_epochs_table
from vixlib.report.memory import fits_table
from vixlib.report.verdicts import verdict_table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / ".ci")]  # neither is an installed package

import picture  # noqa: E402
import publish  # noqa: E402

from benchmarks.summary import summary  # noqa: E402

README, MEASURED, COURSE = ROOT / "README.md", ROOT / "data" / "README.md", ROOT / "notebooks" / "README.md"
# What a reader learns, and which of the paper's results is reproduced; the titles are in the notebooks.
NOTEBOOKS = {
    "01_vit": ("tokens, self-attention in ten lines, why it costs N², what fused attention changed",
               "ViT's row of Table 1"),
    "02_linear_attention": ("Performer, Linformer, Nyströmformer from their equations; when linear attention pays",
                            "Tables 1 and 2"),
    "03_hybrid": ("what a convolution knows that attention has to learn", "Table 3, Figure 4"),
    "04_rope": ("positions as rotations, in one and two dimensions", 'the claim "RoPE raises accuracy"'),
    "05_levit_cct": ("two hosts that others designed, with the same mixers inside", "Table 4"),
    "06_cvt_cxv": ("a convolution inside every layer: CvT and Convolutional X-formers",
                   "what *The Batch* quotes of CXV on CIFAR-10"),
}


def notebooks_table() -> str:
    """README's table of the notebooks, with badges for this repository's address and the minutes measured."""
    address, rows = publish.address(), read_minutes()
    lines = ["| notebook | what you learn | the paper's result | minutes, CPU / T4 | open |", "|---|---|---|---|---|"]
    for name, (learn, reproduces) in NOTEBOOKS.items():
        path = f"github.com/{address}/blob/main/notebooks/{name}.ipynb"
        colab = (f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
                 f"(https://colab.research.google.com/{path.replace('github.com', 'github')})")
        kaggle = (f"[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
                  f"(https://kaggle.com/kernels/welcome?src=https://{path})")
        cpu, t4 = (_minutes(rows, name, *where) for where in (("smoke", "CPU"), ("quick", "T4")))
        lines.append(f"| [{_title(name)}](notebooks/{name}.ipynb) | {learn} | {reproduces} | {cpu} / {t4} "
                     f"| {colab} {kaggle} |")
    devices = sorted({row["device"] for row in rows if row["profile"] == "smoke" and row["kind"] == "cpu"})
    return "\n".join([*lines, "", f"CPU: profile `smoke` on {' or '.join(devices) or 'none yet'}; T4: profile `quick`. "
                                  "The announcement in each notebook scales them to your machine."])


def _title(name: str) -> str:
    return re.search(r"^# # (.+)$", (ROOT / "notebooks" / f"{name}.py").read_text(), re.MULTILINE)[1]


def _minutes(rows: list[dict], notebook: str, profile: str, device: str) -> str:
    """The latest measurement on a device whose name holds `device`, in minutes."""
    found = [row for row in rows
             if (row["notebook"], row["profile"]) == (notebook, profile) and device in row["device"]]
    return f"{max(found, key=lambda row: row['finished'])['seconds'] / 60:.1f}" if found else vix.report.NOT_MEASURED


def fenced(make: Callable[[], object]) -> Callable[[], str]:
    """Text in columns, which a README must not reflow."""
    return lambda: f"```text\n{make()}\n```"


PARTS = {README: {"notebooks": notebooks_table, "table 1": fenced(vix.compare)},
         MEASURED: {**{f"table {table}": fenced(lambda table=table: vix.compare(table)) for table in (3, 4, "cxv")},
                    **{f"top-5 of table {table}": fenced(lambda table=table: vix.compare(table, score="top5"))
                       for table in (1, 3, 4)},
                    "first epochs": fenced(first_epochs_table),
                    "memory": fenced(fits_table), "benchmarks": fenced(summary)},
         COURSE: {"verdicts": fenced(verdict_table), "reasons": fenced(reasons_table)}}


def filled(path: Path) -> str:
    """The text of a README with every generated part made anew; a missing pair of markers is an error."""
    text = path.read_text()
    for name, make in PARTS[path].items():
        part = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not part.search(text):
            raise SystemExit(f"{path} lacks the markers <!-- {name} --> and <!-- /{name} -->")
        text = part.sub(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    for path in PARTS:
        path.write_text(filled(path))
    if not picture.is_current():
        print(f"drawn: {picture.draw().relative_to(ROOT)}")
