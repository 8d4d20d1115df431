"""Recorded runs on disk: one JSON file a run. A table is a query over these files."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from ..embeddings import as_pair
from ..errors import (
    as_path,
    require_count,
    require_kinds,
    require_known,
    require_mapping,
    require_number,
    require_seed,
    shown,
)
from ..files import DATA, listed, write_atomic
from ..models.zoo import CONFIGS
from ..train.rules import NUMBER, OR_NONE, is_percentage, require_calls, require_epochs, require_settings

RESULTS = DATA / "results"
OF_DIGEST = re.compile(r" \([0-9a-f]{8}\)$")  # what told_apart adds to a name

# In a record's "table", for runs beside the tables: an experiment with an option changed (see rows.EXPERIMENTS), and
# a run of the authors' logs begun once more (see report/logs.py).
VARIANTS, LOGS = "variants", "logs"
IDENTITY = ("dataset", "profile", "model", "config", "position", "options", "seed")
FIELDS = (*IDENTITY, "table", "train", "params", "history", "best_top1", "last_top1", "peak_memory_bytes",
          "images_per_second", "device", "memory_limit_gb", "torch", "vixlib", "commit", "started",
          "finished")

PLAIN = (*OR_NONE, str)  # values of options, or lists of these
# Of the fields that tables and verdicts compute with.
KINDS = {"dataset": str, "profile": str, "model": str, "config": str, "position": str, "options": dict, "seed": int,
         "table": (int, str, type(None)), "train": dict, "params": dict, "history": list, "best_top1": NUMBER,
         "last_top1": NUMBER, "peak_memory_bytes": OR_NONE, "images_per_second": OR_NONE, "memory_limit_gb": OR_NONE,
         "device": str, "finished": (str, type(None))}
TRAIN_KINDS = {"epochs": int, "batch_size": int}
PICTURE_KINDS = {"image_size": list, "channels": int, "num_classes": int}
PARAMS_KINDS = {"true": int, "as_paper": int}


def record_name(record: dict) -> str:
    """The file name of a record, from the fields in IDENTITY alone: the same run always has the same name.

    The readable part is shortened and cleaned; the digest at its end tells apart whatever that merged.
    """
    _require(record, IDENTITY, "record_name")
    require_mapping("options", record["options"])
    options = "-".join(f"{key}={value}" for key, value in sorted(record["options"].items()))
    parts = [record["dataset"], record["profile"], record["model"], record["config"],
             record["position"], options, f"seed{record['seed']}"]
    cleaned = (re.sub(r"[^A-Za-z0-9=.-]+", "-", str(part)).strip("-.")[:60] for part in parts)
    identity = json.dumps([record[field] for field in IDENTITY], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return "_".join([*filter(None, cleaned), digest]) + ".json"


def write_record(record: dict, folder: str | Path | None = None) -> Path:
    """Write one run to `folder` (default: the repository's data/results) and return its path.

    A record with the same identity is replaced. ValueError or TypeError names missing fields, non-finite numbers and
    whatever `read_records` would refuse.
    """
    folder = RESULTS if folder is None else as_path("folder", folder)
    _require(record, FIELDS, "write_record")
    try:
        text = json.dumps(record, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the record of {shown(record['model'])}, seed {shown(record['seed'])}, cannot be written as "
                         f"JSON: {error}") from error
    _require_values(json.loads(text))
    return write_atomic(folder / record_name(record), text + "\n")


def all_records(folder: str | Path | None = None) -> list[dict]:
    """The records of `folder` as `read_records` reads them, those of runs beside the tables among them."""
    folder = RESULTS if folder is None else as_path("folder", folder)
    return [read_record(path) for path in listed(folder, ".json")]


def read_records(folder: str | Path | None = None, **match) -> list[dict]:
    """All records of `folder` (default: the repository's data/results) whose fields equal `match`.

    `read_records(model="ViN", profile="paper")`; sorted by file name; a missing folder holds no records, and one that
    may not be read is an OSError.
    Runs beside the tables are no seeds of a table's systems: only `table="variants"` and `table="logs"` read them.
    A damaged or incomplete file is a ValueError that names it, and so is one of another run's name, such as a copy: as
    two seeds it would decide what one cannot. An unknown field in `match` is a TypeError.
    """
    unknown = sorted(set(match) - set(FIELDS))
    if unknown:
        raise TypeError(f"read_records() got unknown fields {unknown}; a record has {', '.join(FIELDS)}")
    require_kinds(match, {field: KINDS[field] for field in match if field in KINDS}, "read_records(...)")
    try:
        wanted = json.loads(json.dumps(match))  # as it would come back from a file: tuples are lists
    except (TypeError, ValueError) as error:
        raise TypeError(f"match={match!r} holds what no record can hold: {error}") from error
    return [record for record in all_records(folder) if all(record[field] == value for field, value in wanted.items())
            and (record["table"] not in (VARIANTS, LOGS) or "table" in wanted)]


def told_apart(records: Iterable[dict]) -> list[dict]:
    """`records`, for tables: a data set's name that stands for several sets of pictures says which, by their digest.
    (A record of before digests were noted keeps the plain name.)"""
    records = list(records)
    digests: dict[str, set[str]] = {}
    for record in records:
        if "digest" in record:
            digests.setdefault(record["dataset"], set()).add(record["digest"])
    return [{**record, "dataset": f"{record['dataset']} ({record['digest'][:8]})"}
            if "digest" in record and len(digests[record["dataset"]]) > 1 else record for record in records]


def read_record(path: Path) -> dict:
    """The record in the file `path`; ValueError, which names the file, if it is damaged or something else."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # reading a pipe need never end
        raise ValueError(f"{path} is a pipe or device and no record; delete it")
    try:
        record = parse_record(path.read_bytes(), path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); restore it or delete it") from error
    if path.name != record_name(record):  # what is done and what is missing is told by names
        raise ValueError(f"{path} is the record of {record_name(record)}; give it that name, or delete it")
    return record


def parse_record(content: bytes, where: str | Path) -> dict:
    """The record that a file's `content` is; ValueError, which begins with `where`, if it is damaged or none."""
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is no valid JSON ({error}); restore it or delete it") from error
    _require(record, FIELDS, where)
    try:
        _require_values(record)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}; restore it or delete it") from error
    return record


def _require_values(record: dict) -> None:
    """The fields of `record` must be such as runs have; TypeError or ValueError names the first other one."""
    require_kinds(record, KINDS, "the record")
    require_kinds(record["train"], TRAIN_KINDS, "train")
    require_settings(record["train"])
    require_kinds(record["params"], PARAMS_KINDS, "params")
    require_epochs(record["history"])
    if len(record["history"]) != record["train"]["epochs"]:
        raise ValueError(f"history has {len(record['history'])} epochs, and train says {record['train']['epochs']}")
    require_known("config", record["config"], CONFIGS)
    require_seed("seed", record["seed"])
    require_count(concurrent_runs=record.get("concurrent_runs", 1))
    known = {"calls": [], "digest": "", "pictures": {}, **record}
    require_kinds(known, {"calls": list, "digest": str, "pictures": dict}, "the record")
    require_calls(known["calls"])
    if known["pictures"]:
        require_kinds(known["pictures"], PICTURE_KINDS, "pictures")
        as_pair("image_size", known["pictures"]["image_size"])
    for name, value in record["options"].items():
        if not all(isinstance(one, PLAIN) for one in (value if isinstance(value, list) else [value])):
            raise TypeError(f"option {name}={shown(value)} must be a number, text, True, False, None or a list of them")
    as_pair("patch_size", record["options"].get("patch_size", 1))
    if record["train"].get("seed", record["seed"]) != record["seed"]:
        raise ValueError(f"seed={record['seed']}, and train says {record['train']['seed']}")
    top1 = [epoch["top1"] for epoch in record["history"]]
    for name, of_history in (("best_top1", max(top1)), ("last_top1", top1[-1])):
        require_number(name, record[name], is_percentage, "from 0 to 100")
        if record[name] != of_history:
            raise ValueError(f"{name}={record[name]}, and the history says {of_history}")
    for holder, names in ((record["params"], PARAMS_KINDS), (record, ("peak_memory_bytes", "images_per_second"))):
        for name in names:
            require_number(name, holder[name] or 0, lambda number: number >= 0, "of 0 or above")


def _require(record: dict, fields: tuple[str, ...], where: str | Path) -> None:
    if not isinstance(record, dict):
        raise ValueError(f"{where}: a record is a JSON object, not {type(record).__name__}")
    missing = [field for field in fields if field not in record]
    if missing:
        raise ValueError(f"{where}: the record lacks {', '.join(missing)}")
