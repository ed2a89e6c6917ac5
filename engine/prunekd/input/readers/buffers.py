"""Memory of batches, used again once nothing refers to it."""

import weakref
from collections import deque

import torch
from torch import Tensor

IDLE = 8  # blocks kept for later at most, whatever was held at a time


class Buffers:
    """Blocks for the images of a batch, uint8 (B, size, size, 3); threads may share it.

    A block is taken again only when every tensor and array over its memory is gone, so a batch lives as long as
    something refers to it. With `pin` every block is a fresh one of PyTorch's pinned-memory cache, which is not reused
    before asynchronous copies out of it are done.
    """

    def __init__(self, pin: bool) -> None:
        self._pin = pin
        # a deque, since its `append` and `pop` need no lock: the last reference to a block may go anywhere, even in a
        # garbage collection while this very object is in use
        self._idle: deque[Tensor] = deque(maxlen=IDLE)

    def take(self, batch_size: int, size: int) -> Tensor:
        """A block whose contents may be anything."""
        shape = (batch_size, size, size, 3)
        if self._pin:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        block = self._reused(shape)
        # All tensors over the memory share one storage, which holds `lent`; so when `lent` goes, all have gone.
        lent = block.numpy().view()
        weakref.finalize(lent, self._idle.append, block).atexit = False
        return torch.from_numpy(lent)

    def clear(self) -> None:
        """Free what is not in use."""
        self._idle.clear()

    def _reused(self, shape: tuple[int, ...]) -> Tensor:
        while self._idle:
            try:
                block = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if block.shape == shape:
                return block  # one of another shape belongs to another plan and is dropped
        return torch.empty(shape, dtype=torch.uint8)
