"""Measurements against counts made by hand."""
from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import vixlib as vix
from vixlib.measure.limits import real_steps
from vixlib.measure.memory import MARGIN, with_fake_tensors
from vixlib.measure.probe import attention_maps, mixer_inputs
from vixlib.measure.scoring import name_of
from vixlib.measure.step import random_images, training_step
from vixlib.models.zoo import applicable

SMALL = {"image_size": 16, "patch_size": 2, "dim": 32, "depth": 2, "heads": 2, "dim_head": 8, "mlp_dim": 48}


class TwoLayers(nn.Module):
    """relu(x W₁) W₂ on 3·8·8 inputs with 100 hidden units: autograd keeps the input and the hidden activation."""

    image_size, channels = (8, 8), 3

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(192, 100), nn.Linear(100, 10)
        self.scale = nn.Parameter(torch.ones(7))  # a bare parameter, which the paper's count leaves out

    def forward(self, images):
        return self.second(self.first(images.flatten(1)).relu())


@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")],
                         ids=["parallel", "compiled"])
def test_a_wrapped_model_is_the_one_inside(wrap):
    small = {"image_size": 16, "patch_size": 8, "dim": 16, "depth": 1, "num_landmarks": 2, "channels": 1}
    for model in (vix.build("ViN", **small), vix.build("ViP", "paper"), vix.ViN(**small)):
        wrapped = wrap(model)
        assert name_of(wrapped) == name_of(model) and vix.count_parameters(wrapped) == vix.count_parameters(model)
        assert random_images(wrapped, 2, None).shape == random_images(model, 2, None).shape
    model = vix.build("ViN", **small)
    assert vix.saved_bytes_per_image(nn.DataParallel(model)) == vix.saved_bytes_per_image(model)
    with pytest.raises(ValueError, match="ViN is built for image_size=.16, 16., but 'shapes' has"):
        vix.evaluate(wrap(model), vix.load("shapes").subset(0.01))


def test_counts_of_a_model_counted_by_hand():
    count = vix.count_parameters(TwoLayers())
    weights = 192 * 100 + 100 + 100 * 10 + 10
    assert (count.true, count.as_paper) == (weights + 7, weights)


def test_saved_bytes_of_a_model_counted_by_hand():
    # Kept: the input (192), relu's output (100, which the second layer shares), log-softmax's (10), an int64 label.
    assert vix.saved_bytes_per_image(TwoLayers()) == 4 * (192 + 100 + 10) + 8


def packed_for_backward(model: nn.Module, batch: int) -> int:
    """Bytes that autograd asks to keep, by torch's hook on every tensor it packs; parameters and buffers left out."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(torch.randn(batch, 3, 16, 16)).log_softmax(dim=1)[:, 0].sum()
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("name", vix.names())
def test_saved_bytes_are_those_that_autograd_packs(name):
    model = vix.build(name, **applicable(name, {"image_size": 16, "depth": 1}, "uniform")).train()
    packed = (packed_for_backward(model, 4) - packed_for_backward(model, 2)) / 2
    # Beyond these: the pictures, where autograd doesn't keep them, and cross_entropy's label.
    assert 0 <= vix.saved_bytes_per_image(model) - packed <= 4 * 3 * 16 * 16 + 8


def test_materialised_attention_keeps_the_matrices_and_fused_attention_does_not():
    plain, fused = (vix.saved_bytes_per_image(vix.build("ViT", fused=f, **SMALL)) for f in (False, True))
    tokens, heads, depth = 65, 2, 2
    matrix = 4 * heads * tokens ** 2 * depth
    assert plain - fused > 0.8 * matrix


def test_saved_bytes_grow_with_tokens_as_theory_says():
    def growth(mixer, **own):
        few, many = (vix.ViX(mixer=mixer, image_size=size, patch_size=1, dim=32, depth=1, heads=2, dim_head=8,
                             mlp_dim=32, **own) for size in (24, 48))
        return vix.saved_bytes_per_image(many) / vix.saved_bytes_per_image(few)

    assert growth("softmax", fused=False) > 10   # towards 16 for four times the tokens
    for mixer, own in (("softmax", {}), ("performer", {}), ("nystrom", {"num_landmarks": 16}),
                       ("linformer", {"rank": 16})):
        assert 3 < growth(mixer, **own) < 4.2, mixer


def test_measuring_leaves_the_model_as_it_was():
    model = vix.build("HybridViT", normalisation="batch", **SMALL).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    vix.saved_bytes_per_image(model)
    vix.throughput(model, batch_size=2, repeats=1)
    vix.peak_memory(model, batch_size=2)
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_half_precision_keeps_about_half():
    model = vix.build("ViT", **SMALL)
    ratio = vix.saved_bytes_per_image(model, precision="bfloat16") / vix.saved_bytes_per_image(model)
    assert 0.4 < ratio < 0.8  # LayerNorm and the loss stay in float32


def test_predicted_peak_says_so_and_covers_what_must_be_there():
    model = vix.build("ViT", fused=False, **SMALL)
    peak = vix.peak_memory(model, batch_size=32, precision="float32")
    assert not peak.measured and "predicted" in str(peak)
    weights = 4 * vix.count_parameters(model).true
    assert peak.bytes > 4 * weights + 32 * vix.saved_bytes_per_image(model)  # weights, gradients, two moments
    assert peak.bytes < 4 * weights + 3 * 32 * vix.saved_bytes_per_image(model)


@pytest.mark.parametrize("name", ["ViT", "ViN", "LeViP"])
def test_predicted_peak_is_that_of_torchs_own_tracker(name, monkeypatch):
    monkeypatch.setattr("vixlib.lean.hooked_everywhere", lambda: False)  # the tracker's, which change no result
    tracker_of_torch = pytest.importorskip("torch.distributed._tools.mem_tracker")
    batch, model = 8, vix.build(name, image_size=16, depth=1)
    mode = FakeTensorMode()
    fake = with_fake_tensors(model, mode)
    with mode:
        step, optimizer = training_step(fake, batch, "float32")
        step()  # makes the optimiser's state
        optimizer.zero_grad(set_to_none=True)
        tracker = tracker_of_torch.MemTracker()
        tracker.track_external(fake, optimizer)
        with tracker:
            step()
    theirs = sum(kinds["Total"] for kinds in tracker.get_tracker_snapshot("peak").values())
    pictures = 4 * batch * 3 * 16 * 16  # torch's does not count what operations only read
    assert 0 <= vix.predict_peak_memory(model, batch, "float32").bytes - theirs <= pictures


def test_largest_batch_is_the_largest():
    model = vix.build("ViT", **SMALL)
    largest = vix.max_batch_size(model, memory_gb=1.5, precision="float32")
    limit = 0.5 * 2**30
    assert MARGIN * vix.predict_peak_memory(model, largest, "float32").bytes <= 1.01 * limit
    assert MARGIN * vix.predict_peak_memory(model, int(1.05 * largest), "float32").bytes > limit


@pytest.mark.parametrize("batch", [8, 60, 512, 3000])
def test_the_largest_batch_is_found_where_few_images_hide_behind_the_weights_gradients(batch):
    model = vix.build("ViT", patch_size=16, dim=256, depth=2, mlp_dim=1024)
    room = MARGIN * vix.predict_peak_memory(model, batch, "float32").bytes / 2**30
    found = vix.max_batch_size(model, 1 + room, "float32")
    fits, more = (MARGIN * vix.predict_peak_memory(model, b, "float32").bytes / 2**30
                  for b in (found, found * 21 // 20 + 1))
    assert fits <= 1.02 * room and room < 1.02 * more


def test_weights_that_are_not_trained_need_no_moments_and_a_frozen_model_is_refused():
    model = vix.build("ViT", **SMALL)
    whole = vix.predict_peak_memory(model, 1, "float32").bytes
    for parameter in model.blocks.parameters():
        parameter.requires_grad_(False)
    frozen = sum(4 * p.numel() for p in model.blocks.parameters())
    assert vix.predict_peak_memory(model, 1, "float32").bytes <= whole - 2 * frozen
    for ask in (vix.predict_peak_memory, vix.max_batch_size, vix.throughput):
        with pytest.raises(ValueError, match="model=ViX has no parameters that are trained"):
            ask(model.requires_grad_(False))
    with torch.inference_mode():
        model = vix.build("ViT", **SMALL)
    for ask in (vix.predict_peak_memory, vix.max_batch_size):
        with pytest.raises(ValueError, match="model=ViX was made inside torch.inference_mode"):
            ask(model)


REAL_STEP = """
import sys, torch, vixlib as vix
from vixlib.measure.step import training_step
torch.set_num_threads(1)
model = vix.build(sys.argv[1], depth=2)
training_step(model, 1, "float32")[0]()  # code and small buffers are loaded
predicted = vix.predict_peak_memory(model, 8, "float32").bytes

def resident(kind):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(kind)).split()[1])

before = resident("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the kernel's high-water mark starts anew
step, _ = training_step(model, 8, "float32")
step()
step()
print((resident("VmHWM") - before) / predicted)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's own count of resident memory is Linux's")
@pytest.mark.parametrize("name", ["ViT", "ViN", "CPV"])
def test_predicted_peak_agrees_with_the_memory_that_the_kernel_sees(name):
    # Every larger tensor gets pages of its own, so that none hides in memory that was freed before.
    done = subprocess.run([sys.executable, "-c", REAL_STEP, name], capture_output=True, text=True, check=True,
                          env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"})
    assert 0.9 < float(done.stdout) < 1.1


@pytest.mark.parametrize("measure", [lambda m: vix.throughput(m, 2, repeats=1), lambda m: real_steps(m, "float32")(2)])
def test_what_is_measured_runs_by_the_kernels_that_fit_trains_with(measure):
    by_trial = []  # whether convolutions' kernels are chosen by trying all, as `training_kernels` has it

    class Spy(nn.Linear):
        def forward(self, images):
            by_trial.append(torch.backends.cudnn.benchmark)
            return super().forward(images.mean((2, 3)))

    measure(Spy(3, 4))
    assert len(by_trial) == 2 and all(by_trial) and not torch.backends.cudnn.benchmark


def test_throughput_is_of_a_step_that_trains():
    model = vix.build("ViT", **SMALL)
    step, _ = training_step(model, 4, "float32")
    before = model.head.weight.detach().clone()
    step()
    assert not torch.equal(before, model.head.weight)
    assert vix.throughput(model, batch_size=4, repeats=2) > 0


@pytest.mark.parametrize(("call", "words"), [
    (lambda m: vix.max_batch_size(m, memory_gb=1), "memory_gb=1 must exceed 1"),
    (lambda m: vix.peak_memory(m, batch_size=0), "batch_size=0"),
    (lambda m: vix.saved_bytes_per_image(m, precision="int8"), "precision='int8'"),
    (lambda m: vix.throughput(m, repeats=0), "repeats=0"),
    (lambda m: attention_maps(vix.build("ViP", **SMALL), torch.randn(1, 3, 16, 16)), "PerformerAttention never forms"),
    (lambda m: mixer_inputs(nn.Linear(2, 2), torch.randn(1, 2)), "Linear has no .blocks"),
])
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(vix.build("ViT", **SMALL))


def test_attention_maps_are_what_the_model_uses():
    model = vix.build("ViT", position="rope", **SMALL)
    images = torch.randn(2, 3, 16, 16)
    maps = attention_maps(model, images)
    assert len(maps) == 2 and maps[0].shape == (2, 2, 65, 65)
    assert torch.allclose(maps[0].sum(-1), torch.ones(2, 2, 65), atol=1e-5)
    x, rotary = mixer_inputs(model, images)[1]
    mixer = model.blocks[1].mixer
    by_hand = mixer.join(maps[1] @ mixer.split(x, rotary)[2])
    assert torch.allclose(by_hand, mixer(x, rotary), atol=1e-5)
    assert model.training


def test_importing_vixlib_and_its_tables_brings_nothing_that_takes_seconds():
    code = ("import sys, vixlib; [vixlib.compare(table) for table in (1, 'cxv')]; "
            "slow = ('matplotlib', 'IPython', 'torchvision', 'jupytext', 'PIL', 'torch._dynamo'); "
            "print([m for m in slow if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Wide(nn.Module):
    """Whose weights' gradients hide hundreds of images."""

    image_size, channels, num_classes = (8, 8), 3, 10

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 50_000), nn.Linear(50_000, 10))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("growth", [lambda n: n * n, lambda n: n**3, lambda n: 2.0 ** min(n, 900),
                                    lambda n: 1e9 * (n > 999)])
def test_few_predictions_enclose_the_largest_batch_whatever_its_growth(growth, monkeypatch):
    asked = []

    def predicted(model, batch, *_):
        asked.append(batch)
        return vix.measure.memory.PeakMemory(int(1e6 + growth(batch)), batch, "float16", measured=False)

    monkeypatch.setattr(vix.measure.memory, "predict_peak_memory", predicted)
    found, memory = vix.measure.memory.fitting_batch(nn.Linear(1, 1), 2**28, "float16"), 2**28 / MARGIN
    assert 1e6 + growth(found) <= memory and len(asked) < 60
    assert 1e6 + growth(found + 1) > memory or 1e6 + growth(found) > 0.99 * memory


@pytest.mark.parametrize("room", [0.9, 1.01, 1.2, 3, 30])
def test_a_batch_that_is_said_to_fit_was_predicted_to(room):
    model = Wide()
    free = room * MARGIN * vix.predict_peak_memory(model, 64).bytes / 2**30
    found = vix.max_batch_size(model, 1 + free)
    fits, more = (MARGIN * vix.predict_peak_memory(model, max(1, b), "float16").bytes / 2**30
                  for b in (found, found + found // 50 + 1))
    assert (fits <= free if found else free < fits) and free < more


def test_measuring_leaves_the_random_numbers_alone():
    model = vix.build("CPV", **vix.applicable("CPV", {**SMALL, "dropout": 0.5}))
    before = torch.get_rng_state()
    vix.saved_bytes_per_image(model)
    vix.throughput(model, 2, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_beyond_the_machines_memory_is_refused():
    with pytest.raises(ValueError, match="batch_size=1048576, .*GiB, more than this machine's"):
        vix.throughput(vix.build("ViT", **SMALL), 2**20, 1)
    with pytest.raises(ValueError, match=r"image_size=\(1000000, 1000000\): that takes"):
        vix.saved_bytes_per_image(nn.Conv2d(3, 10, 1), image_size=10**6)


def test_a_prediction_may_be_for_a_larger_machine(monkeypatch):
    model = TwoLayers()
    here = vix.predict_peak_memory(model, 2**16).bytes
    monkeypatch.setattr(vix.errors, "machine_memory", lambda: here)
    assert vix.predict_peak_memory(model, 2**22).bytes > 60 * here
    assert vix.max_batch_size(model, memory_gb=1 + 64 * here / 2**30) > 2**21


def test_what_is_no_model_is_named():
    for ask in (vix.max_batch_size, vix.predict_peak_memory, vix.peak_memory, vix.throughput, vix.count_parameters):
        with pytest.raises(TypeError, match="model=42 must be a module"):
            ask(42)


def test_a_picture_that_is_too_large_is_named():
    model = vix.build("ViT", image_size=8, position="rope", patch_size=1, fused=False, dim=8, depth=1, heads=1,
                      dim_head=4, mlp_dim=8)
    with pytest.raises(torch.OutOfMemoryError, match="image_size=.*2048.* needs more memory than there is"):
        vix.saved_bytes_per_image(model, 2048)
    with pytest.raises(torch.OutOfMemoryError, match=r"a single picture \[3, 2048, 2048\] needs more memory"):
        vix.predict(model, torch.zeros(1, 3, 2048, 2048, dtype=torch.uint8))


class Causal(torch.nn.Module):
    """The common way to make a mask: in the first call, for as many tokens as come."""

    uses_rotary = False

    def __init__(self, dim, *, heads, dim_head, seq_len):
        super().__init__()
        self.value = torch.nn.Linear(dim, dim)
        self.register_buffer("mask", None, persistent=False)

    def forward(self, x, rotary=None):
        if self.mask is None:
            self.register_buffer("mask", torch.ones(x.shape[1], x.shape[1]).tril().to(x), persistent=False)
        return self.mask @ self.value(x)


def test_a_buffer_made_in_the_first_call_is_the_models_own():
    model = vix.build("ViT", mixer=Causal, dim=16, depth=2, mlp_dim=16, image_size=8)
    before = vix.saved_bytes_per_image(model)
    model(torch.zeros(1, 3, 8, 8))
    assert before == vix.saved_bytes_per_image(model) > 0


def test_a_model_that_looks_at_numbers_has_a_speed_at_any_batch():
    class Looking(torch.nn.Sequential):
        def forward(self, images):
            scores = super().forward(images)
            return scores if scores.abs().max() < 1e6 else scores / 2

    model = Looking(torch.nn.Flatten(), torch.nn.Linear(48, 10))
    assert vix.throughput(model, 129, repeats=1, image_size=4) > 0


@pytest.mark.parametrize("measure", [vix.saved_bytes_per_image, vix.predict_peak_memory, vix.throughput],
                         ids=["bytes", "prediction", "speed"])
def test_a_network_of_ones_own_that_takes_other_pictures_is_told_what_to_say(measure):
    """For 28x28 pictures, of which it says nothing itself: 32x32 ones do not fit, which is no fault of its own."""
    own = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 26 * 26, 10))
    options = {"batch_size": 2} if measure is not vix.saved_bytes_per_image else {}
    with pytest.raises(ValueError, match=r"model=Sequential does not take pictures of \[.*, 1, 32, 32\], .*; pass "
                                         "image_size"):
        measure(own, **options)
    measure(own, image_size=28, **options)
