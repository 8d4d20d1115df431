"""A record with nothing in it, of the types that records have: tests fill in what they are about."""
from __future__ import annotations

from vixlib.records import FIELDS

BLANK = {**dict.fromkeys(FIELDS), "dataset": "cifar10", "profile": "quick", "model": "ViT", "config": "uniform",
         "position": "learned", "options": {}, "seed": 0, "train": {"epochs": 1, "batch_size": 64},
         "params": {"true": 1, "as_paper": 1}, "history": [], "best_top1": 0.0,
         "last_top1": 0.0, "device": "CPU"}
