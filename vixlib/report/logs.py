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


def first_epochs_table(results: str | Path | None = None) -> Table:
    """Test top-1 (%) after the first epoch and the mean training loss in it: each of the authors' logs on CIFAR-10 that
    begins with it, beside the runs of table "logs" and profile "first-epoch" in `results` (a folder of records or
    None, data/results).

    Two columns for each data set recorded; in brackets how far our mean is from the log, for top-1 in points.
    """
    records = told_apart(read_records(results, table=LOGS, profile="first-epoch"))
    datasets = sorted({record["dataset"] for record in records})
    rows, head_starts = [], []
    for row in table_rows(LOGS):
        log = row.printed
        own = [record for record in records if _repeats(record, row)]
        top1, loss = (log["top1"][0], log["first_train_loss"]) if "top1" in log else (None, None)
        cells = []
        for dataset in datasets:
            here = [record for record in own if record["dataset"] == dataset]
            cells.append(_beside([record["last_top1"] for record in here], top1))
            cells.append(_beside([record["history"][0]["loss"] for record in here], loss))
        took = [record["history"][0]["seconds"] / 60 for record in own]
        mark = ""
        if "epochs_before" in log:
            mark = "‡"
            head_starts.append(f"{row.model} for up to {log['epochs_before']:g} of an epoch")
        # A log's options are those that its parameters tell; beside the logs they are what is tried.
        tried = "".join(f", {name}={value}" for name, value in row.options) if top1 is None else ""
        rows.append([f"{row.model}, {row.position}{tried}", f"{log['batch_size']}",
                     *(("no log", "-") if top1 is None else (f"{top1:.2f}{mark}", f"{loss:.2f}")),
                     *(cells or [NOT_MEASURED] * 2),
                     f"{median(took):.0f}" if took else "-"])
    devices = sorted({record["device"] for record in records})
    return Table("The authors' own runs, every pixel a token: test top-1 (%) after the first epoch",
                 ["model, position", "batch\nsize", "authors' log\ncifar10", "its training\nloss",
                  *(f"{title}\n{dataset}".rstrip() for dataset in datasets or [""]
                    for title in ("recorded", "training loss")), "minutes"], rows,
                 ("as in the logs: layers, batch size, optimiser, float32, no augmentation",
                  "not repeated: stabilisers of Performer and Nyström that all pictures of a batch share; accuracy as "
                  "a mean over batches",
                  f"recorded on: {'; '.join(devices)}" if devices else "none is recorded yet",
                  "(…): recorded mean less the log, for top-1 in points; a log is one run, of an unknown seed: two or "
                  "three points say nothing",
                  "training loss: mean cross-entropy over the batches of the epoch",
                  "no log: tried beside the logs, trained as their ViT was",
                  f"‡ probably trained before: {', '.join(head_starts)}",
                  *copy_notes(datasets),
                  f"{NOT_MEASURED}: python -m vixlib.reproduce --table {LOGS} --profile first-epoch trains them, on a "
                  "CPU, too"))


def _beside(values: list[float], log: float | None) -> str:
    """Mean and spread of `values`, and how far they are from the log, if there is one."""
    if not values:
        return NOT_MEASURED
    return spread(values) + ("" if log is None else f" ({fmean(values) - log:+.2f})")


def _repeats(record: dict, row: Row) -> bool:
    """Whether `record` is of the model, the batch size and the precision of the log in `row`."""
    return ((record["model"], record["position"], record["options"]) == (row.model, row.position, dict(row.options))
            and record["train"]["batch_size"] == row.printed["batch_size"]
            and record.get("precision", "float32") == "float32")
