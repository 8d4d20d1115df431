"""Tables come from files: what no record holds is 'not measured', and records decide every cell."""
from __future__ import annotations

import json

import pytest
import torch
from blank import BLANK, scored

import vixlib as vix
from vixlib.measure.scoring import name_of
from vixlib.report.comparison import NOT_MEASURED, spread
from vixlib.report.differences import claims, rope_table
from vixlib.report.records import write_record
from vixlib.report.rows import LARGEST, table_rows


def record(model, seed=0, best=50.0, last=49.0, profile="quick", dataset="shapes", position="learned", **options):
    values = dict(BLANK)
    values.update(model=model, seed=seed, **scored(min(last, best), best, epochs=2), profile=profile, dataset=dataset,
                  config="uniform", position=position, options=options, device="CPU", table=1,
                  train={"epochs": 2, "batch_size": 64})
    return values


def cells(table, model):
    return next(row for row in table.rows if row[0] == model)


def test_without_records_nothing_is_measured(tmp_path):
    table = vix.compare(1, results=tmp_path)
    assert [row[-1] for row in table.rows] == [NOT_MEASURED] * 6
    assert "no run of this table is recorded yet" in table.notes


@pytest.mark.parametrize("number", [1, 2, 3, 4, "cxv", "rope"])
def test_every_row_of_a_table_is_shown_with_what_the_paper_printed(number, tmp_path):
    table = vix.compare(number, results=tmp_path)
    assert len(table.rows) == len(table_rows(number))
    if number != "rope":
        for row, printed in zip(table.rows, vix.paper_table(number)["rows"], strict=False):  # further rows may follow
            assert row[0] == printed["model"]
            assert f"{printed['top1']:.2f}" in row


def test_top_5_is_read_from_every_epoch(tmp_path):
    made = record("ViN", best=50.0, last=50.0)
    made["history"] = [{"epoch": epoch, "loss": 1.0, "top1": 50.0, "top5": top5, "seconds": 1.0}
                       for epoch, top5 in ((1, 92.5), (2, 91.25))]
    write_record(made, tmp_path)
    table = vix.compare(1, results=tmp_path, score="top5")
    assert cells(table, "ViN")[3] == "96.41" and "92.50 | 91.25" in cells(table, "ViN")
    assert "paper\ntop-5" in table.header
    with pytest.raises(ValueError, match="score='top3' is unknown"):
        vix.compare(1, score="top3")


def test_what_is_missing_and_copied_is_said_below(tmp_path):
    assert "--table 3 --profile paper trains them" in vix.compare(3, results=tmp_path).notes[-1]
    write_record(record("ViN", dataset="cifar10-jpg"), tmp_path)
    assert any(note.startswith("cifar10-jpg: a JPEG copy") for note in vix.compare(1, results=tmp_path).notes)


def test_best_is_over_seeds_and_last_is_mean_and_deviation(tmp_path):
    for seed, (best, last) in enumerate([(60.0, 58.0), (64.0, 60.0), (62.0, 62.0)]):
        write_record(record("ViN", seed, best, last, patch_size=4), tmp_path)
    table = vix.compare(1, results=tmp_path)
    assert cells(table, "ViN")[-1] == "64.00 | 60.00 ± 2.00 (n=3)"
    assert cells(table, "ViT")[-1] == NOT_MEASURED
    assert cells(table, "ViN")[-2] == NOT_MEASURED  # the paper's protocol is another column
    assert "shapes" in table.header[-1] and "patch 4" in table.header[-1]


def test_runs_of_other_sizes_data_or_positions_do_not_mix(tmp_path):
    write_record(record("ViN", best=40.0, patch_size=4), tmp_path)
    write_record(record("ViN", best=41.0, patch_size=2), tmp_path)
    write_record(record("ViN", best=42.0, dataset="cifar10-jpg", patch_size=4), tmp_path)
    write_record(record("ViN", best=43.0, position="rope", patch_size=4), tmp_path)
    row = cells(vix.compare(1, results=tmp_path), "ViN")
    assert [cell.split(" |")[0] for cell in row if cell.startswith("4")] == ["42.00", "41.00", "40.00"]
    assert cells(vix.compare("rope", results=tmp_path), "ViN, rope")[-1].startswith("43.00")


def test_table_2_shows_runs_with_its_own_batches_and_table_1_does_not(tmp_path):
    for profile, batch_size, last in (("paper", 64, 57.0), (LARGEST, 192, 58.0)):
        write_record({**record("ViP", best=last, last=last, profile=profile),
                      "train": {"epochs": 2, "batch_size": batch_size}}, tmp_path)
    shown = {table: next(row for row in vix.compare(table, results=tmp_path).rows if row[0] == "ViP")
             for table in (1, 2)}
    assert shown[1][-1] == "57.00 | 57.00" and shown[2][-1] == "58.00 | 58.00"
    assert len(shown[1]) == len(shown[2])  # each has one column of recorded runs


def test_a_run_of_this_session_has_its_own_column(tmp_path):
    config = vix.TrainConfig(epochs=2)
    history = [{"epoch": i, "loss": 1.0, "top1": top1, "top5": 90.0, "seconds": 1.0}
               for i, top1 in ((1, 31.0), (2, 30.0))]
    run = vix.Run("ViP", "uniform", {}, "shapes", 100, config, "CPU", "float32", history)
    table = vix.compare(1, runs=[run], results=tmp_path)
    assert cells(table, "ViP")[-1] == "31.00 | 30.00" and cells(table, "ViT")[-1] == "not run"
    rope = vix.Run("ViP", "uniform", {"position": "rope"}, "shapes", 100, config, "CPU", "float32", history)
    assert cells(vix.compare(1, runs=[rope], results=tmp_path), "ViP")[-1] == "not run"
    assert cells(vix.compare("rope", runs=[rope], results=tmp_path), "ViP, rope")[-1] == "31.00 | 30.00"


def test_runs_of_this_session_on_other_pictures_of_one_name_are_no_seeds_either(tmp_path):
    data = vix.load("shapes", train=40, test=20)
    runs = [vix.fit(vix.build("ViT", seed=0, patch_size=8, dim=8, depth=1), data.subset(0.5, seed=part),
                    vix.TrainConfig(epochs=1, seed=seed), progress=False) for seed, part in ((0, 0), (1, 0), (0, 1))]
    found = cells(vix.compare(1, runs=runs, results=tmp_path), "ViT")[-1].split("\n")
    assert runs[0].digest == runs[1].digest != runs[2].digest
    assert ["(n=2)" in line for line in found] == [True, False] and all("dataset=shapes (" in line for line in found)
    assert "told apart by their digests" in str(vix.compare(1, runs=runs, results=tmp_path))


def test_a_run_of_a_mixer_of_ones_own_joins_the_table(tmp_path):
    history = [{"epoch": 1, "loss": 1.0, "top1": 44.0, "top5": 90.0, "seconds": 1.0}]
    mine, vip = (vix.Run(name, "uniform", {}, "shapes", 100, vix.TrainConfig(epochs=1), "CPU", "float32", history)
                 for name in ("GatedMean", "ViP"))
    table = vix.compare(1, runs=[vip, mine], results=tmp_path)
    assert cells(table, "GatedMean") == ["GatedMean", *["-"] * (len(table.header) - 2), "44.00 | 44.00"]
    assert cells(table, "ViP")[-1] == "44.00 | 44.00"
    assert cells(vix.compare(1, runs=[mine], results=tmp_path), "ViT")[-1] == "not run"
    turned = vix.Run("GatedMean", "uniform", {"position": "rope"}, "shapes", 100, mine.config, "CPU", "float32",
                     history)
    table = vix.compare(1, runs=[mine, turned], results=tmp_path)  # another position is no further seed
    assert cells(table, "GatedMean")[-1] == cells(table, "GatedMean, rope")[-1] == "44.00 | 44.00"


def test_another_mixer_makes_it_another_system():
    class Average(torch.nn.Module):
        def __init__(self, dim, **_):
            super().__init__()

    assert vix.build("ViT", mixer=Average, depth=1).name == "ViT with Average"
    assert vix.build("ViT", mixer="performer", depth=1).name == "ViT with performer"
    assert vix.build("ViT", mixer="softmax", depth=1).name == "ViT"
    assert name_of(vix.ViT(mixer="performer", depth=1)) == "ViT with performer"  # told by class, too
    assert name_of(vix.ViT(mixer=Average, depth=1)) == "ViT with Average" and name_of(vix.ViN(depth=1)) == "ViN"
    assert name_of(type("Mine", (vix.ViT,), {})(depth=1)) == "Mine"
    assert name_of(type("ViT", (torch.nn.Linear,), {})(1, 1)) == f"ViT of {__name__}"  # of the same name, and not it
    # The paper's count of ViP counts its Performers twice.
    assert vix.count_parameters(vix.build("ViP", "paper", mixer="softmax")) == vix.count_parameters(
        vix.build("ViT", mlp_dim=512))


def run(top1, dataset="shapes", images=100, options=None, config="uniform", **train):
    settings = vix.TrainConfig(**{"epochs": 1, **train})
    history = [{"epoch": number + 1, "loss": 1.0, "top1": top1, "top5": 90.0, "seconds": 1.0}
               for number in range(settings.epochs)]
    return vix.Run("ViP", config, options or {}, dataset, images, settings, "CPU", "float32", history)


def test_several_runs_of_one_system_are_shown_as_records_would_be(tmp_path):
    table = vix.compare(1, runs=[run(44.0), run(46.0, seed=1), run(50.0, "mine")], results=tmp_path)
    assert cells(table, "ViP")[-1] == "46.00 | 45.00 ± 1.41 (n=2) (dataset=shapes)\n50.00 | 50.00 (dataset=mine)"
    assert "this run: shapes, 1 epoch(s), CPU; mine, 1 epoch(s), CPU" in table.notes


@pytest.mark.parametrize("model", ["ViP", "GatedMean"])
@pytest.mark.parametrize(("other", "words"), [
    ({"dataset": "mine"}, "dataset=mine"), ({"images": 50}, "train_images=50"), ({"config": "paper"}, "config=paper"),
    ({"lr": 0.1, "epochs": 2}, "epochs=2, lr=0.1"), ({"options": {"num_features": 8}}, "num_features=8")])
def test_runs_of_other_settings_are_no_seeds_of_one_cell(tmp_path, other, words, model):
    runs = [run(44.0), run(46.0, **other)]
    for one in runs:
        one.model = model
    first, second = cells(vix.compare(1, runs=runs, results=tmp_path), model)[-1].split("\n")
    assert first.startswith("44.00 | 44.00") and "()" not in first and second == f"46.00 | 46.00 ({words})"


def test_a_run_that_was_stopped_is_no_seed_of_one_that_was_not(tmp_path):
    whole, stopped = (run(top1, epochs=3, warmup_epochs=2, seed=seed) for seed, top1 in enumerate((44.0, 46.0)))
    del stopped.history[1:]
    table = vix.compare(1, runs=[whole, stopped], results=tmp_path)
    assert cells(table, "ViP")[-1] == "44.00 | 44.00\n46.00 | 46.00 (stopped_after=1)"
    assert "this run: shapes, 3 epoch(s), CPU; shapes, 1 of 3 epoch(s), CPU" in table.notes


def test_of_a_run_that_was_made_again_the_last_one_counts(tmp_path):
    once = run(44.0)
    assert cells(vix.compare(1, runs=[once, once], results=tmp_path), "ViP")[-1] == "44.00 | 44.00"
    again = [run(44.0), run(43.0, eval_batch_size=8), run(45.0, seed=1)]
    assert cells(vix.compare(1, runs=again, results=tmp_path), "ViP")[-1] == "45.00 | 44.00 ± 1.41 (n=2)"


def test_patches_that_are_no_squares_have_a_column_of_their_own(tmp_path):
    for patch in (4, [4, 4], [2, 4]):
        write_record(record("ViN", patch_size=patch), tmp_path)
    heads = [head for head in vix.compare(1, results=tmp_path).header if "patch" in head]
    assert ["patch 2×4" in heads[0], "patch 4," in heads[1], len(heads)] == [True, True, 2]


def test_continued_logs_are_marked(tmp_path):
    table = vix.compare(1, results=tmp_path)
    assert cells(table, "ViP")[4] == "53.70*†" and cells(table, "ViL")[4] == "50.65†"  # seven epochs more, two epochs
    assert cells(table, "ViT")[4] == "56.82"
    assert any(note.startswith("*") for note in table.notes)


def test_text_and_html_hold_the_same_cells_and_html_is_escaped(tmp_path):
    write_record(record("ViN", dataset="<b>mine</b>"), tmp_path)
    table = vix.compare(1, results=tmp_path)
    html, text = table._repr_html_(), str(table)
    for row in table.rows:
        assert all(cell in html and cell in text for cell in row)
    assert repr(table) == text  # what a terminal shows of a cell's value
    assert "<b>mine</b>" not in html and "&lt;b&gt;mine" in html


def test_numbers_of_the_paper_are_the_files(monkeypatch):
    rows = {row["model"]: row for row in vix.paper_table(1)["rows"]}
    assert rows["ViN"]["top1"] == 66.47 and rows["ViT"]["gpu_gb"] == 15.0
    assert max(run["best_top1"] for run in vix.authors_runs("ViT", "rope")) == 69.33


def test_unknown_table_is_named():
    with pytest.raises(ValueError, match="table=9 is unknown; use one of 1, 2, 3, 4"):
        vix.compare(9)


def test_spread():
    assert (spread([1.5]), spread([1.0, 3.0])) == ("1.50", "2.00 ± 1.41 (n=2)")


def test_committed_records_are_whole():
    """Every record in data/results names what it was made with."""
    for found in vix.read_records():
        assert found["history"] and found["dataset"] and found["device"] and found["commit"], found
        assert found["best_top1"] == max(epoch["top1"] for epoch in found["history"])
        assert len(found["history"]) == found["train"]["epochs"]
        json.dumps(found, allow_nan=False)


def test_other_settings_are_no_further_seeds(tmp_path):
    for seed, last, options in ((0, 40.0, {}), (1, 42.0, {}), (0, 60.0, {"num_landmarks": 8})):
        write_record(record("ViN", seed=seed, best=70.0, last=last, **options), tmp_path)
    other = record("ViN", seed=2, best=20.0, last=10.0)
    write_record({**other, "train": {**other["train"], "lr": 0.1}}, tmp_path)
    cell = cells(vix.compare(1, results=tmp_path), "ViN")[-1].split("\n")
    assert len(cell) == 3 and any(line.startswith("70.00 | 41.00 ± 1.41 (n=2)") for line in cell)
    assert any("num_landmarks=8" in line for line in cell) and any("lr=0.1" in line for line in cell)


def test_what_the_caller_does_with_a_table_of_the_paper_stays_his():
    vix.paper_table(1)["rows"][0]["top1"] = 0.0
    vix.authors_runs("ViT")[0]["top1"].clear()
    assert vix.paper_table(1)["rows"][0]["top1"] > 0 and vix.authors_runs("ViT")[0]["top1"]
    with pytest.raises(ValueError, match="dataset='cifarl0' is unknown"):
        vix.authors_runs("ViT", dataset="cifarl0")


def test_tables_and_measurements_leave_the_random_numbers_alone(tmp_path):
    state = torch.get_rng_state()
    vix.compare(1, results=tmp_path)
    vix.saved_bytes_per_image(vix.build("ViT", seed=0, depth=1, patch_size=8))
    assert torch.equal(state, torch.get_rng_state())


def test_pictures_that_share_a_name_are_no_seeds_of_each_other(tmp_path):
    """Two folders called "pics" are two data sets; of a record without a digest nobody knows."""
    def write(model, seed, digest, last):
        write_record({**BLANK, **scored(last), "model": model, "seed": seed, "dataset": "pics", "digest": digest * 8},
                     tmp_path)

    for seed in (0, 1):
        write("ViT", seed, "aa", 80.0)
    write("ViN", 0, "aa", 90.0)
    table = vix.compare(1, results=tmp_path)
    assert "n=2" in str(table) and "aaaaaaaa" not in str(table)
    for seed in (0, 2):
        write("ViN", seed, "bb", 20.0)  # seed 0 replaces the one above: one name, one file
    write("ViT", 3, "bb", 30.0)
    table = vix.compare(1, results=tmp_path)
    assert [header.count("(aaaaaaaa)") + 2 * header.count("(bbbbbbbb)") for header in table.header[-2:]] == [1, 2]
    assert "80.00 ± 0.00 (n=2)" in str(table) and "30.00 | 30.00" in str(table) and "told apart" in str(table)
    assert "not measured: ViN against ViT" in claims([("ViN", "ViT")], tmp_path)


def test_devices_are_those_of_the_runs_shown_and_what_is_left_out_is_said(tmp_path):
    lonely = {**BLANK, "profile": "long", "model": "HybridViT", "device": "A100"}
    for profile in ("long", "long-modern"):
        write_record({**lonely, "profile": profile}, tmp_path)
    for table in (vix.compare(3, results=tmp_path), rope_table(results=tmp_path)):
        assert "A100" not in str(table) and "long of HybridViT" in str(table)
    write_record({**lonely, "model": "HybridViN"}, tmp_path)
    for table in (vix.compare(3, results=tmp_path), rope_table(results=tmp_path)):
        assert "A100" in str(table) and "long-modern of" in str(table) and "long of" not in str(table)


def test_the_papers_protocol_is_missing_until_its_own_layers_are_trained(tmp_path):
    write_record({**BLANK, "profile": "paper"}, tmp_path)  # as the table of positions trains them: uniform
    table = vix.compare(1, results=tmp_path)
    assert "recorded,\npaper protocol" in table.header and "--profile paper" in table.notes[-1]
    write_record({**BLANK, "profile": "paper", "config": "paper"}, tmp_path)
    assert "recorded,\npaper protocol" not in vix.compare(1, results=tmp_path).header
