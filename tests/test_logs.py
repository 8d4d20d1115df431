"""The authors' runs begun once more: the same layers, batch and length, and a table that says how far they are off."""
from __future__ import annotations

import pytest
import torch
from einops import rearrange, repeat
from test_differences import record

import vixlib as vix
from benchmarks.textbook import TextbookNystrom
from vixlib.mixers import LinformerAttention, NystromAttention
from vixlib.positions import RotaryPosition
from vixlib.profiles import PROFILES
from vixlib.report import NOT_MEASURED, compare, first_epochs_table, reasons_table, verdict_table
from vixlib.report.records import LOGS, read_records, write_record
from vixlib.report.rows import TABLES, table_rows
from vixlib.reproduce.jobs import plan

FIRST = PROFILES["first-epoch"]
ROWS = {(row.model, row.position): row for row in table_rows(LOGS) if "top1" in row.printed}


def first(model, position, top1, seed=0, dataset="cifar10-jpg", profile="first-epoch", options=None):
    """A record as such a run leaves it."""
    made = record(model, position, top1, seed=seed, dataset=dataset, profile=profile)
    batch_size = ROWS[model, position].printed["batch_size"]
    return {**made, "table": LOGS, "options": options or dict(ROWS[model, position].options),
            "train": {**made["train"], "batch_size": batch_size}}


def test_every_log_that_begins_with_its_first_epoch_is_a_row():
    assert len(ROWS) == 11 and ("ViP", "learned") not in ROWS  # which went on from a checkpoint
    assert all(not row.printed["resumed"] and row.printed["dataset"] == "cifar10" for row in ROWS.values())


def test_beside_the_logs_stand_rows_that_their_vit_can_be_held_against(tmp_path):
    """Its table of positions quiet, and ViN with the table: one thing is another each time, and there is no log."""
    log = ROWS["ViT", "learned"]
    beside = [row for row in table_rows(LOGS) if "top1" not in row.printed]
    assert [(row.model, row.position, row.options) for row in beside] == [
        ("ViT", "learned", (("position_std", 0.02),)), ("ViN", "learned", ())]
    assert all(row.printed == {"batch_size": log.printed["batch_size"]} for row in beside) and log.options == ()
    write_record(first("ViT", "learned", 47.0, options={"position_std": 0.02}), tmp_path)
    cells = {row[0]: row[1:] for row in first_epochs_table(tmp_path).rows}
    assert cells["ViT, learned, position_std=0.02"][:5] == ["64", "no log", "-", "47.00", "1.00"]
    assert cells["ViT, learned"][:5] == ["64", "41.17", "1.81", NOT_MEASURED, NOT_MEASURED]
    assert cells["ViN, learned"][:5] == ["64", "no log", "-", NOT_MEASURED, NOT_MEASURED]


@pytest.mark.parametrize(("model", "position"), ROWS)
def test_layers_are_those_that_the_logs_count(model, position):
    row = ROWS[model, position]
    count = vix.count_parameters(vix.build(model, config=FIRST.config, position=position, **dict(row.options))).true
    # Their ViT, HybridViT and both ViL with rotary positions keep a learned table that nothing reads.
    unread = 1025 * 128 if position == "rope" and model[-1] in "TL" else 0
    assert count + unread == row.printed["params_true"]


def as_their_code_rotates(t):
    """Heads `[B, H, N, d]` turned by sines and cosines that stand for two neighbouring features each."""
    steps = torch.arange(t.shape[2], dtype=t.dtype)
    turns = 10_000 ** (-torch.arange(0, t.shape[3], 2, dtype=t.dtype) / t.shape[3])
    angles = repeat(torch.outer(steps, turns), "n f -> n (f two)", two=2)
    swapped = rearrange(torch.stack([-t[..., 1::2], t[..., ::2]], dim=-1), "... f two -> ... (f two)")
    return t * angles.cos() + swapped * angles.sin()


class TheirNystrom(TextbookNystrom):
    """They pad first and rotate then: CLS is token 63, not token 0."""

    def attend(self, q, k, v):
        return super().attend(as_their_code_rotates(q), as_their_code_rotates(k), v)


def their_linformer(layer, x, heads):
    """A key head for each query head; keys turn before they are projected, values are the keys as they were."""
    q, k = (rearrange(to(x), "b n (h d) -> b h n d", h=heads) for to in (layer.to_q, layer.to_k))
    short_k, short_v = (torch.einsum("bhnd,nr->bhrd", t, layer.project_k) for t in (as_their_code_rotates(k), k))
    weights = (torch.einsum("bhnd,bhrd->bhnr", as_their_code_rotates(q), short_k) * q.shape[-1] ** -0.5).softmax(-1)
    return layer.to_out(rearrange(weights @ short_v, "b h n d -> b n (h d)"))


@pytest.mark.parametrize("mixer", ["linformer", "nystrom"])
def test_rotary_layers_are_the_authors_to_the_last_digit(mixer):
    """What is left between a log of RoPE and its repetition is not how queries and keys are turned."""
    torch.manual_seed(0)
    size = {"dim": 16, "heads": 2, "dim_head": 8, "seq_len": 65}
    x = torch.randn(2, 65, 16, dtype=torch.float64)
    turn = RotaryPosition(dim=16, dim_head=8, grid=(8, 8), cls=True).rotary((8, 8), x.device)
    if mixer == "linformer":
        layer = LinformerAttention(16, heads=2, dim_head=8, seq_len=65, rank=16, shared_head=False).double()
        theirs = their_linformer(layer, x, heads=2)
    else:
        layer = NystromAttention(16, heads=2, dim_head=8, num_landmarks=16, padding="front").double()
        textbook = TheirNystrom(**size, num_landmarks=16).double()
        textbook.load_state_dict(layer.state_dict())
        theirs = textbook(x)
    assert (layer(x, rotary=turn) - theirs).abs().max() < 1e-12
    assert (layer(x) - theirs).abs().max() > 1e-6  # unturned, they differ


def test_a_run_is_one_epoch_on_every_pixel_with_the_logs_batch():
    jobs = plan(LOGS, FIRST, "cifar10-jpg")
    assert [job.train_config.batch_size for job in jobs] == [row.printed["batch_size"] for row in table_rows(LOGS)]
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
    assert table.header[3:] == ["its training\nloss", "recorded\ncifar10", "training loss\ncifar10",
                                "recorded\ncifar10-jpg", "training loss\ncifar10-jpg", "minutes"]
    assert cells["ViL, learned"][:6] == ["256", "43.53", "1.72", NOT_MEASURED, NOT_MEASURED,
                                         "44.00 ± 1.41 (n=2) (+0.47)"]
    assert cells["ViL, learned"][6] == "1.00 ± 0.00 (n=2) (-0.72)"
    assert cells["ViT, rope"][:5] == ["64", "51.60‡", "1.56", "50.00 (-1.60)", "1.00 (-0.56)"]
    assert cells["ViN, rope"] == ["192", "51.41‡", "1.46", *[NOT_MEASURED] * 4, "-"]
    assert sum("JPEG copy" in note for note in table.notes) == 1


@pytest.mark.parametrize("other", [{"options": {"patch_size": 4}}, {"train": {"batch_size": 64}},
                                   {"precision": "bfloat16"}])
def test_a_run_of_another_model_batch_or_precision_is_none_of_the_table(tmp_path, other):
    made = first("ViL", "learned", 44.0)
    write_record({**made, **other, "train": {**made["train"], **other.get("train", {})}}, tmp_path)
    assert {cell for row in first_epochs_table(tmp_path).rows for cell in row[4:-1]} == {NOT_MEASURED}


def test_without_records_the_table_says_so(tmp_path):
    table = first_epochs_table(tmp_path)
    assert table.header[4:6] == ["recorded", "training loss"]
    assert {cell for row in table.rows for cell in row[4:-1]} == {NOT_MEASURED}
    assert "none is recorded yet" in table.notes


def test_they_are_no_seeds_of_the_systems_in_the_tables(tmp_path):
    write_record(first("ViT", "learned", 40.0), tmp_path)
    assert read_records(tmp_path) == [] and len(read_records(tmp_path, table=LOGS)) == 1
    for table in TABLES:
        assert "first-epoch" not in str(compare(table, results=tmp_path))


def test_claims_and_experiments_pair_them_with_each_other_and_with_nothing_else(tmp_path):
    quiet = {"position_std": 0.02}
    for made in (first("ViT", "learned", 40.0), first("ViT", "rope", 49.0),
                 first("ViT", "learned", 47.0, options=quiet),
                 first("ViL", "learned", 43.0), first("ViL", "rope", 45.0),  # of other batches and key heads: no pair
                 record("ViT", "rope", 90.0), {**record("ViT", "learned", 91.0, **quiet), "table": "variants"}):
        write_record(made, tmp_path)
    claims = [tuple(row[i] for i in (2, 4)) for row in verdict_table("04", tmp_path).rows]
    assert [said for pair, said in claims if pair == "ViT/rope against ViT/learned"] == ["+9.00 (one seed)"]
    assert ("ViL/rope against ViL/learned", "-") in claims
    reasons = [row[2:6] for row in reasons_table("04", tmp_path).rows if row[3] != NOT_MEASURED]
    assert reasons == [["ViT, position_std=0.02", "47.00", "40.00", "+7.00 (one seed)"],
                       ["ViT, position_std=0.02, against rope", "47.00", "49.00", "-2.00 (one seed)"],
                       ["ViT, position_std=0.02, against rope", "91.00", "90.00", "+1.00 (one seed)"]]
