"""Soft labels: what a cached teacher says of a batch."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftLabels:
    """A teacher's logits for a batch, all of them or the top K.

    Attributes:
        logits: float16 (B, C) of all classes if `ids` is None, otherwise (B, K).
        ids: int16 or int32 (B, K), the classes of the K largest logits, the largest first; None for all classes.
        std: float32 (B,), unbiased standard deviation of all C logits; None without `ids`.
        logsumexp: float32 (B,), logsumexp(z / temperature) over all C logits; None without `ids`.
        temperature: that of `logsumexp`.
    """

    logits: Tensor
    ids: Tensor | None = None
    std: Tensor | None = None
    logsumexp: Tensor | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        assert self.ids is None or (self.std is not None and self.logsumexp is not None)

    def __len__(self) -> int:
        return len(self.logits)

    def to(self, device: torch.device) -> "SoftLabels":
        """The same on `device`; from pinned memory without waiting for the copy."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return SoftLabels(
            logits=self.logits.to(device, non_blocking=True),
            ids=move(self.ids),
            std=move(self.std),
            logsumexp=move(self.logsumexp),
            temperature=self.temperature,
        )

    def part(self, rows: slice) -> "SoftLabels":
        """Some of the batch, as views."""

        def cut(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[rows]

        return SoftLabels(
            logits=self.logits[rows],
            ids=cut(self.ids),
            std=cut(self.std),
            logsumexp=cut(self.logsumexp),
            temperature=self.temperature,
        )
