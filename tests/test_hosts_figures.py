"""What the figures of LeViT and CCT compute: shapes from hooks, gains over a host's softmax, points, overlays."""
from __future__ import annotations

import pytest
import torch
from blank import BLANK, scored

import vixlib as vix
from vixlib.figures import common as figures
from vixlib.figures import hosts
from vixlib.report.records import write_record

SMALL = {"patch_size": 4, "dim": 32, "depth": 2, "heads": 2, "dim_head": 16, "mlp_dim": 32}


def record(model, last, seed=0, position=None, **options):
    values = dict(BLANK)
    position = position or ("learned" if model.startswith("CC") else "none")
    values.update(model=model, seed=seed, **scored(last, last + 1, epochs=2), profile="quick", dataset="shapes",
                  config="uniform", position=position, options={"patch_size": 8, "depth": 1, **options},
                  train={"epochs": 2, "batch_size": 8}, params={"true": 500_000, "as_paper": 500_000}, device="CPU")
    return values


def run(model, top1):
    history = [{"epoch": 1, "loss": 1.0, "top1": top1, "top5": 90.0, "seconds": 1.0}] if top1 is not None else []
    return vix.Run(model, "uniform", {}, "shapes", 100, vix.TrainConfig(epochs=1), "CPU", "float32", history)


def test_trace_sees_every_stage_and_counts_equal_neighbours():
    stages = hosts.trace(vix.build("CCT", **SMALL, image_size=(48, 64), num_classes=7))
    assert [(stage.kind, stage.shape, stage.times) for stage in stages] == [
        ("picture", (3, 48, 64), 1), ("conv", (16, 48, 64), 1), ("max-pool", (16, 24, 32), 1),
        ("conv", (16, 24, 32), 1), ("max-pool", (16, 12, 16), 1), ("conv", (32, 12, 16), 1),
        ("max-pool", (32, 12, 16), 1), ("block", (192, 32), 2), ("one vector", (32,), 1), ("classes", (7,), 1)]
    assert str(stages[1]) == "48×64×16" and str(stages[7]) == "192×32"


def test_trace_sees_cls_and_shrinking():
    kinds = {stage.kind: stage.shape for stage in hosts.trace(vix.build("ViT", **SMALL))}
    assert kinds["linear map"] == (64, 32) and kinds["block"] == (65, 32)
    pyramid = vix.build("LeViT", patch_size=4, dim=(32, 48), depth=(1, 3), attention_bias=True)
    tokens = [(stage.kind, stage.shape, stage.times) for stage in hosts.trace(pyramid) if len(stage.shape) == 2]
    assert tokens == [("block", (64, 32), 1), ("shrink", (16, 48), 1), ("block", (16, 48), 3)]


@pytest.mark.parametrize("model", [None, vix.build("CvT", depths=(1, 1), patch_size=4, dim=16), vix.build("ResNet18")],
                         ids=lambda model: type(model).__name__)
def test_trace_names_a_model_that_it_cannot_follow(model):
    with pytest.raises(TypeError, match=f"must be a ViX, LeViT or CCT, got {type(model).__name__}"):
        hosts.trace(model)


@pytest.mark.parametrize("training", [True, False])
def test_trace_leaves_the_model_as_it_was(training):
    model = vix.build("LeViT", **SMALL).train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hosts.trace(model)
    assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # BatchNorm's averages
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_the_drawing_has_a_rectangle_a_stage_to_scale():
    stages = hosts.trace(vix.build("LeViT", **SMALL))
    figure = hosts.stage_drawing({"LeViT": stages})
    rectangles = figure.axes[0].patches
    assert len(rectangles) == len(stages)
    picture, block = rectangles[0], rectangles[[stage.kind for stage in stages].index("block")]
    assert picture.get_height() == pytest.approx(4 * block.get_height())  # 32 places a side against 8


def test_every_system_of_table_4_has_a_host_and_a_style_of_its_own():
    assert set(hosts.HOST_OF) == {row["model"] for row in vix.paper_table(4)["rows"]}
    styles = {(style["color"], style["linestyle"]) for style in map(hosts.line_style, hosts.HOST_OF)}
    assert len(styles) == 8
    assert all(hosts.MIXER_OF[host] == "softmax" for host in hosts.HOSTS)
    with pytest.raises(ValueError, match="name='x' is unknown"):
        hosts.line_style("x")


def test_gains_of_the_paper(tmp_path):
    found = hosts.gains(results=tmp_path)
    assert list(found) == ["paper"]
    assert found["paper"] == pytest.approx({"LeViP": 2.44, "LeViL": -13.89, "LeViN": 4.76,
                                            "CCP": 0.25, "CCL": -2.18, "CCN": 0.86})


def test_gains_of_records_are_means_over_common_seeds_with_each_hosts_own_positions(tmp_path):
    for name, last, seed in (("LeViT", 40, 0), ("LeViT", 44, 1), ("LeViT", 99, 2), ("LeViN", 50, 0), ("LeViN", 50, 1),
                             ("LeViP", 99, 3), ("CCP", 45, 0), ("CCT", 46, 0)):
        write_record(record(name, float(last), seed), tmp_path)
    write_record(record("CCP", 99.0, position="rope"), tmp_path)
    recorded = {source: gain for source, gain in hosts.gains(results=tmp_path).items() if source.startswith("recorded")}
    assert list(recorded.values()) == [{"LeViN": 8.0, "CCP": -1.0}]


def test_gains_need_the_softmax_of_the_same_host(tmp_path):
    assert "this run" not in hosts.gains([run("LeViN", 50.0), run("CCT", 40.0), run("LeViT", None)], tmp_path)
    assert hosts.gains([run("CCN", 50.0), run("CCT", 40.0)], tmp_path)["this run"] == {"CCN": 10.0}
    with pytest.raises(TypeError, match=r"runs=\[3\]: run=3 must be a Run"):
        hosts.gains([3], tmp_path)


def test_points_are_the_papers_with_true_parameters():
    points = {point.model: point for point in hosts.paper_points()}
    assert (points["LeViN"].memory_gb, points["LeViN"].top1, points["LeViN"].params) == (7.9, 81.82, 625_498)
    assert points["CCT"].params == 905_547 + 1024 * 128  # the position table, which the paper's count leaves out


def test_recorded_points_of_the_hosts(tmp_path):
    write_record(record("LeViT", 40.0), tmp_path)
    write_record(record("CCP", 50.0), tmp_path)
    write_record(record("ViT", 60.0, position="learned"), tmp_path)
    (points,) = hosts.recorded_points(tmp_path).values()
    assert {point.model: point.top1 for point in points} == {"LeViT": 40.0, "CCP": 50.0}
    assert all(point.source == "predicted" and 0 < point.memory_gb < 1 for point in points)


def test_memory_figure_leads_from_softmax_to_each_swap():
    _, ax = figures.new_axes()
    hosts.accuracy_against_memory(ax, hosts.paper_points())
    assert sorted(text.get_text() for text in ax.texts) == sorted(hosts.HOST_OF)
    starts = [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines]
    assert sorted(starts) == [(13.9, 77.06)] * 3 + [(14.7, 82.23)] * 3
    alone = [point for point in hosts.paper_points() if point.model == "CCP"]
    _, ax = figures.new_axes()
    hosts.accuracy_against_memory(ax, alone)
    assert not ax.lines


def test_overlays_have_a_line_each_and_symmetric_evidence():
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    evidence = torch.randn(3, 8, 8) + 1
    figure = hosts.overlays(pictures, torch.rand(3, 8, 8).round(), {"for it": evidence}, ["a", "b", "c"])
    drawn = [ax for ax in figure.axes if ax.images and ax.get_title() in ("a", "b", "c")]
    assert len(drawn) == 3
    heats = [ax.images[1] for ax in figure.axes if len(ax.images) == 2]
    assert len(heats) == 6
    low, high = heats[-1].get_clim()
    assert high == -low
    assert 0.95 < (evidence.abs() <= high).float().mean() < 1
    assert heats[0].norm(1.0) == pytest.approx(0.5)  # an even weight has the colour in the middle
