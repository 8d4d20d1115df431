"""Checks of arguments: an error names the argument, its value and the fix."""
from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .precision import HALF, autocasts

MOST = 2**24            # beyond every size that makes sense here, and far below where 64-bit products overflow
MOST_LAYERS = 1000
ALWAYS_FITS = 2**28     # numbers, a GiB in float32: below this nobody looks at the machine's memory


def require_count(**values: int) -> None:
    """Each keyword must be an integer from 1 to MOST; TypeError or ValueError names the first that is not."""
    require_between(1, MOST, **values)


def require_depth(**values: int) -> None:
    """The same for numbers of layers, from 1 to MOST_LAYERS."""
    require_between(1, MOST_LAYERS, **values)


def is_integer(value: object) -> bool:
    """Whether `value` is a whole number by type; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def require_between(least: int, most: int, /, **values: int) -> None:
    """Each keyword must be an integer from `least` to `most`, both included."""
    for name, value in values.items():
        if not is_integer(value):
            raise TypeError(f"{name}={shown(value)} must be an integer, got {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name}={shown(value)} must be at least {least}")
        if value > most:
            raise ValueError(f"{name}={shown(value)} must be at most {most}")


def require_number(name: str, value: float, allowed: Callable[[float], bool], what: str) -> None:
    """`value` must be a finite number that is `allowed`; `what` says which are, "above 0" for instance."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}={shown(value)} must be a finite number {what}, got {type(value).__name__}")
    if not abs(value) <= sys.float_info.max or not allowed(value):
        raise ValueError(f"{name}={shown(value)} must be a finite number {what}")


def require_rate(name: str, value: float) -> None:
    """`value` must be a number from 0 to below 1, as dropout takes."""
    require_number(name, value, lambda rate: 0 <= rate < 1, "from 0 to below 1")


def require_seed(name: str, value: int, bits: int = 32) -> None:
    """`value` must be an integer that generators tell from every other: torch's on a CPU look at its low 32 bits, so
    that 2**32 would be 0 once more."""
    if not is_integer(value) or not 0 <= value < 2**bits:
        raise ValueError(f"{name}={shown(value)} must be an integer from 0 to below 2**{bits}")


def require_flag(**values: bool) -> None:
    """Each keyword must be True or False; "no" and 2 would otherwise silently count as True."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name}={value!r} must be True or False, got {type(value).__name__}")


def require_type(name: str, value: object, types: type | tuple[type, ...], what: str) -> None:
    """`value` must be an instance of `types`; `what` says so in words, "a model" for instance."""
    if not isinstance(value, types):
        raise TypeError(f"{name}={shown(value)} must be {what}, got {type(value).__name__}")


def require_model(model: object) -> None:
    """`model` must be an nn.Module."""
    require_type("model", model, nn.Module, "a module, for instance from vixlib.build")
    tensors = (*model.parameters(), *model.buffers())
    if any(isinstance(tensor, nn.parameter.UninitializedTensorMixin) for tensor in tensors):
        raise ValueError(f"model={type(model).__name__} has lazy parameters, which get their shapes from a first "
                         "batch; call it once on a batch of pictures")


def require_weights(model: nn.Module) -> None:
    """`model` must be an nn.Module whose tensors have numbers: on the meta device they have shapes alone."""
    require_model(model)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(f"model={type(model).__name__} is on the meta device and has no numbers to compute with; "
                         "build it on the CPU")


def as_path(name: str, value: object) -> Path:
    """The path that `value` names, "~" expanded, whether there is anything or not. The TypeError, ValueError or, where
    the system refuses to look, OSError says what is wrong with it."""
    require_type(name, value, (str, os.PathLike), "a path")
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(f"{name}={shown(value)} is a path in bytes; pass it as text, os.fsdecode({name})")
    if not text:
        raise ValueError(f"{name}={value!r} is empty; name a file or folder")
    if "\0" in text:
        raise ValueError(f"{name}={value!r} has a null character in it, which no path can; name a file or folder")
    try:
        path = Path(text).expanduser()
        path.stat()
    except UnicodeEncodeError:
        raise ValueError(f"{name}={text!a} has a character that no path can; name a file or folder") from None
    except RuntimeError:
        raise ValueError(f"{name}={text!r} begins with a home folder that is unknown; write the path in full") from None
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise OSError(error.errno, f"{name}={shown(text)} cannot be used: {error.strerror}; name another file or "
                      "folder, or change its permissions") from error
    return path


def as_file_path(name: str, value: object) -> Path:
    """The same for a path at which a file can be: not that of a folder."""
    path = as_path(name, value)
    if path.is_dir():
        raise ValueError(f"{name}={str(value)!r} is a folder; name a file in it")
    if path.exists() and not path.is_file():  # reading a pipe or a device need never end
        raise ValueError(f"{name}={str(value)!r} is a pipe or device; name a file")
    return path


def shown(value: object) -> str:
    """`value` in an error: on one line, in full where it is short."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no integer of thousands of digits
        text = f"{type(value).__name__} of very many digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def require_kinds(values: Mapping, kinds: Mapping[str, type | tuple[type, ...]], what: str) -> None:
    """`values`, read from a file, must have the types in `kinds`; the TypeError says what holds the first other one."""
    for name, kind in kinds.items():
        value = values.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{name}={shown(value)} of {what} has another type than vixlib writes")


def require_mapping(name: str, value: object) -> None:
    """`value` must be a dict or the like."""
    require_type(name, value, Mapping, "a dict")


def as_device(name: str, value: object) -> torch.device:
    """The torch.device that `value` names; the ValueError says what it may be."""
    try:
        if isinstance(value, bool) or not isinstance(value, (str, torch.device)):
            raise TypeError(type(value).__name__)
        return torch.device(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f'{name}={shown(value)} is no device; use "cpu", "cuda" or "cuda:0"') from error


def require_known(name: str, value: object, known: dict | list | tuple) -> None:
    """`value` must be one of `known`; the ValueError lists them."""
    # By type as well: True equals 1, and what cannot be hashed cannot be looked up.
    if not any(type(value) is type(choice) and value == choice for choice in known):
        raise ValueError(f"{name}={shown(value)} is unknown; use one of {', '.join(map(repr, known))}")


def machine_memory() -> int | None:
    """Bytes of memory that this machine has beside its GPUs; None where the system does not tell (Windows)."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


def require_room(numbers: int, **sizes: object) -> None:
    """`numbers` float32 numbers must fit this machine's memory; the ValueError names the `sizes` that make them so
    many. Without it torch fails deep inside, or the system ends the process."""
    if numbers <= ALWAYS_FITS or (memory := machine_memory()) is None:
        return
    if 4 * numbers > memory:
        named = ", ".join(f"{name}={value}" for name, value in sizes.items())
        raise ValueError(f"{named}: that takes {4 * numbers / 2**30:,.0f} GiB, more than this machine's "
                         f"{memory / 2**30:.0f}; use smaller sizes")


def require_like(name: str, x: Tensor, weight: Tensor | None) -> None:
    """`x` must be a tensor of floating-point numbers, on the device and (unless under autocast) of the type of
    `weight`."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}={shown(x)} must be a tensor, got {type(x).__name__}")
    require_strided(name, x)
    if not x.is_floating_point():
        raise TypeError(f"{name} has type {x.dtype}, but floating-point numbers are wanted; pictures of 0 ... 255 are "
                        "normalised by images.float().div(127.5).sub(1)")
    if weight is None:
        return
    if x.device != weight.device:
        raise ValueError(f"{name} is on {x.device}, but the weights are on {weight.device}; move one of them with .to")
    mixed = autocasts(x) and {x.dtype, weight.dtype} <= {torch.float32, *HALF}
    if x.dtype != weight.dtype and not mixed:
        raise TypeError(f"{name} has type {x.dtype}, but the weights are {weight.dtype}; change one of them with .to, "
                        "or compute under torch.autocast")


def require_strided(name: str, x: Tensor) -> None:
    """`x` must be an ordinary tensor, neither sparse nor nested."""
    if x.layout != torch.strided or x.is_nested:
        kind = "nested" if x.is_nested else x.layout
        raise TypeError(f"{name} is {kind}; pass an ordinary tensor, as x.to_dense() makes of a sparse one")


def require_logits(scores: object, images: Tensor, num_classes: int | None = None) -> None:
    """What a model made of `images` must be floating-point logits [B, num_classes]; None: of any number of classes."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        raise TypeError(f"the model turned {len(images)} images into {shown(scores)}, not into a floating-point tensor "
                        "of logits [B, num_classes]; return that alone")
    wanted = (len(images), num_classes if num_classes is not None else scores.shape[-1] if scores.ndim else 1)
    if scores.shape != wanted:
        fix = f"build it with num_classes={num_classes}" if scores.ndim == 2 else "return one row for each image"
        raise ValueError(f"the model turned {len(images)} images into {list(scores.shape)}, not into logits "
                         f"[{len(images)}, {'num_classes' if num_classes is None else num_classes}]; {fix}")


def require_mixed(mixed: object, x: Tensor, mixer: nn.Module) -> None:
    """What `mixer` made of tokens `x` must be floating-point tokens of the same shape and of no wider type; another
    shape might be broadcast over all tokens without a word."""
    if not isinstance(mixed, Tensor) or mixed.shape != x.shape:
        found = list(mixed.shape) if isinstance(mixed, Tensor) else type(mixed).__name__
        raise ValueError(f"{type(mixer).__name__} turned {list(x.shape)} into {found}; a mixer must return the shape "
                         "[B, N, D] that it was given")
    if not mixed.is_floating_point() or mixed.element_size() > x.element_size():
        raise TypeError(f"{type(mixer).__name__} turned {x.dtype} into {mixed.dtype}; a mixer must return the type "
                        "that it was given: end it with .to(x.dtype)")


def require_several(values: int, training: bool, shape: tuple[int, ...]) -> None:
    """Batch normalisation in training takes more than one value of each channel."""
    if training and values < 2:
        raise ValueError(f"batch normalisation got a shape of {tuple(shape)}, one value for each channel, and cannot "
                         "normalise that in training; use a batch_size that leaves no picture alone, or model.eval()")


def require_trainable(model: nn.Module, name: str) -> None:
    """`model`, called `name`, must have a parameter that training changes, and none of them in half precision."""
    if not any(parameter.requires_grad and parameter.numel() for parameter in model.parameters()):
        raise ValueError(f"model={name} has no parameters that are trained (requires_grad); pass another")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError(f"model={name} was made inside torch.inference_mode() and can never be trained; build it "
                         "outside")
    for key, parameter in model.named_parameters():  # under autocast they would run until an update is rounded away
        if parameter.requires_grad and parameter.dtype in HALF:
            raise TypeError(f"model={name} trains {key} in {parameter.dtype}, where small updates are lost; call "
                            "model.float(): precision decides in which type a step computes")


def copied(model: nn.Module, memo: dict | None = None) -> nn.Module:
    """A deep copy of `model`; the TypeError for a model that has none says why. memo: as copy.deepcopy takes it."""
    # A weight that a hook makes of others before each call (pruning, weight_norm) cannot be copied with its history.
    made = {id(tensor): tensor.detach().clone() for tensor in loose_tensors(model) if not tensor.is_leaf}
    try:
        return copy.deepcopy(model, {**made, **(memo or {})})
    except Exception as error:  # whatever a part of somebody else's raises
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise TypeError(f"model={type(model).__name__} cannot be copied ({reason}), and measuring it or averaging its "
                        "weights takes a copy; give the part that it speaks of a __deepcopy__ or leave it out"
                        ) from error


def loose_tensors(model: nn.Module) -> list[Tensor]:
    """Tensors that modules of `model` hold as plain attributes, neither as parameters nor as buffers."""
    return [value for part in model.modules() for value in vars(part).values() if isinstance(value, Tensor)]


def require_gradients(caller: str) -> None:
    """torch must not be in inference mode, whose tensors can never be trained with (under no_grad they can)."""
    if torch.is_inference_mode_enabled():
        raise ValueError(f"{caller} computes gradients, which torch.inference_mode() rules out; call it outside")


def require_graph(loss: Tensor, name: str) -> None:
    """`loss` of the model called `name` must lead back to something that is trained."""
    if not loss.requires_grad:
        raise ValueError(f"model={name} gives logits that depend on nothing that is trained; look in its forward for "
                         "torch.no_grad, detach, or numbers taken out of tensors")


def require_pair(name: str, value: object, what: str) -> None:
    """`value` must be a tuple or list of two integers; `what` says which, "(row, column)" for instance."""
    if not isinstance(value, (tuple, list)) or [type(number) for number in value] != [int, int]:
        raise TypeError(f"{name}={shown(value)} must be a pair of integers {what}")


def require_grid(name: str, value: tuple[int, int]) -> None:
    """`value` must be (rows, columns), both at least 1."""
    require_pair(name, value, "(rows, columns)")
    require_count(**{f"{name}={value!r}: rows": value[0], f"{name}={value!r}: columns": value[1]})
