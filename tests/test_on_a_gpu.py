"""What only a GPU would show, shown without one: its rules are stated here, and the code is held to them."""
from __future__ import annotations

import os

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import vixlib as vix
from vixlib.measure import limits
from vixlib.measure.cuda_autocast import CudaAutocast
from vixlib.mixers import BatchNormTokens, NystromAttention
from vixlib.train import divergence, loop, parallel

SMALL = {"patch_size": 4, "dim": 32, "heads": 2, "dim_head": 8, "mlp_dim": 64, "depth": 2, "depths": (1, 1),
         "num_landmarks": 4, "rank": 4}


def small(name, **more):
    return vix.build(name, seed=0, **vix.applicable(name, {**SMALL, **more}))


def test_free_memory_is_asked_of_a_device_without_a_number(monkeypatch):
    """torch.cuda.get_per_process_memory_fraction alone refuses "cuda", which is what pick_device gives."""
    def fraction(device):
        assert isinstance(device, int)
        return 0.5

    for name, answer in (("mem_get_info", (90, 100)), ("memory_reserved", 20), ("memory_allocated", 15),
                         ("current_device", 0)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", fraction)
    assert limits.free_bytes(torch.device("cuda")) == limits.free_bytes(torch.device("cuda:1")) == 50 - 15


def test_the_peak_is_not_told_of_kernels_whose_memory_torch_does_not_count(monkeypatch):
    """CUDA graphs replay in memory that is no allocation any more: from the second epoch on weights alone would count,
    and the least of all epochs is what a run keeps."""
    data = vix.load("shapes", train=20, test=10)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: data.bytes + 7)
    peaks = {(kind, compile): loop._peak_bytes(torch.device(kind), vix.TrainConfig(compile=compile), data)
             for kind in ("cuda", "cpu") for compile in (False, True, "graphs")}
    assert {key for key, peak in peaks.items() if peak == 7} == {("cuda", False), ("cuda", True)}
    assert set(peaks.values()) == {7, None}


class OneTypeAlone(TorchFunctionMode):
    """CUDA's layer normalisation takes input and scale in one type; on a CPU they may differ."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") == "layer_norm" and not torch.is_autocast_enabled("cpu"):
            one_type(*args, *kwargs.values())
        return function(*args, **kwargs)


def one_type(*values):
    assert len({value.dtype for value in values if isinstance(value, torch.Tensor)}) == 1


@pytest.mark.parametrize("name", vix.names())
def test_no_normalisation_meets_two_types_in_mixed_precision(name, monkeypatch):
    model, again = small(name).train(), torch.native_layer_norm
    monkeypatch.setattr(torch, "native_layer_norm", lambda *values: one_type(*values) or again(*values))  # in backward
    with OneTypeAlone(), torch.autocast("cpu", torch.bfloat16), CudaAutocast():
        model(torch.randn(4, 3, 32, 32)).float().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["ViT", "MLPMixer", "CCT", "LeViT", "LeViL", "CvT", "CPV", "CLTV"])
def test_what_hosts_add_up_over_the_layers_is_float32_in_mixed_precision(name):
    model, sums = small(name), []
    for block in model.blocks:
        block.register_forward_hook(lambda _block, _x, out: sums.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(2, 3, 32, 32))
    assert len(sums) >= 2 and set(sums) == {torch.float32}


def test_a_stored_matrix_is_kept_as_a_gpu_keeps_it():
    """In float32 four bytes an entry, softmax's output; in mixed precision the same and a half copy for the product."""
    entries = 2 * 2 * 65**2  # layers, heads
    for precision, bytes_each in (("float32", 4), ("float16", 6)):
        stored, fused = (vix.saved_bytes_per_image(small("ViT", fused=fused), precision=precision)
                         for fused in (False, True))
        assert 0.98 * bytes_each < (stored - fused) / entries < 1.1 * bytes_each


def test_synchronised_token_normalisation_still_takes_tokens(monkeypatch):
    seen = []
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda self, x: seen.append(x.shape) or x)
    model = nn.Sequential(BatchNormTokens(8), nn.Sequential(nn.BatchNorm2d(3)))
    weight = model[0].weight
    parallel.synchronised(model)
    assert isinstance(model[0], nn.SyncBatchNorm) and isinstance(model[1][0], nn.SyncBatchNorm)
    for _ in range(2):
        assert model[0].weight is weight and model[0](torch.zeros(2, 5, 8)).shape == (2, 5, 8) and seen.pop() == (10, 8)
        parallel.synchronised(model)  # as a second training does


def test_an_inverse_that_has_converged_overflows_no_half_precision():
    """In float16 numbers end at 65,504, and the inverse of landmarks that are nearly equal has larger ones."""
    torch.manual_seed(0)
    mixer, x = NystromAttention(32, heads=2, dim_head=16, num_landmarks=8), torch.randn(1, 1, 32).expand(1, 64, 32)
    # Large numbers that cancel: the tokens are equal, and so are the rows that it multiplies.
    mixer.inverse = lambda attention: torch.eye(8) + 1e6 * (torch.eye(8) - torch.eye(8).roll(1, 0)).expand_as(attention)
    plain = mixer(x)
    with torch.autocast("cpu", torch.float16):
        torch.testing.assert_close(mixer(x).float(), plain, rtol=0.01, atol=0.01)


def test_gradients_that_overflow_at_every_scale_are_said():
    """GradScaler skips such steps, and losses and weights stay finite all the while."""
    class Scaler:
        def is_enabled(self):
            return True

        def get_scale(self):
            return 2.0**-20

    assert "gradients overflow at every scale of the loss, down to 1e-06" in divergence.no_scale(Scaler())
    assert divergence.no_scale(torch.amp.GradScaler("cuda", enabled=False)) is None


def test_a_process_for_which_there_is_no_gpu_says_so(monkeypatch):
    monkeypatch.setattr(parallel, "launched", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="there is no GPU for process 3; this machine has 2"), parallel.processes():
        pass


def test_a_seeded_model_leaves_the_gpus_generators_alone(monkeypatch):
    def touched(*_):
        raise AssertionError("the GPUs' generators were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", touched)
    a, b = vix.build("ViT", seed=3, patch_size=8), vix.build("ViT", seed=3, patch_size=8)
    assert torch.equal(a.head.weight, b.head.weight)


def test_cublas_may_be_deterministic_from_the_start():
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


def test_scoring_takes_what_fits_at_a_time():
    """A stored attention matrix may fit in training and not at evaluation's larger batch."""
    model, data, batches = small("LeViN"), vix.load("shapes", train=20, test=50), []
    whole, answers = vix.evaluate(model, data, batch_size=50), vix.predict(model, data.test_images)

    def little_room(_module, inputs):
        batches.append(len(inputs[0]))
        if batches[-1] > 8:
            raise torch.OutOfMemoryError("simulated")

    hook = model.register_forward_pre_hook(little_room)
    assert vix.evaluate(model, data, batch_size=50) == pytest.approx(whole, rel=1e-6)
    assert torch.allclose(vix.predict(model, data.test_images), answers, atol=1e-6) and max(batches) == 50
    hook.remove()
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("simulated")))
    with pytest.raises(torch.OutOfMemoryError):
        vix.evaluate(model, data)
