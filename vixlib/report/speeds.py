"""How fast recorded runs trained: images a second, and the seconds until the paper's accuracy was reached."""
from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ..provenance import THEN
from .comparison import NOT_MEASURED

SPEED_HEADER = ["images/s", "seconds to the\npaper's accuracy"]
SPEED_NOTE = ("images/s and seconds: medians over the recorded runs of the paper's protocol that had a GPU to "
              "themselves, one GPU and way of compiling after the other; seconds: training epochs until the test "
              "accuracy first was what the paper prints")


def alone_on_a_gpu(record: dict) -> bool:
    """Whether the run's times say something about its device: a CPU, or several runs at once, shares with others."""
    device = record["device"]
    return not device.startswith("CPU") and THEN not in device and record.get("concurrent_runs", 1) == 1


def seconds_to(record: dict, top1: float) -> float | None:
    """Seconds of training until an epoch's test accuracy (%) was at least `top1`; None if none was."""
    seconds = 0.0
    for epoch in record["history"]:
        seconds += epoch["seconds"]
        if epoch["top1"] >= top1:
            return seconds
    return None


def speed_cells(records: Sequence[dict], top1: float | None) -> list[str]:
    """SPEED_HEADER's cells for the records of one system, a line in each for every machine. top1: what the paper prints
    for it (%), or None."""
    machines: dict[str, list[dict]] = {}
    for record in records:
        if record["profile"] == "paper" and alone_on_a_gpu(record) and record["images_per_second"]:
            machines.setdefault(_machine(record), []).append(record)
    if not machines:
        return [NOT_MEASURED, NOT_MEASURED if top1 is not None else "-"]
    speeds = [f"{median(record['images_per_second'] for record in found):,.0f} ({machine})"
              for machine, found in sorted(machines.items())]
    return ["\n".join(speeds),
            "-" if top1 is None else "\n".join(_taken(found, top1) for _, found in sorted(machines.items()))]


def _machine(record: dict) -> str:
    """What the times of a run depend on besides its system."""
    compiled = record["train"].get("compile", False)
    return record["device"] + (f", compile={compiled}" if compiled else "")


def _taken(records: Sequence[dict], top1: float) -> str:
    """The seconds that runs on one machine took to `top1`."""
    reached = [seconds for record in records if (seconds := seconds_to(record, top1)) is not None]
    if not reached:
        return f"not reached (n={len(records)})"
    return f"{median(reached):,.0f} ({len(reached)} of {len(records)} runs)"
