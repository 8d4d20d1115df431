"""A record with nothing in it, of the types that records have: tests fill in what they are about."""
from __future__ import annotations

from vixlib.report.records import FIELDS


def history(epochs: int = 1) -> list[dict]:
    """The history of a run of so many epochs."""
    return [{"epoch": epoch, "loss": 1.0, "top1": 1.0, "top5": 2.0, "seconds": 3.0} for epoch in range(1, epochs + 1)]


BLANK = {**dict.fromkeys(FIELDS), "dataset": "cifar10", "profile": "quick", "model": "ViT", "config": "uniform",
         "position": "learned", "options": {}, "seed": 0, "train": {"epochs": 1, "batch_size": 64},
         "params": {"true": 1, "as_paper": 1}, "history": history(), "best_top1": 0.0,
         "last_top1": 0.0, "device": "CPU"}
