"""Flat options: `num_landmarks=16` in a host's constructor finds the part that it belongs to."""
from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import require_known, require_room
from ..mixers import MIXERS, HeadsQKV, LinformerAttention, MLPMixer
from ..mixers.heads import GridConv
from ..precision import as_residual

# Arguments that the host fills in itself.
COMMON = {"dim", "heads", "dim_head", "seq_len", "channels", "patch_size", "grid", "cls"}


def mixer_class(mixer: str | type[nn.Module]) -> type[nn.Module]:
    """The mixer's class, for a name of `mixers.MIXERS` or a class with their interface."""
    if isinstance(mixer, str):
        require_known("mixer", mixer, MIXERS)
        return MIXERS[mixer]
    if not (isinstance(mixer, type) and issubclass(mixer, nn.Module)):
        raise TypeError(f"mixer={mixer!r} is neither a name ({', '.join(MIXERS)}) nor a class of nn.Module")
    return mixer


def stacked(make: Callable[[int], nn.Module], count: int, total: int | None = None, **sizes: object) -> nn.ModuleList:
    """The layers make(0) ... make(count - 1). How many numbers a mixer has, only one that is built tells: once the
    first is there, a ValueError names the `sizes` that make `total` of them (None: count) too many for this machine."""
    layers = nn.ModuleList([make(0)])
    known = (tensor for tensor in (*layers.parameters(), *layers.buffers()) if not is_lazy(tensor))
    require_room((total or count) * sum(tensor.numel() for tensor in known), **sizes)
    return layers.extend(make(i) for i in range(1, count))


def over_grid(mixing: type[nn.Module], projection: str, grid: tuple[int, int]) -> dict:
    """The options that let a mixer make queries, keys and values by convolutions over its `grid` of tokens; none for
    projection="linear". ValueError for a mixer that has no such maps."""
    if projection == "linear":
        return {}
    if not issubclass(mixing, HeadsQKV):
        raise ValueError(f"projection={projection!r} makes queries, keys and values by convolution, but "
                         f"{mixing.__name__} does not take them so; use projection='linear'")
    return {"projection": projection, "grid": grid}


def start_convolutions(model: nn.Module, conv_init: str) -> None:
    """Draw the weights of a model's convolutions over the picture anew for conv_init="he": uniform in ±√(6/n), n the
    inputs of an output (He et al., "Delving Deep into Rectifiers", eq. (10)). "torch" leaves them at PyTorch's
    ±√(1/n), as maps of single places (1×1) and Nyström's filter along the tokens (33×1) always are."""
    require_known("conv_init", conv_init, ("torch", "he"))
    for part in model.modules() if conv_init == "he" else ():
        if isinstance(part, nn.Conv2d) and min(part.kernel_size) > 1 and not is_lazy(part.weight):
            nn.init.kaiming_uniform_(part.weight, nonlinearity="relu")


def knows_places(blocks: nn.Module) -> bool:
    """Whether some part of `blocks` was built for a grid of places: by the number of tokens alone it would take a
    picture of 4×16 for one of 8×8, and wrong places for neighbours, or for those that it has learned about."""
    return any(isinstance(part, (GridConv, LinformerAttention, MLPMixer)) or getattr(part, "bias_grid", None)
               for part in blocks.modules())


def embedded(model: nn.Module, images: Tensor, dim: int) -> tuple[Tensor, tuple[int, int]]:
    """What `model.embedding` makes of `images` `[B, C, H, W]`: tokens `[B, N, dim]`, and their (rows, columns).

    An embedding of somebody's own may lack the method `grid(height, width)`: its pictures must be of the size that the
    model was built for, and its tokens as many as they were then.
    """
    own, size = model.embedding, tuple(images.shape[-2:])
    tells = callable(getattr(own, "grid", None))
    if not tells and size != model.image_size:
        raise ValueError(f"images is {size[0]}x{size[1]}, and the embedding {type(own).__name__} has no method "
                         "grid(height, width) -> (rows, columns) that says how many tokens they give; write it one, "
                         f"or give images of {model.image_size[0]}x{model.image_size[1]}")
    grid = tuple(own.grid(*size)) if tells else model.grid
    x, wanted = own(images), [images.shape[0], grid[0] * grid[1], dim]
    if not isinstance(x, Tensor) or list(x.shape) != wanted:
        found = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"the embedding {type(own).__name__} turned {list(images.shape)} into {found}; for a grid of "
                         f"{grid[0]}x{grid[1]} it must return tokens [B, N, D] = {wanted}")
    return as_residual(x), grid


def require_own_grid(model: nn.Module, grid: tuple[int, int]) -> None:
    """Where `model.one_grid` says that its parts know places, pictures must give the grid that it was built for."""
    if model.one_grid and tuple(grid) != tuple(model.grid):
        raise ValueError(f"the image gives {grid[0]}x{grid[1]} tokens but this {type(model).__name__} has parts for a "
                         f"grid of {model.grid[0]}x{model.grid[1]}; build the model with this image_size")


def constructor_arguments(part: type) -> dict[str, inspect.Parameter]:
    """The arguments of a constructor by name, with those of the classes that its **options are passed on to."""
    found: dict[str, inspect.Parameter] = {}
    for level in part.__mro__:
        parameters = inspect.signature(level.__init__).parameters if "__init__" in vars(level) else {}
        # A subclass comes first, so that its defaults are kept.
        found = {name: p for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD} | found
        if parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return {name: parameter for name, parameter in found.items() if name != "self"}


def own_options(part: type) -> set[str]:
    """The argument names that are this part's alone."""
    return set(constructor_arguments(part)) - COMMON


def distribute(owner: str, options: dict, *parts: type) -> list[dict]:
    """One dict of keyword arguments for each of `parts`; a name that none of them takes is a TypeError."""
    known = [own_options(part) for part in parts]
    for name in options:
        if not any(name in names for names in known):
            takes = ", ".join(sorted(set().union(*known))) or "none"
            raise TypeError(f"{owner} got {name}={options[name]!r}, which neither it nor its parts take; "
                            f"the options of {', '.join(part.__name__ for part in parts)} are: {takes}")
    return [{name: value for name, value in options.items() if name in names} for names in known]


def takes(host: type, settings: dict) -> set[str]:
    """Every option name that `host` and the parts chosen in `settings` understand (see the host's `parts`)."""
    arguments = constructor_arguments(host)
    chosen = {name: parameter.default for name, parameter in arguments.items()} | settings
    return set(arguments).union(*(own_options(part) for part in host.parts(chosen)))
