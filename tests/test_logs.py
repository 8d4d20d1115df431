"""The authors' runs begun once more: the same layers, batch and length, and a table that says how far they are off."""
from __future__ import annotations

import pytest
from test_differences import record

import vixlib as vix
from vixlib.profiles import PROFILES
from vixlib.report import NOT_MEASURED, compare, first_epochs_table
from vixlib.report.records import LOGS, read_records, write_record
from vixlib.report.rows import TABLES, table_rows
from vixlib.reproduce.jobs import plan

FIRST = PROFILES["first-epoch"]
ROWS = {(row.model, row.position): row for row in table_rows(LOGS)}


def first(model, position, top1, seed=0, dataset="cifar10-jpg", profile="first-epoch"):
    """A record as such a run leaves it."""
    made = record(model, position, top1, seed=seed, dataset=dataset, profile=profile)
    batch_size = ROWS[model, position].printed["batch_size"]
    return {**made, "table": LOGS, "options": dict(ROWS[model, position].options),
            "train": {**made["train"], "batch_size": batch_size}}


def test_every_log_that_begins_with_its_first_epoch_is_a_row():
    assert len(ROWS) == 11 and ("ViP", "learned") not in ROWS  # which went on from a checkpoint
    assert all(not row.printed["resumed"] and row.printed["dataset"] == "cifar10" for row in ROWS.values())


@pytest.mark.parametrize(("model", "position"), ROWS)
def test_layers_are_those_that_the_logs_count(model, position):
    row = ROWS[model, position]
    count = vix.count_parameters(vix.build(model, config=FIRST.config, position=position, **dict(row.options))).true
    # Their ViT, HybridViT and both ViL with rotary positions keep a learned table that nothing reads.
    unread = 1025 * 128 if position == "rope" and model[-1] in "TL" else 0
    assert count + unread == row.printed["params_true"]


def test_a_run_is_one_epoch_on_every_pixel_with_the_logs_batch():
    jobs = plan(LOGS, FIRST, "cifar10-jpg")
    assert [job.train_config.batch_size for job in jobs] == [row.printed["batch_size"] for row in ROWS.values()]
    assert {(job.epochs, job.config, job.identity()["profile"]) for job in jobs} == {(1, "uniform", "first-epoch")}
    assert {job.identity()["options"].get("patch_size", 1) for job in jobs} == {1}


@pytest.mark.parametrize(("table", "profile"), [
    (LOGS, "smoke"), (LOGS, "paper"), (1, "first-epoch"), (2, "first-epoch"), ("rope", "first-epoch")])
def test_the_authors_logs_and_their_profile_belong_together(table, profile):
    """A log's run in another profile would have the name of a table's, which would count as done and show nowhere."""
    with pytest.raises(ValueError, match=f"table={table!r} and profile={profile!r} do not go together"):
        plan(table, PROFILES[profile], "cifar10-jpg")


def test_the_table_shows_means_and_how_far_they_are_from_the_logs(tmp_path):
    for made in (first("ViL", "learned", 43.0), first("ViL", "learned", 45.0, seed=1),
                 first("ViT", "rope", 50.0, dataset="cifar10"), first("ViN", "rope", 9.0, profile="smoke")):
        write_record(made, tmp_path)
    table = first_epochs_table(tmp_path)
    cells = {row[0]: row[1:] for row in table.rows}
    assert table.header[3:] == ["recorded\ncifar10", "recorded\ncifar10-jpg", "minutes"]
    assert cells["ViL, learned"][:4] == ["256", "43.53", NOT_MEASURED, "44.00 ± 1.41 (n=2) (+0.47)"]
    assert cells["ViT, rope"][:4] == ["64", "51.60", "50.00 (-1.60)", NOT_MEASURED]
    assert cells["ViN, rope"] == ["192", "51.41‡", NOT_MEASURED, NOT_MEASURED, "-"]
    assert sum("JPEG copy" in note for note in table.notes) == 1


@pytest.mark.parametrize("other", [{"options": {"patch_size": 4}}, {"train": {"batch_size": 64}},
                                   {"precision": "bfloat16"}])
def test_a_run_of_another_model_batch_or_precision_is_none_of_the_table(tmp_path, other):
    made = first("ViL", "learned", 44.0)
    write_record({**made, **other, "train": {**made["train"], **other.get("train", {})}}, tmp_path)
    assert {row[3] for row in first_epochs_table(tmp_path).rows} == {NOT_MEASURED}


def test_without_records_the_table_says_so(tmp_path):
    table = first_epochs_table(tmp_path)
    assert {row[3] for row in table.rows} == {NOT_MEASURED} and "none is recorded yet" in table.notes


def test_they_are_no_seeds_of_the_systems_in_the_tables(tmp_path):
    write_record(first("ViT", "learned", 40.0), tmp_path)
    assert read_records(tmp_path) == [] and len(read_records(tmp_path, table=LOGS)) == 1
    for table in TABLES:
        assert "first-epoch" not in str(compare(table, results=tmp_path))
