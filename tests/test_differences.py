"""Claims: only runs that differ in nothing but the system are compared, and one seed decides nothing."""
from __future__ import annotations

import pytest
from blank import BLANK, scored

import vixlib as vix
from vixlib.report.comparison import NOT_MEASURED
from vixlib.report.differences import Difference, as_records, claims, compared, rope_claims, rope_table
from vixlib.report.records import write_record


def record(model, position, last, seed=0, profile="quick", dataset="cifar10-jpg", config="uniform", epochs=1, lr=1e-3,
           **options):
    values = dict(BLANK)
    values.update(model=model, position=position, **scored(last, epochs=epochs), seed=seed, profile=profile,
                  dataset=dataset, config=config, options={"patch_size": 4, **options}, device="CPU", table="rope",
                  train={"epochs": epochs, "batch_size": 64, "lr": lr, "seed": seed, "eval_batch_size": None})
    return values


def differences(a, b, results=None):
    return compared(a, b, as_records(results))


def only(found):
    assert len(found) == 1
    return found[0]


def test_without_records_nothing_is_measured(tmp_path):
    missing = only(differences("ViT/rope", "ViT/learned", tmp_path))
    assert (missing.n, missing.mean, missing.interval, missing.verdict) == (0, None, None, NOT_MEASURED)
    assert str(missing) == "ViT: rope against learned: not measured"
    assert all("points" not in sentence for sentence in rope_claims(tmp_path))


def test_one_seed_gives_a_direction_and_no_verdict(tmp_path):
    write_record(record("ViT", "rope", 48.1), tmp_path)
    write_record(record("ViT", "learned", 45.3), tmp_path)
    found = only(differences("ViT/rope", "ViT/learned", tmp_path))
    assert found.mean == pytest.approx(2.8) and found.interval is None and found.verdict == "undecided"
    assert str(found) == "ViT: rope 48.1 against learned 45.3: +2.8 points (one seed: a direction, no interval)"
    assert only(differences("ViT/learned", "ViT/rope", tmp_path)).mean == pytest.approx(-2.8)


def test_the_interval_is_students_over_paired_seeds():
    pairs = ((50.0, 47.0), (60.0, 58.0), (40.0, 36.0))  # far apart as levels, but 3, 2 and 4 as differences
    found = Difference("ViT/rope", "ViT/learned", pairs=pairs)
    # mean 3, standard deviation 1, t(0.975, 2) = 4.3027: 3 ± 4.3027/√3
    assert found.mean == pytest.approx(3) and found.interval == pytest.approx((0.516, 5.484), abs=1e-3)
    assert found.verdict == "holds"
    turned = Difference("ViT/learned", "ViT/rope", pairs=tuple((b, a) for a, b in pairs))
    assert turned.verdict == "does not hold"
    assert Difference("ViT/rope", "ViT/learned", pairs=((50.0, 47.0), (60.0, 61.0))).verdict == "undecided"


@pytest.mark.parametrize("other", [
    {"profile": "paper"}, {"dataset": "cifar10"}, {"config": "paper"}, {"epochs": 2}, {"lr": 2e-3}, {"seed": 1},
    {"patch_size": 2}, {"dim": 64}])
def test_runs_that_differ_in_anything_else_are_no_pair(other):
    records = [record("ViT", "rope", 48.1), {**record("ViT", "learned", 45.3, **{k: v for k, v in other.items()
                                                                                  if k not in ("patch_size", "dim")})}]
    records[1]["options"] |= {k: v for k, v in other.items() if k in ("patch_size", "dim")}
    assert only(differences("ViT/rope", "ViT/learned", records)).verdict == NOT_MEASURED


def test_options_that_only_one_system_takes_do_not_keep_runs_apart():
    records = [record("ViN", "learned", 50.0, num_landmarks=16), record("ViT", "learned", 45.0)]
    assert only(differences("ViN", "ViT", records)).mean == pytest.approx(5)
    records = [record("ViT", "rope", 50.0), record("ViT", "learned", 45.0, position_std=0.02)]
    assert only(differences("ViT/rope", "ViT/learned", records)).mean == pytest.approx(5)
    # ... but one of its own options does, where both take it.
    records = [record("ViN", "rope", 50.0, num_landmarks=16), record("ViN", "learned", 45.0, num_landmarks=32)]
    assert only(differences("ViN/rope", "ViN/learned", records)).n == 0


def test_settings_stay_apart_and_seeds_come_together():
    records = [record("ViT", position, base + seed, seed, profile) for profile, base in (("quick", 40), ("paper", 60))
               for seed in (0, 1) for position in ("rope", "learned")]
    records[0]["last_top1"] += 2
    paper, quick = differences("ViT/rope", "ViT/learned", records)
    assert (paper.group.profile, paper.n, paper.mean) == ("paper", 2, 0)
    assert (quick.group.profile, quick.n, quick.mean) == ("quick", 2, 1)


def test_an_option_of_one_side_separates_its_seeds():
    """Two ViN with different landmarks beside one ViT are two comparisons, not two seeds of one."""
    records = [record("ViT", "learned", 45.0), record("ViN", "learned", 50.0, num_landmarks=16),
               record("ViN", "learned", 52.0, num_landmarks=32)]
    assert sorted(found.mean for found in differences("ViN", "ViT", records)) == [5.0, 7.0]


def test_claims_count_directions_and_say_what_is_missing():
    records = [record("ViT", "rope", 48.1), record("ViT", "learned", 45.3),
               record("ViN", "rope", 50.0), record("ViN", "learned", 51.0)]
    said = rope_claims(records)
    assert said[1].endswith("the first is ahead in 1 of 2 comparison(s); intervals decide 0 for it and 0 against it")
    assert "    ViN: rope 50.0 against learned 51.0: -1.0 points (one seed: a direction, no interval)" in said
    assert any(line.startswith("  not measured: rope against learned for ViP, ViL, ") for line in said)
    across = claims([("ViN", "ViT"), ("HybridViT/rope", "ViT/learned")], records)
    assert any(line.startswith("  ViN 51.0 against ViT 45.3: +5.7 points") for line in across)
    assert across[-1] == "not measured: HybridViT/rope against ViT/learned"


def test_unknown_systems_are_named():
    with pytest.raises(ValueError, match="system='ViQ' is unknown"):
        differences("ViQ/rope", "ViT/rope", [])
    with pytest.raises(ValueError, match="position='spiral' is unknown"):
        differences("ViT/spiral", "ViT/rope", [])


@pytest.mark.parametrize("pairs", ["ab", ["ViN"], [("ViN",)], [("ViN", "ViT", "ViP")]])
def test_what_is_no_pair_of_systems_is_named(pairs):
    with pytest.raises(ValueError, match=r'pairs=.* must be a pair of systems, such as \("ViN", "ViT"\)'):
        claims(pairs, [])


@pytest.mark.parametrize(("call", "words"), [
    (lambda: differences(5, "ViT", []), "system=5 must be a name"),
    (lambda: differences("ViN", "ViT", 5), "results=5 must be a folder of records, or a list"),
    (lambda: differences("ViN", "ViT", [5]), "a record=5 must be a record"),
    (lambda: differences("ViN", "ViT", [{}]), "dataset=None of results has another type"),
    (lambda: rope_claims(5), "results=5 must be"),
    (lambda: rope_table(runs=[3]), r"runs=\[3\]: run=3 must be a Run"),
])
def test_what_holds_no_records_is_named(call, words):
    with pytest.raises(TypeError, match=words):
        call()


def test_a_folder_may_be_any_kind_of_path(tmp_path):
    class Folder:
        def __fspath__(self):
            return str(tmp_path)

    write_record(record("ViT", "rope", 48.1), tmp_path)
    write_record(record("ViT", "learned", 45.3), tmp_path)
    assert differences("ViT/rope", "ViT/learned", Folder()) == differences("ViT/rope", "ViT/learned", tmp_path)


def test_a_copy_of_a_record_is_no_further_seed():
    """Of three seeds that leave it open no copies may decide, nor an older record of a run that was made again."""
    records = [record(model, "learned", last, seed) for model, lasts in (("ViN", (50.0, 51.0, 52.0)),
                                                                         ("ViT", (48.0, 50.0, 52.0)))
               for seed, last in enumerate(lasts)]
    once, copied = (only(differences("ViN", "ViT", given)) for given in (records, records + records))
    assert once == copied and (copied.n, copied.verdict) == (3, "undecided")
    again = only(differences("ViN", "ViT", [*records, record("ViN", "learned", 60.0)]))
    assert (again.n, again.pairs[0]) == (3, (60.0, 48.0))


def cells(table, model, block):
    """The cells of `model` below the row of `block`."""
    labels = [row[0] for row in table.rows]
    start = next(i for i, label in enumerate(labels) if label.startswith(block))
    return dict(zip(table.header, table.rows[labels.index(model, start)], strict=True))


def test_rope_table_shows_the_authors_logs_and_admits_what_is_missing(tmp_path):
    table = rope_table(results=tmp_path)
    logs = cells(table, "ViT", "authors' logs")
    assert (logs["learned"], logs["rope"], logs["rope2d"]) == ("56.82", "69.33 (+12.51)", "-")
    assert cells(table, "HybridViL", "authors' logs")["rope"] == "64.40 (-0.37)"
    assert cells(table, "HybridViP", "authors' logs")["rope"] == "76.55*†"  # and nothing to compare it with
    assert cells(table, "ViP", "authors' logs")["rope"] == "60.74"  # its learned log was resumed: no difference
    assert table.rows[-1] == ["recorded: none yet", *[NOT_MEASURED] * 4]


def test_rope_table_with_seeds_with_one_run_and_with_none(tmp_path):
    for seed, (rope, learned) in enumerate([(48.0, 45.0), (50.0, 48.0), (49.0, 45.0)]):
        write_record(record("ViT", "rope", rope, seed), tmp_path)
        write_record(record("ViT", "learned", learned, seed), tmp_path)
    write_record(record("ViN", "rope2d", 51.0), tmp_path)
    write_record(record("ViT", "rope", 99.0, config="paper"), tmp_path)  # other layers: not this table's
    table = rope_table(results=tmp_path)
    vit, vin = (cells(table, model, "quick: cifar10-jpg, patch 4, 1 epoch") for model in ("ViT", "ViN"))
    assert (vit["learned"], vit["rope"], vit["none"]) == ("46.00, n=3", "49.00, n=3 (+3.00 ± 2.48, n=3)", NOT_MEASURED)
    assert (vin["rope2d"], vin["learned"]) == ("51.00 (no pair)", NOT_MEASURED)


def test_rope_table_has_a_block_for_the_runs_of_this_session(tmp_path):
    def run(top1, **options):
        history = [{"epoch": 1, "loss": 1.0, "top1": top1, "top5": 90.0, "seconds": 1.0}]
        return vix.Run("ViT", "uniform", {"patch_size": 4, **options}, "shapes", 100, vix.TrainConfig(epochs=1), "CPU",
                       "float32", history)

    table = rope_table([run(30.0, position_std=0.1), run(35.5, position="rope")], results=tmp_path)
    here = cells(table, "ViT", "this run: shapes, patch 4, 1 epoch")
    assert (here["learned"], here["rope"], here["none"]) == ("30.00", "35.50 (+5.50)", NOT_MEASURED)
    assert table.rows[-1][0] == "ViT"  # of models that did not run there is nothing to say


def test_rope_table_counts_a_run_once_and_other_settings_apart(tmp_path):
    def run(top1, **train):
        history = [{"epoch": 1, "loss": 1.0, "top1": top1, "top5": 90.0, "seconds": 1.0}]
        return vix.Run("ViT", "uniform", {"patch_size": 4}, "shapes", 100, vix.TrainConfig(epochs=1, **train), "CPU",
                       "float32", history)

    once = run(30.0)
    assert cells(rope_table([once, once], tmp_path), "ViT", "this run")["learned"] == "30.00"
    assert cells(rope_table([once, run(40.0, lr=0.1)], tmp_path), "ViT", "this run")["learned"] == "30.00; 40.00"


def test_sentences_about_the_committed_records_can_be_made():
    said = rope_claims()
    assert sum(line.endswith("?") for line in said) == 4 and all(line for line in said)
