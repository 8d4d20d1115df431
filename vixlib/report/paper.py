"""The paper's tables and its authors' logs. The numbers are in data/*.json alone."""
from __future__ import annotations

import json
from copy import deepcopy
from functools import cache

from ..errors import require_known
from ..files import DATA
from ..models.zoo import names
from ..positions import POSITIONS

PRINTED = (1, 2, 3, 4, "cxv")


@cache
def _load(name: str) -> dict:
    path = DATA / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: vixlib/ was copied without the project's data/; "
                                "clone the whole repository, or use the wheel that `make wheel` builds")
    return json.loads(path.read_text())


def paper_table(table: int | str) -> dict:
    """A table as the paper printed it: {"caption", "rows": [{"model", "top1", ...}]}, accuracies in percent.

    "cxv" is what a summary of the article on Convolutional X-formers (in the newsletter The Batch) quotes for CIFAR-10.
    """
    require_known("table", table, PRINTED)
    return deepcopy(_load("paper_tables.json")[table if table == "cxv" else f"table{table}"])  # the caller's own


def authors_runs(model: str, position: str = "learned", dataset: str = "cifar10") -> list[dict]:
    """The authors' own training logs of a system: [{"best_top1", "top1": [per epoch], "resumed", ...}]."""
    require_known("model", model, names())
    require_known("position", position, POSITIONS)
    runs = _load("authors_logs.json")["runs"]
    require_known("dataset", dataset, sorted({run["dataset"] for run in runs}))
    return [deepcopy(run) for run in runs
            if (run["model"], run["position"], run["dataset"]) == (model, position, dataset)]


SHORTEST_LOG = 10  # epochs, below which a log tells nothing about where its system ends


def log_marks(log: dict) -> str:
    """What keeps a log of `authors_runs` from being a whole curve: "*" continued from an earlier checkpoint, "†" fewer
    than SHORTEST_LOG epochs; "" for a log that may be compared."""
    return ("*" if log["resumed"] else "") + ("†" if len(log["top1"]) < SHORTEST_LOG else "")


MARKED_LOGS = f"* continued from an earlier checkpoint, † a log of fewer than {SHORTEST_LOG} epochs: no whole curve"
