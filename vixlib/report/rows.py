"""Which runs a table needs, and the experiments beside the tables."""
from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import require_known
from ..models.zoo import position_of
from .paper import PRINTED, authors_runs, paper_table
from .records import LOGS, VARIANTS


@dataclass(frozen=True)
class Row:
    """A system of a table: its name, position, and what the paper printed for it, if anything; in LOGS, the log.

    options: (name, value) pairs for `build`, beyond those of the profile; none but in the tables of VARIANTS and LOGS.
    """

    model: str
    position: str
    printed: dict = field(compare=False, default_factory=dict)
    options: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Variant:
    """An experiment on why a claim holds or fails: one option of a system changed and nothing else.

    notebook: where the question is asked.   option: (name, value), for `build`.
    against: what else the system that it is compared with has of its own, as a field of records and its value.
    """

    question: str
    notebook: str
    model: str
    option: tuple[str, object]
    against: tuple[str, str] | None = None


@dataclass(frozen=True)
class Recipe:
    """An experiment on the training: a system as `profile` trains it against the same as `plain` does, two profiles
    that differ in nothing else."""

    question: str
    notebook: str
    model: str
    profile: str
    plain: str


ROPE_MODELS = ("ViT", "ViP", "ViL", "ViN", "HybridViT", "HybridViP", "HybridViL", "HybridViN")
ROPE_POSITIONS = ("none", "learned", "rope", "rope2d")
TABLES = (*PRINTED, "rope")  # RoPE: the claim about positions, which the paper prints no table for
# What is trained beside the tables, to learn the reasons for what they say.
EXPERIMENTS = (
    Variant("does ViP learn better with ReLU (the paper's text) than with features of softmax (its code)?", "02", "ViP",
            ("kernel", "relu")),
    Variant("and is ViP with ReLU behind ViT?", "02", "ViP", ("kernel", "relu"), ("model", "ViT")),
    Variant("does the convolutional embedding need normalisation to learn early?", "03", "HybridViT",
            ("normalisation", "batch")),
    Variant("does the convolutional embedding need normalisation to learn early?", "03", "HybridViP",
            ("normalisation", "batch")),
    Variant("is RoPE ahead of learned positions because those start too large?", "04", "ViT", ("position_std", 0.02)),
    Variant("is RoPE ahead of learned positions because those start too large?", "04", "ViL", ("position_std", 0.02)),
    Variant("and is RoPE ahead of a table that starts quietly?", "04", "ViT", ("position_std", 0.02),
            ("position", "rope")),
    Variant("and is RoPE ahead of a table that starts quietly?", "04", "ViL", ("position_std", 0.02),
            ("position", "rope")),
    Variant("does its dropout of 0.5 hold CPV back in a short training?", "06", "CPV", ("dropout", 0.0)),
    Variant("does its quiet start hold CPV back in a short training?", "06", "CPV", ("conv_init", "he")),
    Variant("do its convolutional maps keep CLTV from learning at once?", "06", "CLTV", ("projection", "linear")),
)
RECIPES = (
    Recipe("does today's way of training pay within ten epochs?", "03", "HybridViT", "long-modern", "long"),
    Recipe("does its learning rate of 0.001 hold CPV back in a short training?", "06", "CPV", "quick-slow", "quick"),
    Recipe("and what CPV is compared with?", "06", "ResNet18", "quick-slow", "quick"),
    Recipe("and what CPV is compared with?", "06", "HybridViP-6/8", "quick-slow", "quick"),
    Recipe("does a learning rate of 0.0003 let CLTV learn with its convolutional maps?", "06", "CLTV", "quick-slow",
           "quick"),
)
# What the runs of the authors' logs had beside the uniform configuration: a key head for each query head, as their
# parameter counts say, and 63 zeros before the 1,025 tokens, as their code has it.
LOG_OPTIONS = {("ViL", "rope"): (("shared_head", False),), ("HybridViL", "learned"): (("shared_head", False),),
               ("HybridViL", "rope"): (("shared_head", False),), ("ViN", "rope"): (("padding", "front"),),
               ("HybridViN", "rope"): (("padding", "front"),)}
# Trained beside the logs, as their ViT was: ViT with a table of positions that starts quietly, without which nobody can
# say how much of what RoPE gains there is what the loud start had cost; and ViN with the table, which has no log.
BESIDE_LOGS = (("ViT", (("position_std", 0.02),)), ("ViN", ()))
# The profile in records of Table 2's runs: the paper's protocol with the largest batch that it found to fit 16 GB.
LARGEST = "paper-largest"
# Systems of the sources that a table is compared with and that it does not print.
BESIDE = {1: ("FNet", "MLPMixer"), 3: ("HybridFNet", "HybridMLPMixer"), "cxv": ("CNV", "CLTV", "CvT", "CvP", "CvN")}


def is_tried(record: dict) -> bool:
    """Whether the run is an experiment, which differs from a system of a table or a log in an option: no seed of it,
    and no side of a claim."""
    return record["table"] == VARIANTS or (record["table"] == LOGS and any(
        record["model"] == model and options and dict(options).items() <= record["options"].items()
        for model, options in BESIDE_LOGS))


def table_rows(table: int | str) -> list[Row]:
    """The runs that a table of TABLES needs; VARIANTS: the experiments beside the tables, LOGS: the authors' logs on
    CIFAR-10 that begin with the first epoch, and BESIDE_LOGS."""
    require_known("table", table, (*TABLES, VARIANTS, LOGS))
    if table == LOGS:
        logs = [Row(model, position, log, LOG_OPTIONS.get((model, position), ()))
                for model in ROPE_MODELS for position in ROPE_POSITIONS
                for log in authors_runs(model, position) if not log["resumed"]]
        batch_size, = (row.printed["batch_size"] for row in logs if (row.model, row.position) == ("ViT", "learned"))
        return [*logs, *(Row(model, "learned", {"batch_size": batch_size}, options) for model, options in BESIDE_LOGS)]
    if table == VARIANTS:
        return list(dict.fromkeys(Row(experiment.model, position_of(experiment.model), options=(experiment.option,))
                                  for experiment in EXPERIMENTS))
    if table == "rope":
        return [Row(model, position) for model in ROPE_MODELS for position in ROPE_POSITIONS]
    printed = {row["model"]: row for row in paper_table(table)["rows"]}
    return [Row(model, position_of(model), printed.get(model, {})) for model in (*printed, *BESIDE.get(table, ()))]
