"""torch.compile in training: the rule of "auto", the same run up to rounding, and mixers that stay in one graph."""
from __future__ import annotations

from functools import partial

import pytest
import torch

import vixlib as vix
from vixlib.compiling import FEWEST_STEPS, compiles

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY = {"image_size": 8, "patch_size": 2, "dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "mlp_dim": 24}


@pytest.mark.parametrize(("wanted", "device", "steps", "capability", "expected"), [
    ("auto", CUDA, FEWEST_STEPS, (8, 0), True), ("auto", CUDA, FEWEST_STEPS - 1, (9, 0), False),
    ("auto", CUDA, 10 * FEWEST_STEPS, (7, 5), False), ("auto", CPU, 10 * FEWEST_STEPS, None, False),
    (True, CPU, 1, None, True), (False, CUDA, 10 * FEWEST_STEPS, (9, 0), False)])
def test_auto_compiles_where_it_pays(wanted, device, steps, capability, expected):
    assert compiles(wanted, device, steps, capability) is expected


def test_an_unknown_choice_is_named():
    with pytest.raises(ValueError, match="compile='yes' is unknown"):
        vix.TrainConfig(compile="yes")


def test_a_compiled_run_is_the_same_and_says_what_the_first_step_took(monkeypatch, capsys):
    # Graphs are traced as ever, but run by PyTorch itself: the compiler would take most of a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    data = vix.load("shapes", train=24, test=10)  # a last batch of 8
    runs = {}
    for compile in (False, True):
        torch.manual_seed(0)
        model = vix.build("ViP", **{**TINY, "image_size": data.image_size, "patch_size": 8})
        runs[compile] = vix.fit(model, data, vix.TrainConfig(epochs=2, batch_size=16, compile=compile), device="cpu")
    assert [epoch["loss"] for epoch in runs[True].history] == pytest.approx(
        [epoch["loss"] for epoch in runs[False].history], rel=1e-5)
    said = capsys.readouterr()
    assert (said.out + said.err).count("torch.compile: the first forward pass took") == 1


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["ViT", "ViP", "ViL", "ViN", "FNet"])
def test_a_mixer_is_one_graph(name, half):
    model = vix.build(name, **TINY, **{"ViL": {"rank": 4}, "ViN": {"num_landmarks": 4}}.get(name, {}))
    images = torch.randn(2, 3, 8, 8)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)  # raises at the first break
    plain, traced = [], []
    for found, computed in ((plain, model), (traced, compiled)):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            scores = computed(images)
        found += torch.autograd.grad(scores.float().square().sum(), list(model.parameters()))
    for a, b in zip(plain, traced, strict=True):
        assert (a - b).norm() <= (0.02 if half else 1e-5) * a.norm() + 1e-8
