"""Counting the bytes of tensors while they live: what a step keeps, and what it needs at its peak."""
from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import require_model


def kept_for_backward(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that live on after `forward()` for the backward pass, once per storage, without `model`'s parameters
    and buffers.

    Whatever was computed or read and is alive while the result's graph is; so it makes no difference who keeps it,
    autograd's own operations, a custom one or a checkpoint.
    """
    require_model(model)
    with Living((*model.parameters(), *model.buffers())) as living:
        result = forward()
    # The result itself is let go, unless an operation keeps its output. The graph is held through a view, which reads
    # nothing: one that ends in a custom operation would end with the result in older torch (2.11).
    graph = result.view_as(result).grad_fn
    del result
    # A model may make a buffer, a mask for instance, in its first call.
    own = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
           for tensor in (*model.parameters(), *model.buffers())}
    total = living.bytes - sum(own.values())
    del graph
    return total


class Living(TorchDispatchMode):
    """Counts the bytes of `tensors` and of whatever operations read or return, once per storage and while it lives.

    bytes: now; peak: the most so far.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self._known: dict[int, weakref.ref] = {}
        for tensor in tensors:
            self._count(tensor)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, Tensor):
                self._count(tensor)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return

        def gone(_) -> None:
            self.bytes -= size
            del self._known[key]  # the next storage may get its address

        self._known[key] = weakref.ref(storage, gone)  # `gone` is called when the storage is freed
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
