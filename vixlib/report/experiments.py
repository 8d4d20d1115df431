"""Experiments on the reasons: what becomes of a system's accuracy when one of its options is changed."""
from __future__ import annotations

from pathlib import Path
from statistics import fmean

from ..errors import require_known
from ..table import Table
from ..train.run import training
from .comparison import NOT_MEASURED, Group
from .differences import Difference
from .paper import EXPERIMENTS, Variant
from .records import IDENTITY, VARIANTS, read_records
from .verdicts import in_points, mark


def reasons_table(notebook: str | None = None, results: str | Path | None = None) -> Table:
    """The experiments on the reasons (of one `notebook`): a system with one option changed, against the plain one.

    results: a folder of records or None, data/results. Recorded runs are paired by setting and seed, as for claims.
    """
    require_known("notebook", notebook, (None, *sorted({experiment.notebook for experiment in EXPERIMENTS})))
    changed, plain = read_records(results, table=VARIANTS), read_records(results)
    rows, asked, marks = [], set(), {}
    for experiment in EXPERIMENTS:
        if notebook not in (None, experiment.notebook):
            continue
        for found in _experiment(experiment, changed, plain):
            scores = [fmean(side) for side in zip(*found.pairs, strict=True)] or [None, None]
            rows.append(["" if experiment.question in asked else experiment.question, experiment.notebook,
                         found.a, *(NOT_MEASURED if score is None else f"{score:.2f}" for score in scores),
                         in_points(found), mark(marks, found.group)])
            asked.add(experiment.question)
    return Table("Experiments on the reasons: one option changed, nothing else",
                 ["question", "notebook", "changed", "changed,\ntop-1 (%)", "plain,\ntop-1 (%)",
                  "difference\n(points)", "setting"], rows,
                 (*(f"{sign} {setting}" for setting, sign in marks.items()),
                  "last epoch, means over seeds; difference: ± half a 95 % interval over seeds"), left=(0, 1, 2, 6))


def _experiment(experiment: Variant, changed: list[dict], plain: list[dict]) -> list[Difference]:
    """One Difference for each setting in which runs with the option and runs without it are recorded."""
    name, value = experiment.option
    found: dict[Group, list[tuple[float, float]]] = {}
    for one in changed:
        if one["model"] == experiment.model and one["options"].get(name) == value:
            without = {**one, "options": {key: own for key, own in one["options"].items() if key != name}}
            found.setdefault(Group.of(one), []).extend(
                (one["last_top1"], other["last_top1"]) for other in plain
                if all(other[key] == without[key] for key in IDENTITY) and training(one) == training(other))
    label = f"{experiment.model}, {name}={value}"
    return [Difference(label, experiment.model, group, tuple(pairs)) for group, pairs in sorted(found.items()) if pairs
            ] or [Difference(label, experiment.model)]
