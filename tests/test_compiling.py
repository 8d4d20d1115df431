"""torch.compile in training: the rule of "auto", the same run up to rounding, and mixers that stay in one graph."""
from __future__ import annotations

from functools import partial

import pytest
import torch
from gains import awake

import vixlib as vix
from vixlib.train.compiling import FEWEST_STEPS, Compiled, compile_mode

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TINY = {"image_size": 8, "patch_size": 2, "dim": 16, "depth": 1, "heads": 2, "dim_head": 8, "mlp_dim": 24}


@pytest.mark.parametrize(("wanted", "device", "steps", "capability", "expected"), [
    ("auto", CUDA, FEWEST_STEPS, (8, 0), "default"), ("auto", CUDA, FEWEST_STEPS - 1, (9, 0), None),
    ("auto", CUDA, 10 * FEWEST_STEPS, (7, 5), None), ("auto", CPU, 10 * FEWEST_STEPS, None, None),
    (True, CPU, 1, None, "default"), ("graphs", CUDA, 1, (7, 5), "reduce-overhead"),
    (False, CUDA, 10 * FEWEST_STEPS, (9, 0), None)])
def test_auto_compiles_where_it_pays(monkeypatch, wanted, device, steps, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert compile_mode(wanted, device, steps) == expected


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
    # The compiler's time is no part of the speed.
    assert [runs[compile].timed_epochs for compile in (False, True)] == [2, 1]
    assert runs[True].images_per_second == 24 / runs[True].train_seconds
    assert [epoch["loss"] for epoch in runs[True].history] == pytest.approx(
        [epoch["loss"] for epoch in runs[False].history], rel=1e-5)
    said = capsys.readouterr()
    assert (said.out + said.err).count("torch.compile: the first forward pass took") == 1


def test_the_compiler_does_not_give_up_after_some_models(monkeypatch):
    """It compiles a function eight times at most; the ninth model of a class would run as it is, a warning apart."""
    graphs = []
    compiler = partial(torch.compile, backend=lambda graph, _: graphs.append(graph) or graph)
    monkeypatch.setattr(torch, "compile", compiler)
    images = torch.randn(2, 3, 8, 8)
    for seed in range(10):
        with torch.no_grad():
            Compiled(vix.build("FNet", seed=seed, **vix.applicable("FNet", TINY)), "default", lambda _: None)(images)
    assert len(graphs) == 10


def test_the_last_batch_of_an_epoch_has_a_graph_of_its_own(monkeypatch):
    """torch would compile the second size as any size, and run all later batches with those slower kernels."""
    graphs, ran = [], []

    def backend(graph, _):
        graphs.append(graph)
        number = len(graphs)
        return lambda *inputs: ran.append(number) or graph(*inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    compiled = Compiled(torch.nn.Flatten(), "default", lambda _: None)
    for size in (4, 4, 3, 4, 4, 3):
        compiled(torch.randn(size, 3, 2, 2))
    assert ran == [1, 1, 2, 1, 1, 2]


def test_graphs_are_a_mode_of_the_compiler_and_may_reuse_what_a_step_left(monkeypatch):
    asked, begun = [], []
    monkeypatch.setattr(torch, "compile", lambda model, mode, **_: asked.append(mode) or model)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(True))
    data = vix.load("shapes", train=24, test=10)
    reset, left = torch.compiler.reset, []  # gradients at that moment, which would lie in memory that it frees
    model = vix.build("ViT", **TINY | {"image_size": data.image_size, "patch_size": 8})
    monkeypatch.setattr(torch.compiler, "reset", lambda: left.append([
        name for name, weight in model.named_parameters() if weight.grad is not None]) or reset())
    vix.fit(model, data, vix.TrainConfig(epochs=1, batch_size=8, compile="graphs"), device="cpu", progress=False)
    assert left[-1] == []
    assert asked == ["reduce-overhead"] and len(begun) == 3


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("name", "position"), [
    *((name, "learned") for name in ("ViT", "ViP", "ViL", "ViN", "FNet")), ("ViT", "rope"), ("ViL", "rope2d")])
def test_a_mixer_is_one_graph(name, position, half):
    model = vix.build(name, position=position, **TINY,
                      **{"ViL": {"rank": 4}, "ViN": {"num_landmarks": 4}}.get(name, {}))
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


@pytest.mark.parametrize("name", ["ViN", "CCP"])
def test_blocks_that_are_computed_again_may_be_compiled(name):
    options = {**TINY, **vix.applicable(name, {"num_landmarks": 4, "dropout": 0.0})}
    plain, thrifty = (vix.build(name, seed=0, checkpointing=on, **options).train() for on in (False, True))
    torch._dynamo.reset()
    for compute in (plain, torch.compile(thrifty, backend="aot_eager")):
        compute(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))).square().sum().backward()
    for a, b in zip(plain.parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("name", ["ViN", "HybridViL", "LeViT", "CvT", "ResNet18"])
def test_a_model_is_exported_for_any_number_of_pictures(name):
    options = {"patch_size": 2, **vix.applicable(name, {"num_landmarks": 16, "rank": 16})}
    model = awake(vix.build(name, seed=0, image_size=16, **options)).eval()
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    any_number = {"images": {0: torch.export.Dim("pictures", min=1, max=64)}}
    exported = torch.export.export(model, (images[:3],), dynamic_shapes=any_number, strict=False).module()
    torch.testing.assert_close(exported(images), model(images))
