"""How far one system is ahead of another: in the paper, its authors' logs, each group of records, and live runs."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..models.zoo import position_of
from ..train.run import Run
from .comparison import Group, groups_of, run_records
from .differences import THIS_RUN, compared
from .records import read_records, told_apart


def leads(top1: Mapping[str, Mapping[str, float]], wanted: Mapping[str, tuple[str, str]], runs: Iterable[Run],
          results: str | Path | None) -> dict[str, dict[str, float]]:
    """For each label -> (a, b) of `wanted` the top-1 of a less that of b, by source: source -> label -> points.

    Sources: those of `top1` (source -> model -> top-1), then each group of recorded runs, then `runs`.

    Runs are a pair where nothing but the system tells them apart (see report/differences.py). A label that has pairs of
    further settings in one source shows them as "this run (2)", and so on; a source without a label is left out.
    """
    found = {source: {label: of[a] - of[b] for label, (a, b) in wanted.items() if a in of and b in of}
             for source, of in top1.items()}
    systems = {system for pair in wanted.values() for system in pair}
    recorded = recorded_by_group(systems, results)
    sources = {f"recorded, {group}": [r for own in models.values() for r in own] for group, models in recorded.items()}
    live = [record for record in run_records(runs) if record["model"] in systems]
    for source, records in {**sources, THIS_RUN: live}.items():
        positions = dict.fromkeys(record["position"] for record in records)
        for label, (a, b) in wanted.items():
            pairs = [one for position in positions for one in compared(f"{a}/{position}", f"{b}/{position}", records)
                     if one.pairs]
            for number, one in enumerate(pairs, start=1):
                found.setdefault(source if number == 1 else f"{source} ({number})", {})[label] = one.mean
    return {source: gained for source, gained in found.items() if gained}


def recorded_by_group(systems: Iterable[str],
                      results: str | Path | None = None) -> dict[Group, dict[str, list[dict]]]:
    """Records of `systems` with their own kind of positions, by group and model."""
    groups: dict[Group, dict[str, list[dict]]] = {}
    for record in told_apart(read_records(results)):
        if record["model"] in systems and record["position"] == position_of(record["model"], record["config"]):
            groups.setdefault(Group.of(record), {}).setdefault(record["model"], []).append(record)
    shown = groups_of(record for own in groups.values() for records in own.values() for record in records)
    return {group: groups[group] for group in shown}
