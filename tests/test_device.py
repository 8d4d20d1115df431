"""The device check runs a real operation, and precision follows the hardware."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import pytest
import torch
from torch.nn.attention import SDPBackend

from vixlib import device as devices
from vixlib.device import describe, device_name, pick_device, pick_precision
from vixlib.kernels import fused_attention_problem, training_kernels
from vixlib.measure.scoring import evaluating


def pretend_gpu(monkeypatch, *, capability=(6, 0), compiled=("sm_75", "sm_90", "sm_120"), error=None):
    """Make torch report one GPU on which the small test step raises `error`."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(compiled))

    def step(device):
        if error:
            raise RuntimeError(error)

    monkeypatch.setattr(devices, "_try_small_step", step)


def test_a_working_gpu_is_picked(monkeypatch):
    pretend_gpu(monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pick_device() == torch.device("cuda")
        assert pick_device("cuda:0") == torch.device("cuda:0")
        assert pick_device("cpu") == torch.device("cpu")


def test_no_gpu_and_no_wish_is_no_reason_to_warn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pick_device() == torch.device("cpu")


def test_a_gpu_without_kernels_falls_back_and_says_what_torch_is_compiled_for(monkeypatch):
    pretend_gpu(monkeypatch, error="CUDA error: no kernel image is available")
    with pytest.warns(RuntimeWarning, match=r"P100 \(sm_60\).*sm_75, sm_90, sm_120.*on the CPU") as caught:
        assert pick_device() == torch.device("cpu")
    assert caught[0].filename == __file__


@pytest.mark.parametrize("capability", [(8, 6), (9, 0)])
def test_a_failure_on_supported_hardware_names_its_own_reason(monkeypatch, capability):
    pretend_gpu(monkeypatch, capability=capability, compiled=("sm_80", "sm_90a"), error="out of memory\nmore")
    with pytest.warns(RuntimeWarning, match="failed a small test operation: out of memory. Computing"):
        assert pick_device() == torch.device("cpu")


def test_a_wish_that_cannot_be_met_is_explained(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.warns(RuntimeWarning, match="no CUDA GPU"):
        assert pick_device("cuda") == torch.device("cpu")
    pretend_gpu(monkeypatch)
    with pytest.warns(RuntimeWarning, match="no cuda:3: torch sees 1"):
        assert pick_device("cuda:3") == torch.device("cpu")


@pytest.mark.parametrize("prefer", ["gpu", "mps", "cpu:x"])
def test_an_unknown_device_is_named(prefer):
    with pytest.raises(ValueError, match=f"prefer='{prefer}'"):
        pick_device(prefer)


def test_the_small_step_runs_here():
    devices._try_small_step(pick_device())


def test_description_is_one_line_with_memory_and_version():
    line = describe("cpu")
    assert "GiB" in line and torch.__version__ in line and "\n" not in line


@pytest.mark.parametrize(("device", "capability", "wanted", "precision"), [
    ("cpu", None, "auto", "float32"),
    ("cpu", None, "float32", "float32"),
    ("cuda", (7, 5), "auto", "float16"),
    ("cuda", (8, 0), "auto", "bfloat16"),
    ("cuda", (12, 0), "auto", "bfloat16"),
    ("cuda", (12, 0), "float16", "float16"),
    ("cuda", (7, 5), "float32", "float32"),
])
def test_precision_suits_the_device(monkeypatch, device, capability, wanted, precision):
    pretend_gpu(monkeypatch, capability=capability)
    assert pick_precision(device, wanted) == precision


def test_precision_that_the_device_lacks_is_refused(monkeypatch):
    pretend_gpu(monkeypatch, capability=(7, 5))
    with pytest.raises(ValueError, match=r"bfloat16.*has 7\.5.*emulate"):
        pick_precision("cuda", "bfloat16")
    with pytest.raises(ValueError, match="float16.*needs a GPU"):
        pick_precision("cpu", "float16")
    with pytest.raises(ValueError, match="precision='fp16' is unknown"):
        pick_precision("cpu", "fp16")


@pytest.mark.parametrize("device", ["cuda", "meta", "cuda:7"])
def test_a_device_that_is_not_here_is_named(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for ask in (describe, device_name):
        with pytest.raises(ValueError, match=f"device='{device}' is none that vixlib finds here"):
            ask(device)
    if device != "meta":
        with pytest.raises(ValueError, match=f"device='{device}' is none"):
            pick_precision(device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_real_gpu_is_picked_and_described():
    device = pick_device()
    assert device.type == "cuda" and torch.cuda.get_device_name(device) in describe(device)
    assert pick_precision(device) in ("float16", "bfloat16")


@pytest.mark.parametrize("region", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_a_gpu_is_tried_alike_wherever_it_is_asked_for(region):
    with region():
        devices._try_small_step(torch.device("cpu"))


def test_the_kernel_asked_for_is_none_that_training_leaves_out(monkeypatch):
    asked = []
    monkeypatch.setattr("vixlib.kernels.cudnn_attention_fails", lambda: True)
    monkeypatch.setattr("torch.nn.attention.sdpa_kernel", lambda kinds: asked.extend(kinds) or nullcontext())
    fused_attention_problem("cpu", "float32", dim_head=32)
    assert asked and SDPBackend.CUDNN_ATTENTION not in asked


def test_training_on_the_cpu_leaves_a_gpu_alone(monkeypatch):
    """It need not work: CUDA cannot begin in a forked process."""
    def cannot(*_):
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", cannot)
    with training_kernels(deterministic=False):
        pass


def test_fused_attention_is_asked_for_by_running_it(monkeypatch):
    assert fused_attention_problem("cpu", "float32", dim_head=32) is None

    def none_fits(*inputs):
        raise RuntimeError("No available kernel.  Aborting execution.")

    monkeypatch.setattr("vixlib.kernels.F.scaled_dot_product_attention", none_fits)
    problem = fused_attention_problem("cpu", "bfloat16", dim_head=30)
    assert "bfloat16 with a head width of 30" in problem and "N×N" in problem and "No available kernel" in problem


@pytest.mark.parametrize(("capability", "version", "fails"), [
    ((9, 0), 91701, True), ((9, 0), 92600, False), ((7, 5), 91701, False), ((8, 0), 91701, False)])
def test_an_attention_kernel_that_is_known_to_fail_is_not_trained_with(monkeypatch, capability, version, fails):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with training_kernels(deterministic=False):
        assert torch.backends.cuda.cudnn_sdp_enabled() == (before and not fails)
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="settings of torch 2.9 and later")
def test_float32_is_float32_whatever_the_newer_settings_say(monkeypatch):
    monkeypatch.setattr(torch.backends, "fp32_precision", "tf32")
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    with training_kernels(deterministic=False):
        assert torch.backends.cudnn.conv.fp32_precision == "ieee" and not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"


def test_float32_is_float32_in_training_and_scoring():
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        with training_kernels(deterministic=False):
            assert not torch.backends.cudnn.allow_tf32
        with evaluating(torch.nn.Linear(2, 2)):
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before
