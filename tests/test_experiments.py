"""Experiments on the reasons: one thing changed, paired by seed, and never mistaken for a seed of the plain system."""
from __future__ import annotations

from itertools import product

import pytest
from test_differences import record

import vixlib as vix
from vixlib.profiles import PROFILES
from vixlib.report.comparison import NOT_MEASURED
from vixlib.report.differences import compared
from vixlib.report.experiments import reasons_table
from vixlib.report.records import VARIANTS, read_records, write_record
from vixlib.report.rows import EXPERIMENTS, RECIPES
from vixlib.reproduce.jobs import plan


def vip(top1, seed=0, kernel=None, **more):
    options = {} if kernel is None else {"kernel": kernel}
    return {**record("ViP", "learned", top1, seed=seed, **more, **options), "table": VARIANTS if kernel else 1}


@pytest.mark.parametrize("profile", ["quick", "paper"])
def test_each_experiment_trains_the_plain_row_with_one_option_more(profile):
    jobs = plan(VARIANTS, PROFILES[profile], "shapes")
    assert len({job.name for job in jobs}) == len(jobs)  # two questions may ask for one run
    for experiment in EXPERIMENTS:
        name, value = experiment.option
        job, = (job for job in jobs if (job.row.model, job.row.options) == (experiment.model, (experiment.option,)))
        assert job.identity()["options"] == {**PROFILES[profile].options_for(experiment.model), name: value}
        assert name in vix.applicable(experiment.model, {name: value}, job.config)  # an option of this system


def test_pairs_have_the_same_seed_and_setting(tmp_path):
    for seed, top1 in enumerate((47.0, 46.0, 48.0)):
        write_record(vip(top1, seed, "relu"), tmp_path)
        write_record(vip(33.0 + seed, seed), tmp_path)
    write_record(vip(60.0, 3, "relu"), tmp_path)  # without its plain run
    write_record(vip(99.0, 0, lr=2e-3, profile="paper"), tmp_path)
    table = reasons_table("02", tmp_path)
    # differences 14, 12 and 13: mean 13, standard deviation 1, t(0.975, 2) = 4.3027: 13 ± 4.3027/√3
    assert table.rows[0][3:6] == ["47.00", "34.00", "+13.00 ± 2.48 (n=3)"]
    assert table.notes[0].startswith("[1] quick: cifar10-jpg, patch 4")


def test_an_option_may_be_compared_with_another_system_or_other_positions(tmp_path):
    write_record(vip(47.0, 0, "relu"), tmp_path)
    write_record(record("ViT", "learned", 45.0, seed=0), tmp_path)
    plain, against_vit = reasons_table("02", tmp_path).rows
    assert plain[3:6] == [NOT_MEASURED, NOT_MEASURED, "-"]
    assert against_vit[2:6] == ["ViP, kernel=relu, against ViT", "47.00", "45.00", "+2.00 (one seed)"]
    write_record({**record("ViT", "learned", 49.0, position_std=0.02), "table": VARIANTS}, tmp_path)
    write_record(record("ViT", "rope", 48.0), tmp_path)
    found = {row[2]: row[5] for row in reasons_table("04", tmp_path).rows}
    assert found["ViT, position_std=0.02"] == "+4.00 (one seed)"
    assert found["ViT, position_std=0.02, against rope"] == "+1.00 (one seed)"


def test_other_training_is_no_pair_and_nothing_recorded_says_so(tmp_path):
    write_record(vip(47.0, 0, "relu", lr=2e-3), tmp_path)
    write_record(vip(33.0), tmp_path)
    assert reasons_table("02", tmp_path).rows[0][3:] == [NOT_MEASURED, NOT_MEASURED, "-", "-"]
    assert len(reasons_table(results=tmp_path).rows) == len(EXPERIMENTS) + len(RECIPES)
    with pytest.raises(ValueError, match="notebook='05' is unknown"):
        reasons_table("05")


def test_recipes_compare_the_same_model_trained_as_long_on_the_same_pictures(tmp_path):
    for recipe, device in product(RECIPES, ("cpu", "cuda")):
        changed, plain = (PROFILES[name].on(device) for name in (recipe.profile, recipe.plain))
        assert (changed.data, changed.config, changed.options, changed.train.epochs, changed.train.batch_size) == \
            (plain.data, plain.config, plain.options, plain.train.epochs, plain.train.batch_size)
        assert changed.train != plain.train
    recipe = RECIPES[0]
    for seed, (modern, paper) in enumerate(((72.0, 70.0), (75.0, 71.0))):
        write_record(record(recipe.model, "learned", modern, seed=seed, lr=2e-3, profile=recipe.profile), tmp_path)
        write_record(record(recipe.model, "learned", paper, seed=seed, profile=recipe.plain), tmp_path)
    write_record(record(recipe.model, "rope", 99.0, lr=2e-3, profile=recipe.profile), tmp_path)  # no plain run of these
    row = next(row for row in reasons_table(recipe.notebook, tmp_path).rows if row[0] == recipe.question)
    # differences 2 and 4: mean 3, standard deviation √2, t(0.975, 1) = 12.706: 3 ± 12.706
    assert row[2:6] == [f"{recipe.model}, profile {recipe.profile}", "73.50", "70.50", "+3.00 ± 12.71 (n=2)"]
    header = "".join(vix.compare(3, results=tmp_path).header)
    assert recipe.plain + ":" not in header  # a column of one system compares nothing
    assert "not shown: long of HybridViT; long-modern of HybridViT" in str(vix.compare(3, results=tmp_path))
    write_record(record("ViT", "learned", 60.0, profile=recipe.plain), tmp_path)
    write_record(record("ViN", "learned", 60.0, profile=recipe.plain), tmp_path)
    assert recipe.plain + ":" in "".join(vix.compare(1, results=tmp_path).header)


def test_what_was_trained_for_a_recipe_alone_is_no_column_and_all_else_is_one(tmp_path):
    write_record(record("CPV", "none", 40.0, profile="quick"), tmp_path)
    assert "quick:" in "".join(vix.compare("cxv", results=tmp_path).header)  # nothing to compare it with yet
    for model in ("CPV", "CLTV"):  # each for a recipe of its own
        write_record(record(model, "none", 50.0, lr=3e-4, profile="quick-slow"), tmp_path)
    write_record(record("CvT", "none", 45.0, profile="quick"), tmp_path)
    header = "".join(vix.compare("cxv", results=tmp_path).header)
    assert "quick:" in header and "quick-slow:" not in header
    assert "not shown: quick-slow of CLTV, CPV: trained" in str(vix.compare("cxv", results=tmp_path))
    write_record(record("CvT", "none", 55.0, lr=3e-4, profile="quick-slow"), tmp_path)
    assert "quick-slow:" in "".join(vix.compare("cxv", results=tmp_path).header)


def test_an_experiment_is_no_seed_of_the_table(tmp_path):
    write_record(record("ViT", "learned", 45.0), tmp_path)
    write_record(vip(33.0), tmp_path)
    write_record(vip(47.0, 0, "relu"), tmp_path)
    assert [r["last_top1"] for r in read_records(tmp_path, model="ViP")] == [33.0]
    assert [r["last_top1"] for r in read_records(tmp_path, table=VARIANTS)] == [47.0]
    assert [found.mean for found in compared("ViP", "ViT", read_records(tmp_path))] == [pytest.approx(-12)]
    row = next(row for row in vix.compare(1, results=tmp_path).rows if row[0] == "ViP")
    assert any("33.00" in cell for cell in row) and not any("47.00" in cell for cell in row)
