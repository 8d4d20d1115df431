"""The authors' own runs begun once more: every pixel a token, their batch size, one epoch, which a CPU can train, too.

A whole run takes 40 epochs of a GPU. The authors' logs say what theirs reached after the first one.
"""
from __future__ import annotations

from pathlib import Path
from statistics import fmean, median

from ..table import Table
from .comparison import NOT_MEASURED, copy_notes, spread
from .records import LOGS, read_records, told_apart
from .rows import Row, table_rows

# The cell that builds this model ends two minutes, half an epoch, before the one that trains it, and its first losses
# and its first training accuracy are those of a later epoch than all others'.
BEGUN_BEFORE = {("ViN", "rope")}


def first_epochs_table(results: str | Path | None = None) -> Table:
    """Test top-1 (%) after the first epoch: each of the authors' logs on CIFAR-10 that begins with it, beside the runs
    of table "logs" and profile "first-epoch" in `results` (a folder of records or None, data/results).

    A column for each data set recorded; in brackets how far our mean is from the log, in points.
    """
    records = told_apart(read_records(results, table=LOGS, profile="first-epoch"))
    datasets = sorted({record["dataset"] for record in records})
    rows = []
    for row in table_rows(LOGS):
        log = row.printed
        own = [record for record in records if _repeats(record, row)]
        cells = []
        for dataset in datasets:
            top1 = [record["last_top1"] for record in own if record["dataset"] == dataset]
            cells.append(f"{spread(top1)} ({fmean(top1) - log['top1'][0]:+.2f})" if top1 else NOT_MEASURED)
        took = [record["history"][0]["seconds"] / 60 for record in own]
        mark = "‡" if (row.model, row.position) in BEGUN_BEFORE else ""
        rows.append([f"{row.model}, {row.position}", f"{log['batch_size']}", f"{log['top1'][0]:.2f}{mark}",
                     *(cells or [NOT_MEASURED]), f"{median(took):.0f}" if took else "-"])
    devices = sorted({record["device"] for record in records})
    return Table("The authors' own runs, every pixel a token: test top-1 (%) after the first epoch",
                 ["model, position", "batch\nsize", "authors' log\ncifar10",
                  *([f"recorded\n{dataset}" for dataset in datasets] or ["recorded"]), "minutes"], rows,
                 ("as in the logs: layers, batch size, optimiser, float32, no augmentation",
                  "not repeated: stabilisers of Performer and Nyström that all pictures of a batch share; accuracy as "
                  "a mean over batches",
                  f"recorded on: {'; '.join(devices)}" if devices else "none is recorded yet",
                  "(…): recorded mean less the log, in points; a log is one run, of an unknown seed: a point or two "
                  "say nothing",
                  "‡ probably trained for about half an epoch before",
                  *copy_notes(datasets),
                  f"{NOT_MEASURED}: python -m vixlib.reproduce --table {LOGS} --profile first-epoch trains them, on a "
                  "CPU, too"))


def _repeats(record: dict, row: Row) -> bool:
    """Whether `record` is of the model, the batch size and the precision of the log in `row`."""
    return ((record["model"], record["position"], record["options"]) == (row.model, row.position, dict(row.options))
            and record["train"]["batch_size"] == row.printed["batch_size"]
            and record.get("precision", "float32") == "float32")
