"""Numbers stay numbers, failures say where and what then: precision, divergence, memory, determinism, README."""
from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from test_properties import TINY, pictures
from test_train import colours, net, same_weights, train
from torch import nn

import vixlib as vix
from vixlib.kernels import training_kernels
from vixlib.measure import limits
from vixlib.mixers import MIXERS, newton_schulz
from vixlib.mixers.nystrom import IterativeInverse
from vixlib.precision import HALF
from vixlib.train import loop as trainer

# Of the output's norm, against float64. The largest seen, up to 1025 tokens: 2.5e-6, 0.9 %, 0.09 %.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.02, torch.float16: 0.003}
N, DIM = 65, 32
OWN = {"linformer": {"rank": 16}, "nystrom": {"num_landmarks": 16}}


def inputs(tokens: int = N) -> dict[str, torch.Tensor]:
    """Tokens `[2, N, DIM]`: random ones, all equal (a black or a grey picture), and ones with large scores."""
    noise = torch.randn(2, tokens, DIM, generator=torch.Generator().manual_seed(0))
    return {"random": noise, "black": torch.zeros_like(noise), "constant": noise[:, :1].expand_as(noise).clone(),
            "large": 30 * noise}


def mixer(name: str, dtype: torch.dtype = torch.float32, tokens: int = N) -> nn.Module:
    torch.manual_seed(0)
    return MIXERS[name](DIM, heads=2, dim_head=16, seq_len=tokens, **OWN.get(name, {})).to(dtype)


@pytest.mark.parametrize("name", vix.names())
def test_models_of_every_type_compute_under_autocast(name):
    """As modules of torch's own do: float64 stays what it is, half-precision weights meet a float32 residual stream."""
    model = vix.build(name, seed=0, **vix.applicable(name, {**TINY, "channels": 3})).eval()
    images = pictures(2, 3, 8, 8) if name != "ResNet18" else pictures(2, 3, 32, 32)
    plain, exact = model(images), copy.deepcopy(model).double()(images.double())
    for gradients in (True, False):
        for half in HALF:
            with torch.set_grad_enabled(gradients), torch.autocast("cpu", half):
                scores = copy.deepcopy(model).to(half)(images.to(half)).float()
            assert (scores - plain).abs().max() < 0.1 * plain.abs().max()
        with torch.set_grad_enabled(gradients), torch.autocast("cpu", torch.bfloat16):
            wide = copy.deepcopy(model).double()(images.double())
        assert wide.dtype == torch.float64 and torch.allclose(wide, exact, rtol=0, atol=1e-12)


def mix_and_back(made: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The output; asserts that it and all gradients are finite."""
    x = x.clone().requires_grad_()
    out = made(x)
    out.float().mean().backward()  # as a loss is: gradients of its size, not of a sum over all
    assert out.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())
    return out.detach()


@pytest.mark.parametrize("what", ["random", "black", "constant", "large"])
@pytest.mark.parametrize("how", ["float32", "bfloat16", "float16", "autocast bfloat16", "autocast float16"])
@pytest.mark.parametrize("name", list(MIXERS))
def test_every_mixer_is_finite_and_near_float64_in_every_precision(name, how, what):
    dtype = getattr(torch, how.split()[-1])
    x = inputs()[what]
    if how.startswith("autocast") or how == "float32":
        with torch.autocast("cpu", dtype, enabled=how != "float32"):
            out = mix_and_back(mixer(name), x)
    else:
        out = mix_and_back(mixer(name, dtype), x.to(dtype))
    if what == "large":  # attention is a choice among tokens then, and rounding may choose another one
        return
    exact = mixer(name).double()(x.double())
    assert (out.double() - exact).norm() <= BOUNDS[dtype] * exact.norm() + 1e-6


@pytest.mark.parametrize("what", ["random", "black"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", list(MIXERS))
def test_half_precision_holds_on_the_papers_1025_tokens(name, dtype, what):
    x = inputs(1025)[what]
    with torch.autocast("cpu", dtype):
        out = mix_and_back(mixer(name, tokens=1025), x)
    with torch.no_grad():
        exact = mixer(name, tokens=1025).double()(x.double())
    assert (out.double() - exact).norm() <= BOUNDS[dtype] * exact.norm() + 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("m", [1, 2, 16, 64, 256])
def test_the_pseudo_inverse_of_equal_landmarks_is_theirs(m, dtype):
    equal = torch.full((2, m, m), 1 / m, dtype=dtype).requires_grad_()  # every landmark attends to all alike
    inverse = IterativeInverse.apply(equal, 6)
    inverse.mean().backward()
    assert inverse.isfinite().all() and equal.grad.isfinite().all()
    assert torch.allclose(inverse, equal, atol=1e-5)  # J/m is its own pseudo-inverse
    nearly = (equal.detach() + 1e-6 * torch.rand(2, m, m, dtype=dtype)).softmax(-1)
    assert newton_schulz(nearly, 6).isfinite().all()


# ---- divergence -------------------------------------------------------------------------------------------------

def test_divergence_names_epoch_step_and_parameter_and_keeps_the_last_good_checkpoint(tmp_path):
    path, model, steps = tmp_path / "run.pt", net(), []

    def ruin(gradient):
        steps.append(1)
        return gradient * torch.inf if len(steps) == 4 + 4 + 3 else gradient  # an epoch has four steps

    model.layers[0].bias.register_hook(ruin)
    message = r"parameter layers\.0\.bias became infinite or NaN, while the loss was still \d.* at epoch 3, step 3 of 4"
    with pytest.raises(FloatingPointError, match=rf"{message}.*lower lr.*run\.pt keeps the run up to epoch 2") as error:
        train(model=model, checkpoint=path, epochs=5)
    assert len(error.value.run.history) == 2
    resumed, run = train(checkpoint=path, epochs=5)
    assert run.finished and same_weights(resumed, train(epochs=5)[0])


def test_a_loss_that_overflows_names_the_step_and_what_it_ruins():
    with pytest.raises(FloatingPointError, match=r"(loss|parameter) .* at epoch 1, step \d of 4.*lower lr than 1e\+30"):
        train(lr=1e30)


@pytest.mark.parametrize("name", vix.names())
def test_a_model_made_half_precision_runs_and_is_near(name):
    model = vix.build(name, seed=0, **vix.applicable(name, TINY)).eval()
    x = pictures(3, 3, 8, 8)
    with torch.no_grad():
        exact, half = model(x), model.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16 and (half.float() - exact).norm() < 0.1 * exact.norm()


def test_the_exact_inverse_gives_a_broken_picture_no_scores_and_the_others_theirs():
    model = vix.build("ViN", seed=0, iterations=None, **vix.applicable("ViN", TINY)).eval()
    x = pictures(3, 3, 8, 8)
    whole = model(x)
    x[1, 0, 0, 0] = torch.nan
    broken = model(x)
    assert broken[1].isnan().all() and torch.allclose(broken[[0, 2]], whole[[0, 2]], atol=1e-5)


# ---- memory -----------------------------------------------------------------------------------------------------

def full_card(monkeypatch, room: int) -> None:
    """Let whatever trains on more than `room` pictures run out of memory, as torch says it."""
    def forward(self, images):
        if len(images) > room and self.training:
            raise torch.OutOfMemoryError("simulated: tried to allocate 20 MiB")
        return self.layers(images)

    monkeypatch.setattr(type(net()), "forward", forward)


@pytest.mark.parametrize("room", [0, 1, 7, 15])
def test_out_of_memory_says_the_largest_batch_that_fits_and_leaves_the_model_usable(monkeypatch, room):
    full_card(monkeypatch, room)
    model, data = net(), colours()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    advice = f"the largest that fits is batch_size={room}" if room else "not even one picture fits"
    with pytest.raises(torch.OutOfMemoryError, match=f"^batch_size=16 needs more memory than CPU.* has free; {advice}"):
        train(model=model, data=data, batch_size=16)
    assert all(p.grad is None for p in model.parameters()) and not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    if room > 1:
        assert train(model=model, data=data, batch_size=room)[1].finished


def test_what_will_not_fit_is_said_before_the_run(monkeypatch):
    model = vix.build("ViT", **vix.applicable("ViT", TINY))
    ask = (model, 64, "float32", (8, 8), torch.device("cpu"))
    assert limits.memory_problem(*ask) is None  # a CPU's memory is not counted
    needed = vix.predict_peak_memory(model, 64, "float32").bytes
    for free, fits in ((2 * needed, True), (needed // 2, False)):
        monkeypatch.setattr(limits, "free_bytes", lambda device, free=free: free)
        problem = limits.memory_problem(*ask)
        assert (problem is None) == fits
    words = r"batch_size=64 is predicted to need .* GiB free; use at most about batch_size=(\d+)"
    most = int(re.search(words, problem)[1])
    assert 0 < most < 64 and vix.predict_peak_memory(model, most, "float32").bytes <= needed
    class Counting(torch.nn.Module):  # looks into its tensors, which no prediction can follow
        def __init__(self):
            super().__init__()
            self.net = net()

        def forward(self, images):
            return self.net(images) * (1 if images.mean().item() > 0 else 2)

    problem = limits.memory_problem(Counting(), 16, "float32", (8, 8), torch.device("cpu"))
    assert "cannot be predicted for this model" in problem
    monkeypatch.setattr(trainer, "memory_problem", lambda *_: "too little")
    with pytest.warns(RuntimeWarning, match="too little"):
        train(epochs=1)


@pytest.mark.parametrize("words", [
    "FIND was unable to find an engine to execute this computation", "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED", "Triton Error [CUDA]: out of memory",
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "c10/cuda/CUDACachingAllocator.cpp":1015'])
def test_what_libraries_say_without_room_is_out_of_memory(words):
    def attempt(batch):
        if batch > 5:
            raise RuntimeError(words)

    assert limits.largest_batch(attempt, start=8) == 5


def test_a_full_gpu_is_not_taken_for_a_broken_one(monkeypatch):
    def full(device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    for name, value in (("is_available", lambda: True), ("device_count", lambda: 1),
                        ("get_device_name", lambda device: "Tesla T4")):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr("vixlib.device._try_small_step", full)
    with pytest.raises(torch.OutOfMemoryError, match='Tesla T4 has no memory left.*choose device="cpu"'):
        vix.pick_device()


# ---- determinism ------------------------------------------------------------------------------------------------

def one_run(name: str, **settings) -> list[torch.Tensor]:
    options = {"depth": 1} if name == "HybridViP-6/8" else {}
    model = vix.build(name, seed=0, **vix.applicable(name, {**TINY, **options}))
    images = ((pictures(6, 3, 8, 8).clamp(-2, 2) + 2) * 63).to(torch.uint8)
    data = vix.ImageData("made", ("a", "b", "c"), images, torch.arange(6) % 3, images, torch.arange(6) % 3)
    config = vix.TrainConfig(epochs=1, batch_size=3, augment=("flip", "crop"), seed=5, **settings)
    run = vix.fit(model, data, config, device="cpu", progress=False)
    return [*model.state_dict().values(), torch.tensor([run.history[0]["loss"]], dtype=torch.float64)]


@pytest.mark.parametrize("name", vix.names())
def test_the_same_seed_gives_the_same_bits(name):
    first = one_run(name)
    torch.rand(3)  # what ran before must not matter
    assert all(torch.equal(a, b) for a, b in zip(first, one_run(name, deterministic=True), strict=True))


def test_deterministic_settings_hold_for_the_run_alone():
    torch.use_deterministic_algorithms(True, warn_only=True)
    with training_kernels(True):
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    seen = []
    train(epochs=1, deterministic=True, on_epoch=lambda run: seen.append(torch.are_deterministic_algorithms_enabled()))
    assert seen == [True]
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before
    with pytest.raises(KeyError), training_kernels(True):
        raise KeyError
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == before


@pytest.mark.parametrize("name", ["ResNet18", "LeViT"])
def test_batch_normalisation_of_a_single_value_says_what_to_do(name):
    options = {"ResNet18": {"image_size": 8}, "LeViT": {**vix.applicable("LeViT", TINY), "image_size": 2}}[name]
    model = vix.build(name, seed=0, **options)
    alone = pictures(1, 3, *model.image_size)
    with pytest.raises(ValueError, match="one value for each channel.*batch_size that leaves no picture alone"):
        model.train()(alone)
    assert model.eval()(alone).isfinite().all()


# ---- README -----------------------------------------------------------------------------------------------------

def test_every_promise_in_the_readme_names_tests_that_exist():
    root = Path(__file__).resolve().parent.parent
    section = (root / "README.md").read_text().split("## What you can rely on\n")[1].split("\n## ")[0]
    promises = re.split(r"\n *- (?=\*\*)", section)[1:]
    assert len(promises) >= 12
    for promise in promises:
        named = re.findall(r"`(test_\w+)\.py::(test_\w+)`", promise)
        assert named, f"no test keeps: {promise}"
        for file, test in named:
            assert f"def {test}(" in (root / "tests" / f"{file}.py").read_text(), f"{file}.py has no {test}"


def test_nearly_equal_tokens_and_loud_ones_stay_finite():
    noise = torch.randn(2, 65, 128, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    equal = noise[:, :1] + 1e-4 * noise
    for iterations in (6, 20, 30, 40):
        torch.manual_seed(0)
        nystrom = MIXERS["nystrom"](128, heads=4, dim_head=32, seq_len=65, num_landmarks=16, iterations=iterations)
        out = mix_and_back(nystrom, equal)
        exact = copy.deepcopy(nystrom).double()(equal.double())
        # Later iterations invert what is nearly zero, and with it float32's rounding of the landmarks' attention.
        assert iterations > 20 or (out - exact).norm() < 1e-3 * exact.norm()
    with pytest.raises(ValueError, match="iterations=41 lets rounding grow"):
        MIXERS["nystrom"](128, heads=4, dim_head=32, iterations=41)
    for seed in range(20):
        torch.manual_seed(seed)
        mix_and_back(MIXERS["linear"](128, heads=4, dim_head=4, feature_map="elu"), 100 * noise[:, :1].expand_as(noise))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_stored_attention_matrix_stands_the_scores_that_a_fused_one_stands(dtype):
    x = 1e3 * torch.eye(DIM + 1)[:, :DIM].expand(2, DIM + 1, DIM)
    with torch.autocast("cpu", dtype):
        torch.manual_seed(0)
        mixer = MIXERS["softmax"](DIM, heads=2, dim_head=16, fused=False)
        mix_and_back(mixer, x)
    mix_and_back(mixer.to(dtype), inputs()["random"].to(dtype))  # a model made half precision as a whole


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory. Tried to allocate"), MemoryError(), RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried")])
def test_a_full_machine_gives_the_same_message_as_a_full_gpu(error):
    class Full(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Linear(192, 3)

        def forward(self, x):
            if len(x) > 5:
                raise error
            return self.map(x.flatten(1))

    with pytest.raises(torch.OutOfMemoryError, match="batch_size=16 needs .*largest that fits is batch_size=5"):
        train(model=Full())
