"""What recorded runs say, in words: differences between two systems, computed so that sentences cannot drift.

A system is written "ViT/rope": a name of the zoo and a position. Two runs are a pair only if nothing but the
system tells them apart: same profile, data set, configuration, sizes, training settings and seed.
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from ..errors import require_kinds, require_known, require_type, shown
from ..models.zoo import SYSTEMS, applicable, position_of
from ..positions import POSITIONS
from ..table import Table
from ..train.run import Run, training_settings
from .comparison import (
    NOT_MEASURED,
    THIS_RUN,
    Group,
    as_text,
    by_settings,
    each_once,
    groups_left_out,
    groups_of,
    run_records,
)
from .paper import MARKED_LOGS, authors_runs, log_marks
from .records import IDENTITY, KINDS, TRAIN_KINDS, all_records, read_records, told_apart
from .rows import ROPE_MODELS, ROPE_POSITIONS, is_tried

# Student's t, two-sided 95 %, for 1 to 9 degrees of freedom; more seeds use the last, which is a little too wide.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
FEWEST = 3  # seeds that decide; with two, differences that happen to be alike make any interval narrow
ROPE_CLAIMS = (("rope", "learned"), ("rope2d", "rope"), ("learned", "none"), ("rope", "none"))
# What pairing reads of a record.
READ = {field: KINDS[field] for field in (*IDENTITY, "train", "last_top1")}
Results = str | os.PathLike | Iterable[dict] | None


@dataclass(frozen=True)
class Difference:
    """Top-1 of system `a` minus top-1 of system `b` on the test images, in points, at the last epoch.

    pairs: (a, b) in percent, one for each seed, all of one setting; group: that setting, None without pairs.
    """

    a: str
    b: str
    group: Group | None = None
    pairs: tuple[tuple[float, float], ...] = ()

    @property
    def n(self) -> int:
        return len(self.pairs)

    @property
    def mean(self) -> float | None:
        return fmean(a - b for a, b in self.pairs) if self.pairs else None

    @property
    def half_width(self) -> float | None:
        """Of the 95 % interval of the mean over seeds (paired, Student's t); None with fewer than two seeds."""
        if self.n < 2:
            return None
        return T_95[min(self.n - 1, len(T_95)) - 1] * stdev(a - b for a, b in self.pairs) / self.n**0.5

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean over seeds; None with fewer than two."""
        return None if self.half_width is None else (self.mean - self.half_width, self.mean + self.half_width)

    @property
    def verdict(self) -> str:
        """Of "a is more accurate than b": "holds", "does not hold" (b is), "undecided" or "not measured".

        It takes an interval without zero to decide, over FEWEST seeds: fewer give a direction and never a verdict.
        """
        if not self.pairs:
            return NOT_MEASURED
        if self.n < FEWEST or self.interval[0] <= 0 <= self.interval[1]:
            return "undecided"
        return "holds" if self.mean > 0 else "does not hold"

    def __str__(self) -> str:
        first, second = _names(self.a, self.b)
        if not self.pairs:
            return f"{first} against {second}: {NOT_MEASURED}"
        a, b = (fmean(side) for side in zip(*self.pairs, strict=True))
        sentence = f"{first} {a:.1f} against {second} {b:.1f}: {self.mean:+.1f} points"
        if self.interval is None:
            return f"{sentence} (one seed: a direction, no interval)"
        low, high = self.interval
        decided = {"holds": "the first is ahead", "does not hold": "the second is ahead"}
        return (f"{sentence}, {low:+.1f} to {high:+.1f} over {self.n} seeds: "
                f"{decided.get(self.verdict, self.verdict)}")


def _names(a: str, b: str) -> tuple[str, str]:
    """What to call two systems: ("ViT: rope", "learned") within one model, ("ViN", "ViT") across models."""
    (model_a, position_a), (model_b, position_b) = _split(a), _split(b)
    if model_a == model_b:
        return f"{model_a}: {position_a}", position_b
    return (model_a, model_b) if position_a == position_b else (a, b)


def _split(system: str) -> tuple[str, str]:
    require_type("system", system, str, 'a name, such as "ViT" or "ViT/rope"')
    # A system's own name may have a slash in it: HybridViP-6/8.
    model, position = (system, "") if system in SYSTEMS or "/" not in system else system.rsplit("/", 1)
    require_known("system", model, SYSTEMS)
    position = position or position_of(model)
    require_known("position", position, POSITIONS)
    return model, position


def as_records(results: Results) -> list[dict]:
    """The records that `results` stands for: those of a folder (None: data/results), or the ones already read, of which
    a copy counts for nothing: as a further seed it would decide what one cannot. A folder's first epochs of the
    authors' logs are among them: their profile makes them no seeds of a table's runs, and they pair with each other."""
    if results is None or isinstance(results, (str, os.PathLike)):
        return told_apart(record for record in all_records(results) if not is_tried(record))
    require_type("results", results, Iterable, "a folder of records, or a list of them")
    records = list(results)
    for record in records:
        require_type("results: a record", record, dict, "a record, as vixlib.read_records gives it")
        require_kinds(record, READ, "results")
        require_kinds(record["train"], TRAIN_KINDS, "train in results")
    return each_once(told_apart(records))


def compared(a: str, b: str, records: Sequence[dict]) -> list[Difference]:
    """How far "ViT/rope" is ahead of "ViT/learned": one Difference for each setting in which both are recorded.

    records: of `as_records`, none of them twice. Without a pair the list holds one Difference of no pairs. A plain
    name means the system's own positions: compared("ViN", "ViT", records).
    """
    systems = _split(a), _split(b)
    of_a, of_b = ([r for r in records if (r["model"], r["position"]) == system] for system in systems)
    found: dict[str, list[tuple[dict, dict]]] = {}
    for one in of_a:
        for other in of_b:
            setting = _setting(one, *systems[1])
            if one["seed"] == other["seed"] and setting == _setting(other, *systems[0]):
                # Options that only one of the two takes, such as landmarks, still have to agree between seeds.
                own = as_text([one["options"], other["options"]])
                found.setdefault(setting + own, []).append((one, other))
    made = [Difference(a, b, Group.of(pairs[0][0]), tuple((x["last_top1"], y["last_top1"]) for x, y in pairs))
            for pairs in found.values()]
    return sorted(made, key=lambda difference: difference.group) or [Difference(a, b)]


def _setting(record: dict, model: str, position: str) -> str:
    """All that must be equal for a pair with a run of `model`; options which that system lacks cannot differ."""
    options = applicable(model, {**record["options"], "position": position}, record["config"])
    options.pop("position", None)
    return as_text([record["profile"], record["dataset"], record["config"], options, training_settings(record)])


def claims(pairs: Iterable[tuple[str, str]], results: Results = None) -> list[str]:
    """Each pair (a, b) of systems in a sentence, grouped by setting; before each group which way its pairs went, and
    at the end which pairs are not measured."""
    require_type("pairs", pairs, Iterable, "a list of pairs of systems")
    pairs = list(pairs)
    for pair in pairs:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ValueError(f'pairs={shown(pairs)}: {shown(pair)} must be a pair of systems, such as ("ViN", "ViT")')
    return _sentences(pairs, as_records(results))


def _sentences(pairs: Iterable[tuple[str, str]], records: Sequence[dict]) -> list[str]:
    made = [difference for a, b in pairs for difference in compared(a, b, records)]
    sentences = []
    for group in sorted({difference.group for difference in made if difference.pairs}):
        here = [difference for difference in made if difference.group == group]
        ahead = sum(difference.mean > 0 for difference in here)
        certain = {verdict: sum(d.verdict == verdict for d in here) for verdict in ("holds", "does not hold")}
        sentences.append(f"{group}: the first is ahead in {ahead} of {len(here)} comparison(s); intervals decide "
                         f"{certain['holds']} for it and {certain['does not hold']} against it")
        sentences += [f"  {difference}" for difference in here]
    missing: dict[str, list[str]] = {}
    for difference in made:
        if not difference.pairs:
            (model_a, position_a), (model_b, position_b) = _split(difference.a), _split(difference.b)
            if model_a == model_b:
                missing.setdefault(f"{position_a} against {position_b} for ", []).append(model_a)
            else:
                missing[f"{difference.a} against {difference.b}"] = []
    return sentences + [f"{NOT_MEASURED}: {what}{', '.join(names)}" for what, names in missing.items()]


def rope_claims(results: Results = None) -> list[str]:
    """What the records say about positions: 1-D rotary against learned, 2-D against 1-D, either against none."""
    sentences, records = [], as_records(results)
    for a, b in ROPE_CLAIMS:
        said = _sentences([(f"{model}/{a}", f"{model}/{b}") for model in ROPE_MODELS], records)
        sentences += [f"Is {a} more accurate than {b}?", *(f"  {sentence}" for sentence in said)]
    return sentences


def rope_table(runs: Iterable[Run] = (), results: str | Path | None = None) -> Table:
    """Models × positions, top-1 in percent and in brackets the difference to learned positions, in points.

    Blocks of rows: the authors' logs, each setting recorded in `results` (uniform configuration), and those of
    `runs` whose model is one of ROPE_MODELS.
    Recorded numbers are the last epoch's, means over seeds; the brackets hold paired differences alone, with a
    95 % interval where there are two seeds or more.
    """
    records = [r for r in told_apart(read_records(results, config="uniform")) if r["model"] in ROPE_MODELS]
    live = [record for record in run_records(runs) if record["model"] in ROPE_MODELS]
    rows = [["authors' logs: cifar10, patch 1", *[""] * len(ROPE_POSITIONS)],
            *([model, *(_logged(model, position) for position in ROPE_POSITIONS)] for model in ROPE_MODELS)]
    for label, part in [("recorded", records), (THIS_RUN, live)]:
        groups = groups_of(part)
        if not groups and label == "recorded":
            rows += [["recorded: none yet", *[NOT_MEASURED] * len(ROPE_POSITIONS)]]
        for group in groups:
            here = [record for record in part if Group.of(record) == group]
            models = ROPE_MODELS if label == "recorded" else dict.fromkeys(record["model"] for record in here)
            rows += [[f"{group}", *[""] * len(ROPE_POSITIONS)]]
            rows += [[model, *(_cell(here, model, position) for position in ROPE_POSITIONS)] for model in models]
    shown = {*groups_of(records), *groups_of(live)}
    devices = sorted({record["device"] for record in (*records, *live) if Group.of(record) in shown})
    left_out = groups_left_out(records)
    notes = ["(…): difference to learned positions in points, over the seeds that both have (so not always that of the "
             "two means), ± half a 95 % interval where n > 1",
             "recorded and this run: last epoch; authors' logs: the best epoch of one log, chosen on the test images",
             MARKED_LOGS,
             *([f"recorded and run on: {'; '.join(devices)}"] if devices else []),
             *([f"not shown, as trained to compare ways of training: {'; '.join(left_out)}"] if left_out else [])]
    return Table("Positions, uniform configuration: test top-1 (%)", ["model", *ROPE_POSITIONS], rows, tuple(notes))


def _logged(model: str, position: str) -> str:
    if not (logs := authors_runs(model, position)):
        return "-"
    marks = log_marks(logs[0])
    learned = authors_runs(model, "learned")
    # A log that began elsewhere or hardly began has no difference worth printing.
    fair = position != "learned" and learned and not marks and not log_marks(learned[0])
    return f"{logs[0]['best_top1']:.2f}{marks}" + \
        (f" ({logs[0]['best_top1'] - learned[0]['best_top1']:+.2f})" if fair else "")


def _cell(records: list[dict], model: str, position: str) -> str:
    of_system = [r for r in records if (r["model"], r["position"]) == (model, position)]
    if not of_system:
        return NOT_MEASURED
    # Runs of one group may still differ in a setting, and are no seeds of each other then.
    scores = ([record["last_top1"] for record in seeds] for seeds in by_settings(of_system))
    accuracy = "; ".join(f"{fmean(s):.2f}{f', n={len(s)}' if len(s) > 1 else ''}" for s in scores)
    if position == "learned":
        return accuracy
    gains = [_gain(found) for found in compared(f"{model}/{position}", f"{model}/learned", records)]
    return f"{accuracy} ({'; '.join(gains)})"


def _gain(found: Difference) -> str:
    if not found.pairs:
        return "no pair"
    return f"{found.mean:+.2f}" + (f" ± {found.half_width:.2f}, n={found.n}" if found.n > 1 else "")
