"""Experiments on the reasons: what becomes of a system's accuracy when one option, or its training, is changed."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from ..errors import require_known
from ..table import Table
from ..train.run import training_settings
from .comparison import NOT_MEASURED, Group
from .differences import Difference
from .records import IDENTITY, all_records, told_apart
from .rows import EXPERIMENTS, RECIPES, Recipe, Variant, is_tried
from .verdicts import in_points, mark

ALL = sorted((*EXPERIMENTS, *RECIPES), key=lambda experiment: experiment.notebook)


def reasons_table(notebook: str | None = None, results: str | Path | None = None) -> Table:
    """The experiments on the reasons (of one `notebook`): a system with one option changed, or trained by another
    recipe, against the plain one.

    results: a folder of records or None, data/results. Recorded runs are paired by setting and seed, as for claims.
    """
    require_known("notebook", notebook, (None, *sorted({experiment.notebook for experiment in ALL})))
    records = told_apart(all_records(results))
    changed, plain = ([record for record in records if is_tried(record) is own] for own in (True, False))
    rows, asked, marks = [], set(), {}
    for experiment in ALL:
        if notebook not in (None, experiment.notebook):
            continue
        made = _trained(experiment, plain) if isinstance(experiment, Recipe) else _built(experiment, changed, plain)
        for found in made:
            scores = [fmean(side) for side in zip(*found.pairs, strict=True)] or [None, None]
            rows.append(["" if experiment.question in asked else experiment.question, experiment.notebook,
                         found.a, *(NOT_MEASURED if score is None else f"{score:.2f}" for score in scores),
                         in_points(found), mark(marks, found.group)])
            asked.add(experiment.question)
    return Table("Experiments on the reasons: one option changed and nothing else, or the training as a whole",
                 ["question", "notebook", "changed", "changed,\ntop-1 (%)", "plain,\ntop-1 (%)",
                  "difference\n(points)", "setting"], rows,
                 (*(f"{sign} {setting}" for setting, sign in marks.items()),
                  "last epoch, means over the seeds that both have; difference: ± half the width of the paired "
                  "95 % interval"),
                 left=(0, 1, 2, 6))


def _built(experiment: Variant, changed: list[dict], plain: list[dict]) -> list[Difference]:
    """Runs with the option against runs without it."""
    name, value = experiment.option
    ones = [one for one in changed if one["model"] == experiment.model and one["options"].get(name) == value]

    def without(one: dict) -> dict:
        return {"options": {key: own for key, own in one["options"].items() if key != name},
                **(dict([experiment.against]) if experiment.against else {})}

    against = f", against {experiment.against[1]}" if experiment.against else ""
    return _paired(f"{experiment.model}, {name}={value}{against}", experiment.model, ones, plain, without,
                   training_settings)


def _trained(experiment: Recipe, records: list[dict]) -> list[Difference]:
    """Runs of one profile against those of the other."""
    ones = [one for one in records if (one["model"], one["profile"]) == (experiment.model, experiment.profile)]
    return _paired(f"{experiment.model}, profile {experiment.profile}", experiment.model, ones, records,
                   lambda one: {"profile": experiment.plain},
                   lambda record: (record["train"]["epochs"], record["train"]["batch_size"]))


def _paired(label: str, model: str, ones: list[dict], plain: list[dict], without: Callable[[dict], dict],
            trained: Callable[[dict], object]) -> list[Difference]:
    """One Difference for each setting in which some of `ones` have a counterpart in `plain`: the run that differs in
    what `without` says and nothing else. trained: what of the training has to be equal."""
    found: dict[Group, list[tuple[float, float]]] = {}
    for one in ones:
        wanted = {**one, **without(one)}
        found.setdefault(Group.of(one), []).extend(
            (one["last_top1"], other["last_top1"]) for other in plain
            if all(other[key] == wanted[key] for key in IDENTITY) and trained(one) == trained(other))
    return [Difference(label, model, group, tuple(pairs)) for group, pairs in sorted(found.items()) if pairs
            ] or [Difference(label, model)]
