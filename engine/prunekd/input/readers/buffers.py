"""Memory of batches, used again."""

import threading

import torch
from torch import Tensor


class Buffers:
    """Blocks for the images of a batch, uint8 (B, size, size, 3); threads may share it.

    With `pin` every block is a fresh one of PyTorch's pinned-memory cache, which is not reused before asynchronous
    copies out of it are done; giving it back is letting go of it.
    """

    def __init__(self, pin: bool) -> None:
        self._pin = pin
        self._free: list[Tensor] = []
        self._lock = threading.Lock()

    def take(self, batch_size: int, size: int) -> Tensor:
        """A block whose contents may be anything."""
        shape = (batch_size, size, size, 3)
        if self._pin:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        with self._lock:
            for i, buffer in enumerate(self._free):
                if buffer.shape == shape:
                    return self._free.pop(i)
            self._free.clear()  # blocks of another shape belong to another plan
        return torch.empty(shape, dtype=torch.uint8)

    def give_back(self, images: Tensor) -> None:
        """Let a block be taken again."""
        if not self._pin:
            with self._lock:
                self._free.append(images)

    def clear(self) -> None:
        """Free what is not in use."""
        with self._lock:
            self._free.clear()
