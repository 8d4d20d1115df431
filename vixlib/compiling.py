"""torch.compile for training: fewer kernels and fewer trips through memory, for a first step that takes long."""
from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

FEWEST_STEPS = 500  # compiling takes most of a minute, which shorter runs would not earn back
# From here on GPUs have bfloat16, in which Performer keeps its tables. For older ones, such as the T4 with its 7.5, the
# compiler gives up on a graph with bfloat16 in it after the time that compiling takes.
CAPABILITY = (8, 0)


def compiles(wanted: bool | str, device: torch.device, steps: int, capability: tuple[int, int] | None = None) -> bool:
    """Whether a run of `steps` steps is to be compiled.

    "auto": on a GPU that the compiler supports, where there are steps enough to earn its time back. capability: of
    the GPU; None asks the device.
    """
    if wanted != "auto":
        return wanted
    if device.type != "cuda" or steps < FEWEST_STEPS:
        return False
    return tuple(capability or torch.cuda.get_device_capability(device)) >= CAPABILITY


class Compiled(nn.Module):
    """`forward` compiled; its first call tells `say` what it took. Equal to the uncompiled up to rounding.

    A last batch of another size is compiled once more; from then on torch leaves the size open.
    """

    def __init__(self, forward: nn.Module, say: Callable[[str], None] = print) -> None:
        super().__init__()
        self.compiled, self.say, self.called = torch.compile(forward), say, False

    def forward(self, images: Tensor) -> Tensor:
        begun = time.perf_counter()
        out = self.compiled(images)
        if not self.called:
            self.called = True
            self.say(f"torch.compile: the first forward pass took {time.perf_counter() - begun:.0f} s; "
                     "the backward pass is compiled next, later steps run what was made")
        return out
