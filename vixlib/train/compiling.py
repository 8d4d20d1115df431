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
# What TrainConfig.compile can ask for, as torch.compile's modes. The second replays the kernels of a pass as one CUDA
# graph: models this small spend more time on launching kernels than in them.
MODES = {True: "default", "graphs": "reduce-overhead"}


def compile_mode(wanted: bool | str, device: torch.device, steps: int) -> str | None:
    """torch.compile's mode for a run of `steps` steps, None: not compiled.

    "auto": compiled on a GPU that the compiler supports, where there are steps enough to earn its time back.
    """
    if wanted != "auto":
        return MODES.get(wanted)
    if device.type != "cuda" or steps < FEWEST_STEPS:
        return None
    return MODES[True] if torch.cuda.get_device_capability(device) >= CAPABILITY else None


class Compiled(nn.Module):
    """`forward` compiled; its first call tells `say` what it took. Equal to the uncompiled up to rounding.

    A last batch of another size is compiled once more, and the others keep their own graph.
    """

    def __init__(self, forward: nn.Module, mode: str, say: Callable[[str], None] = print) -> None:
        super().__init__()
        torch.compiler.reset()  # forget earlier models: after eight of one class the ninth stays uncompiled
        # Else the second size would make a graph for any size, whose slower kernels all later batches would take.
        self.compiled, self.say, self.called = torch.compile(forward, mode=mode, dynamic=False), say, False

    def forward(self, images: Tensor) -> Tensor:
        begun = time.perf_counter()
        torch.compiler.cudagraph_mark_step_begin()  # a graph may write over what the last step left
        out = self.compiled(images)
        if not self.called:
            self.called = True
            self.say(f"torch.compile: the first forward pass took {time.perf_counter() - begun:.0f} s; "
                     "the backward pass is compiled next, later steps run what was made")
        return out
