"""The first minutes on a GPU: what runs there alone, held to what the CPU gives. Skipped where there is none."""
from __future__ import annotations

import copy
import subprocess
import sys
import warnings

import pytest
import torch
from gains import awake

import vixlib as vix
from benchmarks import peers
from benchmarks.stacks import Shape
from vixlib.device import device_name
from vixlib.kernels import training_kernels
from vixlib.measure.memory import MARGIN
from vixlib.precision import computing_in
from vixlib.train.loop import _prepare, _train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
DEVICE = torch.device("cuda")
SMALL = {"patch_size": 4, "dim": 64, "heads": 2, "dim_head": 32, "mlp_dim": 64, "depth": 2, "depths": (1, 1),
         "num_landmarks": 16, "rank": 16, "dropout": 0.0}
COMPILED = ("ViT", "ViP", "ViL", "ViN", "FNet", "HybridViN", "LeViT", "CCP", "CvT", "CPV")
FEW = ("ViT", "ViP", "ViN", "CPV")  # where another way of compiling is tried: each compilation takes many seconds


def small(name: str, **more) -> torch.nn.Module:
    return awake(vix.build(name, seed=0, **vix.applicable(name, {**SMALL, **more})))


def shapes(train: int = 72) -> vix.ImageData:
    return vix.load("shapes", train=train, test=20)


def gradients(model: torch.nn.Module, images: torch.Tensor, precision: str = "float32") -> dict[str, torch.Tensor]:
    """Of each parameter, on the CPU."""
    named = dict(model.named_parameters())
    with training_kernels(deterministic=False), computing_in(precision, images):
        loss = model(images).float().square().mean()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: gradient.cpu() for name, gradient in zip(named, found, strict=True) if gradient is not None}


def apart(found: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """The difference of all gradients together, relative to their size."""
    assert found.keys() == right.keys()
    difference, size = (torch.stack([torch.linalg.vector_norm(value) for value in values]).norm()
                        for values in ([found[name] - right[name] for name in right], right.values()))
    return (difference / size).item()


@pytest.mark.parametrize("name", vix.names())
def test_a_gpu_computes_what_a_cpu_does(name):
    model, images = small(name).eval(), torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    scores, right = model(images).detach(), gradients(model, images)
    model.to(DEVICE)
    with training_kernels(deterministic=False):
        torch.testing.assert_close(model(images.to(DEVICE)).cpu(), scores, rtol=1e-3, atol=1e-4)
    assert apart(gradients(model, images.to(DEVICE)), right) < 1e-3
    mixed = vix.pick_precision(DEVICE)
    assert apart(gradients(model, images.to(DEVICE), mixed), right) < (0.15 if mixed == "bfloat16" else 0.05)


@pytest.mark.parametrize(("name", "mode"), [*((name, "default") for name in COMPILED),
                                            *((name, "reduce-overhead") for name in FEW)])
def test_a_compiled_model_has_the_gradients_of_the_plain_one(name, mode):
    model, images = small(name).eval().to(DEVICE), torch.randn(8, 3, 32, 32, device=DEVICE)
    right = gradients(model, images)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(model), mode=mode, dynamic=False)
    for _ in range(3):  # the first makes, the second records, the third replays
        torch.compiler.cudagraph_mark_step_begin()
        found = {name.removeprefix("_orig_mod."): value for name, value in gradients(compiled, images).items()}
    assert apart(found, right) < 1e-3
    torch.compiler.reset()


@pytest.mark.parametrize("compile", [False, "graphs"])
@pytest.mark.parametrize("name", COMPILED)
def test_a_run_is_that_of_a_cpu_up_to_rounding(name, compile):
    config = vix.TrainConfig(epochs=2, batch_size=32, precision="float32", compile=compile)  # a last batch of 8
    ours, right = (vix.fit(small(name), shapes(), config, device=device, progress=False)
                   for device, config in ((DEVICE, config), ("cpu", vix.TrainConfig(epochs=2, batch_size=32))))
    assert [epoch["loss"] for epoch in ours.history] == pytest.approx([e["loss"] for e in right.history], rel=0.02)
    assert ours.device == device_name(DEVICE)


@pytest.mark.parametrize("name", vix.names())
def test_mixed_precision_trains_every_system_and_deterministic_runs_are_equal_bit_for_bit(name):
    config = vix.TrainConfig(epochs=2, batch_size=32, deterministic=True)
    models = [small(name), small(name)]
    first, second = (vix.fit(model, shapes(), config, device=DEVICE, progress=False) for model in models)
    assert [epoch["loss"] for epoch in first.history] == [epoch["loss"] for epoch in second.history]
    for a, b in zip(*(model.state_dict().values() for model in models), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", FEW)
def test_deterministic_runs_through_graphs_are_equal_bit_for_bit(name):
    config = vix.TrainConfig(epochs=2, batch_size=32, deterministic=True, compile="graphs")
    first, second = (vix.fit(small(name), shapes(), config, device=DEVICE, progress=False) for _ in range(2))
    assert [epoch["loss"] for epoch in first.history] == [epoch["loss"] for epoch in second.history]


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize(("table", "name"), [("1", "ViN"), ("4", "LeViT")])  # LeViT normalises batches
def test_a_run_over_two_gpus_is_that_of_one(tmp_path, table, name):
    losses = []
    for launcher in ([], ["-m", "torch.distributed.run", "--nproc_per_node=2"]):
        place = tmp_path / str(len(launcher))
        subprocess.run([sys.executable, *launcher, "-m", "vixlib.reproduce", "--table", table, "--profile", "smoke",
                        "--data", "shapes", "--models", name, "--jobs", "1", "--results", place / "results",
                        "--checkpoints", place / "checkpoints"], check=True)
        record, = vix.read_records(place / "results")
        assert record["device"].startswith("2 x ") == bool(launcher)
        losses.append([epoch["loss"] for epoch in record["history"]])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("region", [torch.no_grad, torch.inference_mode])
def test_nothing_moves_to_the_cpu_inside_a_region_without_gradients(region):
    model = small("ViT").to(DEVICE)
    with region(), warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = vix.predict(model, shapes().test_images, device=DEVICE)
    assert next(model.parameters()).is_cuda and answers.shape == (20, 10)


def test_an_overflow_of_float16_skips_the_step_and_changes_no_bit():
    model = small("ViT")
    training, data = _prepare(model, shapes(32), vix.TrainConfig(batch_size=32, precision="float16"), DEVICE)
    training.enter_phase(1)
    training.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**60)
    before = copy.deepcopy(model.state_dict())

    class Bar:
        def update(self) -> None:
            pass

    _train(training, data, Bar())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert training.scaler.get_scale() < 2.0**60


@pytest.mark.parametrize("size", [64, 128])
def test_attention_with_as_many_keys_as_landmarks_has_finite_gradients(size):
    """Where cuDNN's kernels are known to fail, and scores are as far apart as a trained model's."""
    mixed = getattr(torch, vix.pick_precision(DEVICE))
    q, k, v = (12 * torch.randn(4, 4, length, 32, device=DEVICE, dtype=mixed) for length in (1025, size, size))
    with training_kernels(deterministic=False):
        inputs = [tensor.requires_grad_() for tensor in (q, k, v)]
        torch.nn.functional.scaled_dot_product_attention(*inputs).float().square().mean().backward()
    assert all(tensor.grad.isfinite().all() for tensor in inputs)


@pytest.mark.parametrize("name", vix.names())
def test_memory_is_what_was_predicted(name):
    # Fourier transforms of 257 tokens, a prime number, take a workspace of their library's that nothing can predict.
    model = small(name, patch_size=4 if "FNet" in name else 2)
    predicted = vix.predict_peak_memory(model, 256, vix.pick_precision(DEVICE)).bytes
    measured = vix.peak_memory(model.to(DEVICE), 256).bytes
    workspace = 64 * 2**20  # what cuBLAS takes once for all products, and no model decides
    assert measured < MARGIN * predicted + workspace and predicted < 1.35 * measured


def which_kernels(ours: torch.nn.Module) -> torch.nn.Module:
    raise RuntimeError(f"cuDNN's attention: {torch.backends.cuda.cudnn_sdp_enabled()}")


def test_a_pair_in_a_process_of_its_own_computes_by_the_kernels_of_a_training():
    torch.zeros(1, device=DEVICE)
    with training_kernels(deterministic=False):
        right = torch.backends.cuda.cudnn_sdp_enabled()
    with pytest.raises(RuntimeError, match=f"cuDNN's attention: {right}"):
        peers.in_own_process(peers.compare, "ViT", "", Shape(batch=1), DEVICE, 0, 1, which_kernels)


def test_graphs_give_their_memory_back():
    config = vix.TrainConfig(epochs=1, batch_size=32, compile="graphs")
    model = small("ViT")
    vix.fit(model, shapes(), config, device=DEVICE, progress=False)
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(DEVICE) < torch.cuda.memory_allocated(DEVICE) + 64 * 2**20


def test_a_checkpoint_goes_from_a_gpu_to_a_cpu_and_back(tmp_path):
    path, config = tmp_path / "run.pt", vix.TrainConfig(epochs=3, batch_size=32, precision="auto")
    for device in (DEVICE, "cpu", DEVICE):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="checkpoint .* goes on here")
            run = vix.fit(small("ViN"), shapes(), config, checkpoint=path, device=device, minutes=1e-9, progress=False)
    assert run.finished and len(run.calls) == 3
