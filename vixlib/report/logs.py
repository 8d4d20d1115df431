"""The authors' own runs begun once more: every pixel a token, their batch size, one epoch, which a CPU can train, too.

A whole run takes 40 epochs of a GPU. The first epoch of one takes a CPU an hour or two, and the authors' logs say what
theirs reached after it.
"""
from __future__ import annotations

from pathlib import Path
from statistics import fmean

from ..table import Table
from .comparison import NOT_MEASURED, copy_notes, spread
from .records import LOGS, read_records
from .rows import table_rows


def first_epochs_table(results: str | Path | None = None) -> Table:
    """Test top-1 (%) after the first epoch: each of the authors' logs on CIFAR-10 that begins with it, beside the runs
    of table "logs" and profile "first-epoch" in `results` (a folder of records or None, data/results).

    A column for each data set recorded; in brackets how far our mean is from the log, in points.
    """
    records = read_records(results, table=LOGS, profile="first-epoch")
    datasets = sorted({record["dataset"] for record in records})
    rows = []
    for row in table_rows(LOGS):
        log = row.printed
        cells = []
        for dataset in datasets:
            top1 = [r["last_top1"] for r in records
                    if (r["model"], r["position"], r["dataset"]) == (row.model, row.position, dataset)]
            cells.append(f"{spread(top1)} ({fmean(top1) - log['top1'][0]:+.2f})" if top1 else NOT_MEASURED)
        rows.append([f"{row.model}, {row.position}", f"{log['batch_size']}", f"{log['top1'][0]:.2f}",
                     *(cells or [NOT_MEASURED])])
    devices = sorted({record["device"] for record in records})
    return Table("The authors' own runs, every pixel a token: test top-1 (%) after the first epoch",
                 ["model, position", "batch\nsize", "authors' log\ncifar10",
                  *([f"recorded\n{dataset}" for dataset in datasets] or ["recorded"])], rows,
                 ("as in the logs: layers (by their parameter counts), batch size, optimiser, no augmentation",
                  f"recorded on: {'; '.join(devices)}" if devices else "none is recorded yet",
                  "(…): recorded mean less the log, in points; a log is one run, of an unknown seed",
                  *copy_notes(datasets),
                  f"{NOT_MEASURED}: python -m vixlib.reproduce --table {LOGS} --profile first-epoch trains them, on a "
                  "CPU, too"))
