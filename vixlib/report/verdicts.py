"""The paper's claims, each with a verdict that is computed from the recorded runs."""
from __future__ import annotations

from dataclasses import dataclass

from ..errors import require_known
from ..models.zoo import names
from ..table import Table
from . import benchmarks
from .comparison import NOT_MEASURED
from .differences import FEWEST, Difference, Results, as_records, compared
from .memory import stored
from .paper import authors_runs, log_marks, paper_table
from .rows import ROPE_MODELS

HALF = 0.6  # up to here a part is called half


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper about pairs of systems (a, b): a is more accurate than b.

    within: instead, a is behind by no more than so many points.   notebook: where it is discussed.
    """

    text: str
    notebook: str
    pairs: tuple[tuple[str, str], ...]
    within: float | None = None

    def verdict(self, difference: Difference) -> str:
        """"holds", "does not hold", "undecided" or "not measured"; see Difference.verdict."""
        if self.within is None or difference.n < FEWEST:
            return difference.verdict
        low, high = difference.interval
        if low >= -self.within:
            return "holds"
        return "does not hold" if high < -self.within else "undecided"


CLAIMS = (
    Claim("Nyström and Performer beat softmax on pixels", "02", (("ViN", "ViT"), ("ViP", "ViT"))),
    Claim("a convolutional embedding raises accuracy", "03",
          tuple((f"Hybrid{name}", name) for name in ("ViT", "ViP", "ViL", "ViN"))),
    Claim("RoPE raises accuracy at the same size", "04", tuple((f"{m}/rope", f"{m}/learned") for m in ROPE_MODELS)),
    Claim("(not claimed: RoPE beats no positions at all)", "04",
          tuple((f"{m}/rope", f"{m}/none") for m in ROPE_MODELS)),
    Claim("in LeViT, Nyström and Performer beat softmax", "05", (("LeViN", "LeViT"), ("LeViP", "LeViT"))),
    Claim("in CCT, Nyström and Performer lose at most 2 points", "05", (("CCN", "CCT"), ("CCP", "CCT")), within=2.0),
    Claim("a convolution in every layer beats one in front", "06", (("CPV", "HybridViP-6/8"),)),
    Claim("a small CXV beats ResNet-18", "06", (("CPV", "ResNet18"),)),
    Claim("CXV outperforms token mixers and transformers", "06",
          tuple(("CPV", other) for other in ("FNet", "MLPMixer", "ViT", "CCT", "CvT"))),
)


def printed_difference(a: str, b: str) -> str:
    """What one source prints for a less b, in points: the paper's tables, what is quoted of CXV, the authors' logs."""
    for tables in ((1, 3, 4), ("cxv",)):
        top1 = {row["model"]: row["top1"] for table in tables for row in paper_table(table)["rows"]}
        if a in top1 and b in top1:
            return f"{top1[a] - top1[b]:+.2f}"
    logs = [[] if system in names() else authors_runs(*system.split("/")) for system in (a, b)]
    if not all(logs) or any(log_marks(log[0]) for log in logs):
        return "-"
    return f"{logs[0][0]['best_top1'] - logs[1][0]['best_top1']:+.2f} (logs)"


def verdict_table(notebook: str | None = None, results: Results = None) -> Table:
    """Every claim (of one `notebook`, "02" to "06"), pair by pair: printed difference, recorded ones, the verdict."""
    require_known("notebook", notebook, (None, *sorted({claim.notebook for claim in CLAIMS})))
    rows, marks, intervals, records = [], {}, 0, as_records(results)  # read once, not for every pair
    for claim in CLAIMS:
        if notebook not in (None, claim.notebook):
            continue
        for i, (a, b) in enumerate(claim.pairs):
            for j, found in enumerate(compared(a, b, records)):
                intervals += found.n >= FEWEST
                rows.append([claim.text if i == j == 0 else "", claim.notebook, f"{a} against {b}",
                             printed_difference(a, b), in_points(found), _verdict(claim, found),
                             mark(marks, found.group)])
    if notebook in (None, "02"):
        rows += [[*cells, mark(marks, source)] for *cells, source in _memory_rows()]
    return Table("The paper's claims and what the records say",
                 ["claim", "notebook", "pair", "printed\n(points)", "recorded\n(points)", "verdict", "setting"],
                 rows,
                 (*(f"{sign} {setting}" for setting, sign in marks.items()),
                  "printed: best epoch of the best run, (logs): of one log of the authors' each",
                  "recorded: last epoch, ± half the width of the paired 95 % interval over seeds",
                  f"undecided: fewer than {FEWEST} seeds, or an interval that leaves both open",
                  f"of 20 pairs without any difference one would be decided by chance ({intervals} pairs here have "
                  "seeds enough to be decided): a narrow verdict is a weak one",
                  '"at quick", "at long", "at first-epoch": decided for one or ten epochs, the first two on 4×4 '
                  "patches, which neither confirms nor refutes a claim about 40 epochs on pixels"),
                 left=(0, 1, 2, 5, 6))


def _verdict(claim: Claim, found: Difference) -> str:
    """The claim's verdict; what other profiles than the paper's decide is said to be theirs."""
    verdict = claim.verdict(found)
    decided = verdict in ("holds", "does not hold")
    return f"{verdict} at {found.group.profile}" if decided and found.group.profile != "paper" else verdict


def mark(marks: dict[str, str], setting: object) -> str:
    """"[1]" for the first setting that `marks` is asked for, and so on; "-" for None. It grows with each new one."""
    return "-" if setting is None else marks.setdefault(str(setting), f"[{len(marks) + 1}]")


def in_points(found: Difference) -> str:
    """"+2.95 (one seed)", "+2.95 ± 0.80 (n=3)", "-" without a pair: the mean and half its 95 % interval."""
    if not found.pairs:
        return "-"
    return f"{found.mean:+.2f} " + (f"± {found.half_width:.2f} (n={found.n})" if found.n > 1 else "(one seed)")


def _memory_rows() -> list[list[str]]:
    """"Half the memory": ViN's peak over ViT's, by the authors' formulas on each device where these were measured, and
    by ours at batch 64, as the paper ran softmax and as one would today. The last cell says what told."""
    printed = {row["model"]: row["gpu_gb"] for row in paper_table(1)["rows"]}
    rows, source = stored()
    ratios = [("authors' formulas", peaks["ViN"] / peaks["ViT"], where)
              for peaks, where in benchmarks.published_peaks() if {"ViN", "ViT"} <= peaks.keys()]
    ours = {name: rows[name, "paper"]["peak_bytes"] for name in ("ViN", "ViT")}
    ratios += [(f"ours, {way}", None if None in (ours["ViN"][way], peak) else ours["ViN"][way] / peak, source)
               for way, peak in ours["ViT"].items() if not way.startswith("mixed, matrix")]
    lines = []
    for what, ratio, where in ratios:
        verdict = "undecided" if ratio is None else "holds" if ratio <= HALF else "does not hold"
        lines.append(["" if lines else f"half the memory (at most {HALF} of it)", "02", f"ViN over ViT, {what}",
                      f"{printed['ViN'] / printed['ViT']:.2f} times",
                      "out of memory" if ratio is None else f"{ratio:.2f} times",
                      verdict if where.startswith("measured") else f"{NOT_MEASURED}; predicted: {verdict}", where])
    return lines
