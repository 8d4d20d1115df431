"""A record with nothing in it, of the types that records have: tests fill in what they are about."""
from __future__ import annotations

from vixlib.report.records import FIELDS


def history(epochs: int = 1, last: float = 1.0, best: float | None = None) -> list[dict]:
    """The history of a run of so many epochs, the last of accuracy `last` and those before of `best`."""
    top1 = [last if best is None else best] * (epochs - 1) + [last]
    return [{"epoch": epoch, "loss": 1.0, "top1": accuracy, "top5": 100.0, "seconds": 3.0}
            for epoch, accuracy in enumerate(top1, start=1)]


def scored(last: float, best: float | None = None, epochs: int = 1) -> dict:
    """The fields of a record that say how accurate its run was, and that have to agree."""
    return {"last_top1": last, "best_top1": last if best is None else best, "history": history(epochs, last, best)}


BLANK = {**dict.fromkeys(FIELDS), "dataset": "cifar10", "profile": "quick", "model": "ViT", "config": "uniform",
         "position": "learned", "options": {}, "seed": 0, "train": {"epochs": 1, "batch_size": 64},
         "params": {"true": 1, "as_paper": 1}, **scored(1.0), "device": "CPU"}
