"""What a borrowed GPU should run next: the order of everything that the project wants recorded on one."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..measure.durations import readable
from ..measure.memory import CARD_GB
from ..models.zoo import names
from ..profiles import PROFILES
from ..report import benchmarks, memory
from ..report.paper import paper_table
from ..report.records import LOGS, VARIANTS, read_records
from ..report.rows import Row, table_rows
from . import parcels
from .estimate import Estimator
from .gpu_jobs import BatchJob, ColumnsJob
from .jobs import Job, most_missing_first, plan

SEEDS = (0, 1, 2)
AT_ONCE = 4  # models this small leave most of a large GPU idle; how many pay is to be measured there
MEMORY_SECONDS = 15  # of a model, a guess: training steps in three ways, mostly the start of each


FIRST = ("No run is recorded on a GPU yet: times are unknown, and every part is taken to fill one block. Before them,",
         "where pytest is at hand, what a GPU computes is held to what the CPU does, first without the compiler, then,",
         "which takes minutes of compiling (with pytest-xdist, -n 6), through it:",
         "  python -m pytest -q --maxfail 20 tests/test_first_contact.py -k 'not compiled and not graphs'",
         "  python -m pytest -q --maxfail 20 tests/test_first_contact.py -k 'compiled or graphs'",
         "Then minutes of rehearsal show what fails, with small models on drawn pictures; the first table is begun,",
         "packed and gone on with; one system is trained at full size, as it is and then through CUDA graphs, and its",
         "memory and largest batch are measured:",
         "  TRIAL='--results TRIAL/results --checkpoints TRIAL/checkpoints'",
         "  python -m vixlib.reproduce --table 1 --profile smoke --data shapes $TRIAL --minutes 0.2 --export TRIAL/out",
         "  for table in 1 3 4 cxv; do python -m vixlib.reproduce --table $table --profile smoke --data shapes "
         f"--jobs {AT_ONCE} \\",
         f"      --memory-gb {CARD_GB} $TRIAL; done",
         "  python -m vixlib.reproduce --table rope --profile smoke --data shapes --models ViT --jobs "
         f"{AT_ONCE} --memory-gb {CARD_GB} $TRIAL",
         "  for mode in no graphs; do python -m vixlib.reproduce --table 1 --profile modern --data shapes \\",
         f"      --models ViN --minutes 0.2 --memory-gb {CARD_GB} --compile $mode $TRIAL; done",
         "  python -m vixlib.reproduce --table 2 --profile paper --data shapes --batches --models ViN "
         f"--memory-gb {CARD_GB} $TRIAL",
         "  python -m vixlib.reproduce.memory --names ViN --to TRIAL/memory")
ALONE = "images/s and seconds to the paper's accuracy count for runs alone on the GPU; in the end, one more seed, 3:"
SPEED = ("Speed and memory against the authors' forms: eager, compiled, with CUDA graphs. Each line takes minutes,",
         "most of them for compiling. What is in OUT then belongs into data/benchmarks; if compiled steps are faster,",
         "--compile yes or graphs shortens blocks:",
         "  python -m benchmarks.peers --device cuda --compile reduce-overhead --results OUT",
         "  python -m benchmarks.peers --device cuda --compile default --results OUT",
         "  python -m benchmarks.roofline --device cuda --compile reduce-overhead --results OUT",
         "  python -m benchmarks.scaling --device cuda --results OUT", "")

AnyJob = Job | BatchJob | ColumnsJob


@dataclass(frozen=True)
class Part:
    """Jobs that belong together, in their table's order."""

    title: str
    jobs: Sequence[AnyJob]

    def todo(self, results: Path, checkpoints: Path) -> list[AnyJob]:
        """The missing ones, in the order in which to run them."""
        if all(isinstance(job, Job) for job in self.jobs):
            todo = most_missing_first(self.jobs, results, checkpoints)
            # What cannot be taken home half done begins first, so that it is whole when the block ends.
            return sorted(todo, key=lambda job: travels(job.row.model, job.config))
        return [job for job in self.jobs if not job.recorded(results)]


def travels(model: str, config: str) -> bool:
    """Whether the checkpoint of an unfinished run fits into an export: its weights and AdamW's moments, float32."""
    return 12 * memory.stored()[0][model, config]["parameters"] < parcels.PARCELS * parcels.PARCEL_BYTES


def agenda(dataset: str, results: Path) -> list[Part]:
    """Everything, the most wanted first: every table's first seed and memory before any second seed."""
    paper = PROFILES["paper"]

    def runs(table: int | str, seed: int, title: str) -> Part:
        return Part(f"{title}, seed {seed}", plan(table, paper, dataset, [seed]))

    titles = {1: "Table 1", 3: "Table 3", 4: "Table 4", "rope": "positions"}
    best = [Job(table, best_row(table, results, dataset), PROFILES["modern"], dataset, SEEDS[0])
            for table in (1, 3, 4, "cxv")]
    parts = [*(runs(table, SEEDS[0], title) for table, title in titles.items()),
             Part(f"Table 2: largest batch in {CARD_GB} GB",
                  [BatchJob(row, paper.config, CARD_GB) for row in table_rows(2)]),
             Part("of all systems", [ColumnsJob(tuple(names()))]),
             Part("recipe modern for the best row of each table", best),
             runs(2, SEEDS[0], "Table 2"),
             runs("cxv", SEEDS[0], "Convolutional X-formers"),
             runs(VARIANTS, SEEDS[0], "Experiments on the reasons"),
             Part("First epochs of the authors' logs", plan(LOGS, PROFILES["first-epoch"], dataset)),
             *(runs(table, seed, title) for seed in SEEDS[1:]
               for table, title in {**titles, "cxv": "Convolutional X-formers"}.items())]
    # A run that two tables need (ViT's in Tables 1 and 2) stands where it is first wanted.
    first = {job.name: part for part in reversed(parts) for job in part.jobs}
    return [Part(part.title, [job for job in part.jobs if first[job.name] is part]) for part in parts]


def best_row(table: int | str, results: Path, dataset: str) -> Row:
    """The table's most accurate row: by its records at the last epoch, or by the paper as long as there are none."""
    rows = {row.model: row for row in table_rows(table)}
    records = read_records(results, profile="paper", config="paper", dataset=dataset, seed=SEEDS[0])
    recorded = {r["model"]: r["last_top1"] for r in records
                if r["model"] in rows and r["position"] == rows[r["model"]].position}
    accuracy = recorded or {row["model"]: row["top1"] for row in paper_table(table)["rows"]}
    return rows[max(accuracy, key=accuracy.get)]


def coming(dataset: str, results: Path, checkpoints: Path) -> list[AnyJob]:
    """All that is missing, in the order in which to run it."""
    return [job for part in agenda(dataset, results) for job in part.todo(results, checkpoints)]


def describe_agenda(dataset: str, results: Path, checkpoints: Path, minutes: float = 9) -> str:
    """For people: the command, and what it will do block by block of `minutes`."""
    estimator = _estimator(results)
    blocks = _blocks(dataset, results, checkpoints, minutes, estimator)
    if not blocks:
        return "Nothing is missing: every run, largest batch and memory column is recorded."
    lines = ["On the GPU's machine, with data/results, data/checkpoints and the data set taken along (as an archive:",
             "the folder and its cache are many times as large), and without .git VIX_COMMIT set to its commit; one",
             f"block is one call, which ends by itself within {minutes:g} minutes:",
             f"  python -m vixlib.reproduce --next --data {dataset} --minutes {minutes:g} --jobs {AT_ONCE} "
             f"--memory-gb {CARD_GB} --export OUT",
             "At home, with what it left in OUT; then ask again, for the plan follows what is there:",
             "  python -m vixlib.reproduce --import OUT", "",
             *(FIRST if estimator is None else (f"times by the records of {estimator.device}",))]
    for number, block in enumerate(blocks, start=1):
        known = [seconds for *_, seconds in block if seconds is not None]
        lines += ["", f"block {number}" + (f", about {readable(sum(known))}" if len(known) == len(block) else "")]
        for title in dict.fromkeys(title for title, *_ in block):
            items = ", ".join(left for own, left, _ in block if own == title)
            lines.append(textwrap.fill(f"{title}: {items}", 116, initial_indent="  ", subsequent_indent="    "))
    speed = any(record["kind"] == "cuda" for record in benchmarks.read(results.parent / benchmarks.BENCHMARKS.name))
    alone = (f"  python -m vixlib.reproduce --table 1 --profile paper --data {dataset} --seeds {len(SEEDS)} --jobs 1 "
             f"--minutes {minutes:g} --export OUT")
    return "\n".join([*lines, "", *(() if speed else SPEED), ALONE, alone])


def _blocks(dataset: str, results: Path, checkpoints: Path, minutes: float,
            estimator: Estimator | None) -> list[list[tuple[str, str, float | None]]]:
    """The missing jobs cut into blocks: (part, what is left of the job, seconds if known). A part of unknown times is
    a block; a run longer than a block goes on in further ones."""
    blocks, room = [], 0.0
    for part in agenda(dataset, results):
        items = [(part.title, *_left(job, results, checkpoints, estimator)) for job in part.todo(results, checkpoints)]
        if any(seconds is None for *_, seconds in items):
            blocks.append(items)
            room = 0.0
            continue
        for item in items:
            if item[-1] > room:
                blocks.append([])
                room = 60 * minutes
            blocks[-1].append(item)
            room -= item[-1]
    return blocks


def _left(job: AnyJob, results: Path, checkpoints: Path, estimator: Estimator | None) -> tuple[str, float | None]:
    """What is left of a job, in words and in seconds, None if nothing tells how long it takes."""
    if isinstance(job, ColumnsJob):
        models = job.missing(results)
        return f"{job.name} ({', '.join(models)})", MEMORY_SECONDS * len(models)
    if isinstance(job, BatchJob):
        return job.row.model, MEMORY_SECONDS
    run = job.progress(checkpoints)
    name = job.row.model + (f"/{job.row.position}" if job.config == "uniform" else "")
    name += "".join(f" with {option}={value}" for option, value in job.row.options)
    return (name + (f" (from epoch {len(run.history) + 1})" if run else ""),
            None if estimator is None else estimator.of(job, run).seconds)


def _estimator(results: Path) -> Estimator | None:
    """Estimates by the GPU that was recorded last; None without any."""
    records = [record for record in read_records(results) if not record["device"].startswith("CPU")]
    return Estimator(max(records, key=lambda r: r["finished"] or "")["device"], records) if records else None
