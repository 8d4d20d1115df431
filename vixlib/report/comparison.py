"""Side-by-side tables: what the paper printed, what its authors logged, what is recorded here, what just ran."""
from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from torch import nn

from ..embeddings import as_pair
from ..errors import require_known, require_type, shown
from ..measure.parameters import count_parameters
from ..models.zoo import applicable, build, names, position_of
from ..table import Table
from ..train.run import Run, training_settings
from .paper import MARKED_LOGS, authors_runs, log_marks, paper_table
from .records import IDENTITY, OF_DIGEST, read_records, told_apart
from .rows import LARGEST, RECIPES, TABLES, Row, table_rows

NOT_MEASURED = "not measured"
SCORES = {"top1": "top-1", "top5": "top-5"}
THIS_RUN = "this run"


@dataclass(frozen=True, order=True)
class Group:
    """Recorded runs that may share a column: one profile and configuration, data set, patch size, number of epochs."""

    profile: str
    dataset: str
    patch_size: tuple[int, int]
    epochs: int
    config: str

    @classmethod
    def of(cls, record: dict) -> Group:
        rows, columns = as_pair("patch_size", record["options"].get("patch_size", 1))
        return cls(record["profile"], record["dataset"], (rows, columns), record["train"]["epochs"],
                   str(record["config"]))

    def __str__(self) -> str:
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        rows, columns = self.patch_size
        patch = f"{rows}" if rows == columns else f"{rows}×{columns}"
        return f"{self.profile}: {self.dataset}, patch {patch}, {epochs}, {self.config} layers"


def compare(table: int | str = 1, runs: Iterable[Run] = (), results: str | Path | None = None,
            score: str = "top1") -> Table:
    """The paper's table beside the authors' logs, the runs recorded in `results`, and `runs` from this session.

    Accuracies are `score`, "top1" or "top5", in percent on the test images. "best" is the paper's protocol, the best
    epoch of the best seed, chosen on the test images; "last" is the last epoch, mean ± standard deviation over seeds.
    A run that the table has no row for, with a mixer of one's own or other positions, gets one below the others.
    Of several runs of one system the column "this run" is laid out as those of records: a line for each data set
    and setting, with a mean over its seeds. Of a run that was made again, the later one counts; models of one's own are
    told apart by name and position alone.
    """
    require_known("table", table, TABLES)
    require_known("score", score, SCORES)
    runs = checked_runs(runs)
    rows, records = table_rows(table), told_apart(read_records(results))
    # A run of one's own has a line before its first epoch, too.
    live = {(run.model, _position(run)): [] for run in runs if run.history or run.model not in names()}
    for record in run_records(runs):
        live[record["model"], record["position"]].append(record)
    recorded = {row: _recorded(row, table, records) for row in rows}
    groups = sorted(groups_of(record for found in recorded.values() for record in found),
                    key=lambda group: (group.profile != "paper", group))

    columns: dict[str, Callable[[Row], str]] = {
        _heading(group): lambda row, group=group: _cell(
            [record for record in recorded[row] if Group.of(record) == group], score, NOT_MEASURED) for group in groups}
    if not _has_protocol(table, groups):
        columns = {"recorded,\npaper protocol": lambda row: NOT_MEASURED, **columns}
    if runs:
        columns["this run\nbest | last"] = lambda row: _cell(live.get((row.model, row.position), []), score, "not run")
    header = ["model", "parameters\nas the paper counts", "parameters\ntrue", f"paper\n{SCORES[score]}",
              f"authors' log\n{SCORES[score]}", *columns]
    lines = [[*_system_cells(row, table, score), *(cell(row) for cell in columns.values())] for row in rows]
    shown_above = {(row.model, row.position) for row in rows}
    lines += [[model if model not in names() and position == "none" else f"{model}, {position}",
               *["-"] * (len(header) - 2), _cell(own, score, "not run")]
              for (model, position), own in live.items() if (model, position) not in shown_above]
    marked = any(mark in line[4] for line in lines for mark in "*†")
    found = [record for own in recorded.values() for record in own]
    return Table(_caption(table), header, lines, tuple(_notes(table, groups, found, runs, marked)))


def _has_protocol(table: int | str, groups: Iterable[Group]) -> bool:
    """Whether a column holds the paper's protocol with the layers that the table is about."""
    return any((group.profile, group.config) == ("paper", "uniform" if table == "rope" else "paper")
               for group in groups)


def _notes(table: int | str, groups: Sequence[Group], recorded: Sequence[dict], runs: Sequence[Run],
           marked: bool) -> list[str]:
    """What the columns mean, on what the runs were made, and what to beware of; marked: whether logs have marks."""
    records = [record for record in recorded if Group.of(record) in groups]
    notes = ["parameters: of the paper's layers (configuration \"paper\"), every pixel a token" if table != "rope" else
             "parameters: of the uniform configuration, every pixel a token",
             *(_models_of(group, records) for group in groups),
             f"recorded on: {'; '.join(sorted({record['device'] for record in records}))}" if records else
             "no run of this table is recorded yet",
             "best: the best epoch of the best seed, chosen on the test images, as the paper reports (more seeds leave "
             "more to choose from); last: the last epoch, mean ± sd over seeds"]
    settings = dict.fromkeys(f"{run.dataset}, {_epochs(run)} epoch(s), {run.device}" for run in runs)
    notes += [f"this run: {'; '.join(settings)}"] if runs else []
    notes += [MARKED_LOGS] if marked else []
    notes += copy_notes((*(group.dataset for group in groups), *(record["dataset"] for record in run_records(runs))))
    if left_out := groups_left_out(recorded):
        notes.append(f"not shown: {'; '.join(left_out)}: trained to compare ways of training (see "
                     "report.reasons_table)")
    if not _has_protocol(table, groups):
        notes.append(f"{NOT_MEASURED}: python -m vixlib.reproduce --table {table} --profile paper trains them on a GPU "
                     "and fills the column")
    return notes


def _models_of(group: Group, records: Iterable[dict]) -> str:
    """How large the models of a column are, and with what batch size they were trained."""
    own = [record for record in records if Group.of(record) == group]
    counts = [record["params"]["true"] for record in own]
    sizes = " or ".join(str(size) for size in sorted({record["train"]["batch_size"] for record in own}))
    return f"{group.profile}: models of {min(counts):,} to {max(counts):,} parameters, batch size {sizes}"


def copy_notes(datasets: Iterable[str]) -> list[str]:
    """What to beware of in copies of data sets, and in several of one name."""
    known = sorted(set(datasets))
    alike = [name for name in known if OF_DIGEST.search(name)]
    notes = [f"{', '.join(alike)}: other pictures under one name, told apart by their digests"] if alike else []
    return notes + [f"{name}: a JPEG copy, which has lost detail; its accuracies may lie some points from the "
                    "original's" for name in known if OF_DIGEST.sub("", name).endswith("-jpg")]


def _epochs(run: Run) -> str:
    done, wanted = len(run.history), run.config.epochs
    return f"{done}" if done == wanted else f"{done} of {wanted}"


def checked_runs(runs: Iterable[Run]) -> list[Run]:
    """`runs` as a list; a TypeError names what is no Run."""
    require_type("runs", runs, Iterable, "a list of runs that fit returned")
    runs = list(runs)
    said = shown(runs)
    for run in runs:
        require_type(f"runs={said}: run", run, Run, "a Run, as fit returns it")
    return runs


def run_records(runs: Iterable[Run]) -> list[dict]:
    """Runs of this session that have an epoch, with the fields that tables and pairs read of records."""
    return each_once(told_apart(_as_record(run) for run in checked_runs(runs) if run.history))


def _position(run: Run) -> str:
    """How the model of `run` knows places: as it was told, else as its system does; of a model of one's own: "none"."""
    return run.options.get("position") or (position_of(run.model) if run.model in names() else "none")


def _as_record(run: Run) -> dict:
    options = {name: value for name, value in run.options.items() if name != "position"}
    # How many pictures it was trained on is no setting of a run, but tells it from one on a part of them.
    train = {**run.config.to_dict(), "train_images": run.train_images}
    if len(run.history) < run.config.epochs:
        train["stopped_after"] = len(run.history)
    known = {"digest": run.digest} if run.digest else {}
    return {**known, "profile": THIS_RUN, "dataset": run.dataset, "model": run.model,
            "config": run.model_config or "uniform", "position": _position(run), "options": options,
            "seed": run.config.seed, "train": train,
            "history": run.history, "best_top1": run.best_top1, "last_top1": run.last_top1, "device": run.device}


def each_once(records: Iterable[dict]) -> list[dict]:
    """`records` without those that a later one replaces: of the same run, with the same settings and seed."""
    return list({as_text([*(record[field] for field in IDENTITY), training_settings(record)]): record
                 for record in records}.values())


def as_text(settings: object) -> str:
    """Equal settings as equal text."""
    return json.dumps(settings, sort_keys=True, default=str)


def _recorded(row: Row, table: int | str, records: list[dict]) -> list[dict]:
    """The records of one row. Table 2 has its own under the paper's protocol: those with the batch it prints."""
    found = [r for r in records if (r["model"], r["position"]) == (row.model, row.position)]
    if table != 2:
        return [r for r in found if r["profile"] != LARGEST]
    return [{**r, "profile": "paper"} if r["profile"] == LARGEST else r for r in found
            if r["profile"] not in ("paper", LARGEST) or r["train"]["batch_size"] == row.printed["batch_size"]]


def _caption(table: int | str) -> str:
    if table == "rope":
        return "Rotary positions (no table in the paper; the authors' logs are the reference)"
    return f"Table {table}: {paper_table(table)['caption']}" if table != "cxv" else paper_table(table)["caption"]


def groups_of(records: Iterable[dict]) -> list[Group]:
    """The groups of `records` that a table of systems shows. Left out: systems that were trained in a profile to
    compare two recipes, where they are all that it has; experiments.py shows these."""
    systems = _systems(records)
    return sorted(group for group in systems if not _of_recipes(group, systems))


def groups_left_out(records: Iterable[dict]) -> list[str]:
    """What `groups_of` leaves out, in words: "long of HybridViT"."""
    systems = _systems(records)
    return [f"{group.profile} of {', '.join(sorted(own))}" for group, own in sorted(systems.items())
            if _of_recipes(group, systems)]


def _systems(records: Iterable[dict]) -> dict[Group, set[str]]:
    systems: dict[Group, set[str]] = {}
    for record in records:
        systems.setdefault(Group.of(record), set()).add(record["model"])
    return systems


def _of_recipes(group: Group, systems: dict[Group, set[str]]) -> bool:
    """Whether all of a group's systems are there for RECIPES: in a profile of theirs, or in the plain one beside it."""
    profiles = {other.profile for other in systems}
    return systems[group] <= {recipe.model for recipe in RECIPES if group.profile == recipe.profile
                              or group.profile == recipe.plain and recipe.profile in profiles}


def _heading(group: Group) -> str:
    return str(group).replace(", patch", ",\npatch") + "\nbest | last"  # lines keep the table narrow


def _system_cells(row: Row, table: int | str, score: str) -> list[str]:
    name = f"{row.model}, {row.position}" if table == "rope" and row.position != "learned" else row.model
    count = count_parameters(_build(row, table))
    logged = [f"{max(run[score]):.2f}{log_marks(run)}" for run in authors_runs(row.model, row.position)]
    printed = f"{row.printed[score]:.2f}" if row.printed.get(score) is not None else "-"
    return [name, f"{count.as_paper:,}", f"{count.true:,}", printed, ", ".join(logged) or "-"]


def _build(row: Row, table: int | str) -> nn.Module:
    config = "uniform" if table == "rope" else "paper"
    return build(row.model, config, seed=0, **applicable(row.model, {"position": row.position}, config))


def _cell(records: list[dict], score: str, without: str) -> str:
    """A line "best | last" for each setting of a system's `records`, whose seeds count together; several say how they
    differ. without: what to say where there are no records."""
    found = by_settings(records)
    told, lines = [_settings(own[0]) for own in found], []
    for settings, own in zip(told, found, strict=True):
        curves = [[epoch[score] for epoch in record["history"]] for record in own]
        apart = ", ".join(f"{key}={value}" for key, value in settings.items()
                          if any(one.get(key) != told[0].get(key) for one in told))
        lines.append(f"{max(map(max, curves)):.2f} | {spread([curve[-1] for curve in curves])}"
                     + (f" ({apart})" if apart else ""))
    return "\n".join(lines) or without


def by_settings(records: Iterable[dict]) -> list[list[dict]]:
    """`records` of one system, together those that nothing but the seed tells apart."""
    found: dict[str, list[dict]] = {}
    for record in records:
        found.setdefault(as_text(_settings(record)), []).append(record)
    return list(found.values())


def _settings(record: dict) -> dict:
    return {"dataset": record["dataset"], "config": record["config"], **record["options"], **training_settings(record)}


def spread(values: list[float]) -> str:
    """"71.20" for one value, "71.20 ± 0.30 (n=3)" for several: mean ± standard deviation over seeds."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{mean(values):.2f} ± {stdev(values):.2f} (n={len(values)})"
