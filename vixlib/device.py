"""Where to compute: which device really works here, what it is called, and which precision suits it."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F

from .errors import as_device, machine_memory, require_known
from .precision import PRECISIONS, autocast_off

OUT_OF_MEMORY = ("CUDA out of memory", "CUDA error: out of memory", "DefaultCPUAllocator: can't allocate memory",
                 "DefaultCPUAllocator: not enough memory", "CUBLAS_STATUS_ALLOC_FAILED",
                 "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",  # it has no room for its workspace
                 "CUDNN_STATUS_ALLOC_FAILED", "CUFFT_ALLOC_FAILED", "unable to find an engine to execute",
                 "CUSOLVER_STATUS_ALLOC_FAILED", "CUDA driver error: out of memory",
                 "Triton Error [CUDA]: out of memory")


def pick_device(prefer: str | torch.device | None = None, argument: str = "prefer") -> torch.device:
    """The preferred device if it works, else the CPU with a warning that says why.

    prefer: "cpu", "cuda", "cuda:1", a torch.device, or None for a GPU where a working one is present.
    A GPU counts as working once a small matrix product, convolution and backward pass succeed on it:
    `torch.cuda.is_available()` alone is also true for cards that this torch has no kernels for.
    argument: what the caller calls `prefer`, for its errors.
    """
    if prefer is None:
        prefer = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = as_device(argument, prefer)
    if wanted.type not in ("cpu", "cuda"):
        raise ValueError(f'{argument}={prefer!r} is not supported; use None, "cpu", "cuda" or "cuda:0"')
    problem = _problem(wanted)
    if problem is None:
        return wanted
    warnings.warn(f"{problem} Computing on the CPU instead.", RuntimeWarning, stacklevel=2)
    return torch.device("cpu")


def own_randomness(device: torch.device) -> AbstractContextManager:
    """A context whose random numbers, on the CPU and on `device`, leave torch's generators as they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _problem(device: torch.device) -> str | None:
    """Why `device` cannot train a model, in one or two sentences; None if it can."""
    if device.type == "cpu":
        return None
    if not torch.cuda.is_available():
        return "This machine shows no CUDA GPU to torch (in Colab or Kaggle, choose a T4 in the settings)."
    if device.index is not None and device.index >= torch.cuda.device_count():
        return f"There is no {device}: torch sees {torch.cuda.device_count()} GPU(s)."
    name = None
    try:
        name = torch.cuda.get_device_name(device)
        _try_small_step(device)
    except Exception as error:  # a broken driver has errors of its own kind
        if is_out_of_memory(error):  # a full GPU is not a broken one, and hours on the CPU are no answer
            raise torch.OutOfMemoryError(f"{name or device} has no memory left: end the other process or notebook that "
                                         'holds it (nvidia-smi shows which), or choose device="cpu"') from None
        problem = f"{name or device} failed a small test operation: {str(error).splitlines()[0]}."
        if name is None:  # who does not even tell its name tells nothing else
            return problem
        major, minor = torch.cuda.get_device_capability(device)
        compiled = torch.cuda.get_arch_list()
        numbers = [int("".join(filter(str.isdigit, arch))) for arch in compiled]  # "sm_90a" -> 90
        # Kernels run on the same major version with an equal or higher minor one.
        if not any(number // 10 == major and number % 10 <= minor for number in numbers):
            return (f"{name} (sm_{major}{minor}) has no kernels in torch {torch.__version__}, compiled "
                    f"for {', '.join(compiled)}: choose another GPU, for instance a T4.")
        return problem
    return None


def _try_small_step(device: torch.device) -> None:
    """A matrix product, a convolution and a backward pass in float32; raises RuntimeError where they fail."""
    with torch.inference_mode(False), torch.enable_grad(), autocast_off(device):  # whatever the caller is in
        images = torch.ones(2, 3, 8, 8, device=device, requires_grad=True)
        features = F.conv2d(images, torch.ones(4, 3, 3, 3, device=device))
        (features.flatten(1) @ torch.ones(4 * 6 * 6, 5, device=device)).sum().backward()
    # .item() waits for the GPU: kernels run asynchronously, so only here is a failure certain to show.
    if images.grad is None or not torch.isfinite(images.grad.sum()).item():
        raise RuntimeError("the gradient of a convolution came out wrong")


def _here(device: torch.device | str) -> torch.device:
    """`device` as a torch.device, a CPU or a GPU of this machine; the ValueError says which there are."""
    device = as_device("device", device)
    if device.type not in ("cpu", "cuda") or device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r} is none that vixlib finds here; use \"cpu\""
                         + (' or "cuda"' if torch.cuda.is_available() else ", this machine shows no CUDA GPU"))
    return device


def require_working(device: str | torch.device) -> torch.device:
    """The device, after it has made a tensor and given it back; ValueError where it cannot."""
    device = as_device("device", device)
    try:
        torch.zeros(1, device=device).cpu()  # a meta tensor has nothing to bring back
    except (RuntimeError, AssertionError, ImportError) as error:  # torch's ways to say that it has no such device
        raise ValueError(f"device={str(device)!r} does not work here ({str(error).splitlines()[0]}); "
                         'use "cpu", or what vix.pick_device() gives') from error
    return device


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory did not suffice; the libraries, and a CPU, have words of their own."""
    said = str(error)
    # Where NVML does not answer (a part of a GPU, a sandbox), torch 2.6 fails as it writes that message.
    unsaid = "NVML_SUCCESS == r" in said and "CUDACachingAllocator" in said
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or unsaid or any(w in said for w in OUT_OF_MEMORY)


@contextmanager
def out_of_memory_named(what: str) -> Iterator[None]:
    """An error for want of memory says that it was `what` that did not fit."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise torch.OutOfMemoryError(f"{what} needs more memory than there is ({said}); use a smaller one") from None


def device_name(device: torch.device | str) -> str:
    """The hardware's name, as recorded with every result: "NVIDIA H200", "CPU x86_64, 2 threads"."""
    device = _here(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def describe(device: torch.device | str) -> str:
    """One line for people: name, memory in GiB (1024³ bytes), torch version."""
    device = _here(device)
    on_gpu = device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else machine_memory()
    size = f", {memory / 2**30:.1f} GiB" if memory else ""
    return f"{device_name(device)}{size}, torch {torch.__version__}"


def pick_precision(device: torch.device | str, wanted: str = "auto") -> str:
    """The precision to train in: "float32", "float16" or "bfloat16".

    "auto" is float32 on the CPU, bfloat16 on GPUs that have it in hardware (compute capability 8.0 and
    above), float16 on older ones such as the T4.
    Raises ValueError for a precision that the device lacks.
    """
    device = as_device("device", device)
    require_known("precision", wanted, ("auto", *PRECISIONS))
    if wanted == "float32":
        return wanted
    if device.type != "cuda":
        if wanted != "auto":
            raise ValueError(f'precision={wanted!r} needs a GPU, not {device.type}; use "auto" or "float32"')
        return "float32"
    major, minor = torch.cuda.get_device_capability(_here(device))
    if wanted == "auto":
        return "bfloat16" if major >= 8 else "float16"
    if wanted == "bfloat16" and major < 8:
        raise ValueError('precision="bfloat16" needs a GPU of compute capability 8.0 or above, this one has '
                         f'{major}.{minor}: torch would only emulate it, slowly; use "auto" or "float16"')
    return wanted
