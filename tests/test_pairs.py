"""Gains and points of the pairs, from the paper's tables, records and runs whose numbers are known."""
from __future__ import annotations

import pytest
import torch
from blank import BLANK, scored

import vixlib as vix
from vixlib.figures import common as figures
from vixlib.figures import live, pairs
from vixlib.report.records import write_record


def record(model, last, seed=0, peak=None, position="learned", **options):
    values = dict(BLANK)
    values.update(model=model, seed=seed, **scored(last, last + 1, epochs=2), profile="quick", dataset="shapes",
                  config="uniform", position=position, options={"patch_size": 8, "depth": 1, **options},
                  train={"epochs": 2, "batch_size": 8}, params={"true": 500_000, "as_paper": 500_000},
                  peak_memory_bytes=peak, device="CPU")
    return values


def run(model, top1, dataset="shapes", images=100, options=None, **train):
    settings = vix.TrainConfig(**{"epochs": 1, **train})
    history = [{"epoch": 1 + number, "loss": 1.0, "top1": top1, "top5": 90.0, "seconds": 1.0}
               for number in range(settings.epochs if top1 is not None else 0)]
    return vix.Run(model, "uniform", options or {}, dataset, images, settings, "CPU", "float32", history)


def test_gains_of_the_paper_and_the_logs(tmp_path):
    found = pairs.gains(results=tmp_path)
    assert found["paper"] == pytest.approx({"ViT": 18.27, "ViP": 16.54, "ViL": 21.92, "ViN": 10.19})
    # ViL's log ends after two epochs, ViP's was continued from a checkpoint: neither is half of a pair.
    assert found["authors' logs"] == pytest.approx({"ViT": 74.07 - 56.82})
    assert list(found) == ["paper", "authors' logs"]


def test_gains_of_records_are_means_over_common_seeds_and_of_learned_positions(tmp_path):
    for name, last, seed in (("ViT", 40, 0), ("ViT", 44, 1), ("ViT", 99, 2), ("HybridViT", 50, 0), ("HybridViT", 50, 1),
                             ("ViN", 45, 0)):
        write_record(record(name, float(last), seed), tmp_path)
    write_record(record("HybridViT", 99.0, position="rope"), tmp_path)
    recorded = {source: gain for source, gain in pairs.gains(results=tmp_path).items() if source.startswith("recorded")}
    assert list(recorded.values()) == [{"ViT": 8.0}]
    assert "shapes, patch 8, 2 epochs" in next(iter(recorded))


def test_gains_of_this_run_need_both_halves(tmp_path):
    assert pairs.gains([run("ViT", 20.0), run("HybridViT", 19.0)], tmp_path)["this run"] == {"ViT": -1.0}
    assert "this run" not in pairs.gains([run("ViT", 20.0), run("HybridViT", None)], tmp_path)
    own = run("Mine", 50.0, options={"position": "mine"})  # of other systems nothing is asked
    assert pairs.gains([run("ViT", 20.0), run("HybridViT", 19.0), own], tmp_path)["this run"] == {"ViT": -1.0}
    with pytest.raises(TypeError, match=r"runs=\[3\]: run=3 must be a Run"):
        pairs.gains([3], tmp_path)


@pytest.mark.parametrize("other", [{"options": {"position": "rope"}}, {"lr": 0.1}, {"epochs": 2}, {"dataset": "mine"},
                                   {"images": 50}, {"seed": 1}, {"options": {"patch_size": 4}}])
def test_gains_of_this_run_are_of_equal_settings(tmp_path, other):
    assert "this run" not in pairs.gains([run("ViT", 20.0, **other), run("HybridViT", 30.0)], tmp_path)
    both = [run("ViT", 20.0, **other), run("HybridViT", 25.0, **other)]  # equal again, another pair than the first
    found = pairs.gains([run("ViT", 20.0), run("HybridViT", 30.0), *both], tmp_path)
    if "seed" in other:
        assert found["this run"] == {"ViT": 7.5}
    else:
        assert sorted([found["this run"]["ViT"], found["this run (2)"]["ViT"]]) == [5.0, 10.0]


def test_options_of_one_half_do_not_keep_a_pair_apart(tmp_path):
    hybrid = run("HybridViT", 30.0, options={"normalisation": "batch"})
    assert pairs.gains([run("ViT", 20.0), hybrid], tmp_path)["this run"] == {"ViT": 10.0}


def test_points_say_whether_memory_was_measured(tmp_path):
    write_record(record("ViT", 40.0, peak=3 * 2**30), tmp_path)
    write_record(record("HybridViT", 50.0), tmp_path)
    (points,) = pairs.recorded_points(tmp_path).values()
    plain, hybrid = sorted(points, key=lambda point: point.top1)
    assert (plain.source, plain.memory_gb, plain.top1) == ("measured", 3.0, 40.0)
    assert hybrid.source == "predicted" and 0 < hybrid.memory_gb < 1


def test_another_setting_is_a_point_of_its_own_and_no_seed(tmp_path):
    write_record(record("ViT", 40.0), tmp_path)
    write_record(record("ViT", 50.0, seed=1), tmp_path)
    other = record("ViT", 10.0, seed=2)
    other["train"]["lr"] = 0.5
    write_record(other, tmp_path)
    (points,) = pairs.recorded_points(tmp_path).values()
    assert sorted(point.top1 for point in points) == [10.0, 45.0]


def test_the_papers_points_are_its_tables_with_true_parameters():
    points = {point.model: point for point in pairs.paper_points()}
    assert set(points) == set(pairs.SYSTEMS)
    assert (points["HybridViN"].memory_gb, points["HybridViN"].top1) == (6.7, 76.66)
    assert points["ViP"].params < 1_000_000  # printed: 1,588,234, the transformer counted twice


def test_figure_4_shows_every_system_once_and_each_style_in_the_legend(tmp_path):
    write_record(record("ViT", 40.0), tmp_path)
    (recorded,) = pairs.recorded_points(tmp_path).values()
    _, ax = figures.new_axes()
    pairs.accuracy_against_memory(ax, pairs.paper_points() + recorded)
    assert sorted(text.get_text() for text in ax.texts) == sorted([*pairs.SYSTEMS, "ViT"])
    assert len(ax.lines) == 4  # from each ViX to its Hybrid; the recorded ViT has none
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["the paper", "recorded here, memory predicted", "area of 1 M parameters"]


def test_fractions_are_read_and_refused_at_once():
    assert pairs.fractions_of("0.5, 0.1,") == [0.1, 0.5] and pairs.fractions_of("") == []
    for text in ("50%", "2", "0", "half"):
        with pytest.raises(ValueError, match=f"fractions='{text}' must be numbers above 0"):
            pairs.fractions_of(text)
    for given in (5, None, ["0.5"]):
        with pytest.raises(TypeError, match="fractions=.* must be a text"):
            pairs.fractions_of(given)


def test_a_curve_of_no_pair_is_named():
    with pytest.raises(ValueError, match="name='x' is unknown; use one of 'ViT'"):
        pairs.line_style("x")


def test_points_leave_the_random_numbers_alone(tmp_path):
    write_record(record("ViT", 40.0), tmp_path)
    state = torch.get_rng_state()
    assert pairs.paper_points() and pairs.recorded_points(tmp_path)
    assert torch.equal(state, torch.get_rng_state())


def test_the_authors_curve_lies_behind_a_run_on_their_data():
    history = [{"epoch": epoch, "loss": 1.0, "top1": 40.0, "top5": 90.0, "seconds": 1.0} for epoch in (1, 2)]
    logs = {}
    for dataset in ("cifar10", "shapes"):
        run = vix.Run("ViT", "uniform", {}, dataset, 100, vix.TrainConfig(epochs=3), "CPU", "float32", history)
        logs[dataset] = live._authors_curve(run)
    assert logs["shapes"] == [] and logs["cifar10"] == vix.authors_runs("ViT")[0]["top1"][:3]
    _, ax = figures.new_axes()
    live.learning_curves(ax, {"ViT": [40.0, 40.0]}, {"ViT": logs["cifar10"]}, pairs.line_style)
    assert [line.get_label() for line in ax.lines] == ["ViT", "ViT, authors' log"]
