"""A teacher's network: one model or several, each with its own normalisation and resolution, features beside logits."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prunekd.common.private_apis import frozen_weights
from prunekd.distill.fold import fold_batch_norm
from prunekd.models import ModelCard


class Member(nn.Module):
    """One model of a teacher, as what comes before its last linear layer (`trunk`) and that layer (`head`).

    Args:
        model: float32, in eval mode; taken over and changed.
        card: its normalisation.
        shown: the card whose normalisation the images come with.
        size: side of the square the images are resized to; None takes them as they are.
    """

    def __init__(self, model: nn.Module, card: ModelCard, shown: ModelCard, size: int | None, split: bool) -> None:
        super().__init__()
        self.size = size
        self.head = _take_classifier(model, _example(card)) if split else None
        self.trunk = model
        self.scale: Tensor | None
        self.shift: Tensor | None
        (mean, std), (old_mean, old_std) = ((torch.tensor(c.mean), torch.tensor(c.std)) for c in (card, shown))
        same = (card.mean, card.std) == (shown.mean, shown.std)
        self.register_buffer("scale", None if same else (old_std / std).view(1, 3, 1, 1))
        self.register_buffer("shift", None if same else ((old_mean - mean) / std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> (features (B, F), logits (B, C)); without a head the features are the logits."""
        if self.scale is not None and self.shift is not None:
            images = torch.addcmul(self.shift, images, self.scale)
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            shrinks = self.size < images.shape[-1]
            wide = images.float() if shrinks else images  # there is no 16-bit antialiasing on CPUs
            resized = F.interpolate(wide, (self.size, self.size), mode="bilinear", antialias=shrinks)
            images = resized.to(images.dtype)
        features = self.trunk(images)
        return features, features if self.head is None else self.head(features)


class TeacherNetwork(nn.Module):
    """The mean of the members' logits; `features` are those of a single member.

    Args:
        members: models, float32, in eval mode, with their cards; copied.
        size: None shows every member the images as they are, `own` resizes them to its card's size, a number to that.
        fold: fold batch norms into the convolutions.
        split: find the last linear layers, so that features come beside the logits.
    """

    def __init__(
        self, members: Sequence[tuple[nn.Module, ModelCard]], *, size: int | str | None, fold: bool, split: bool
    ) -> None:
        super().__init__()
        self.folded = 0
        parts = []
        for model, card in members:
            if fold:
                own, folded = fold_batch_norm(model, _example(card))
                self.folded += folded
            else:
                own = copy.deepcopy(model)
            side = card.size if size == "own" else size
            assert side is None or isinstance(side, int)
            parts.append(Member(own, card, members[0][1], side, split))
        self.members = nn.ModuleList(parts)
        self.has_features = len(parts) == 1 and parts[0].head is not None

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W), normalised as the first member's card says -> (features (B, F), logits (B, C))."""
        features, logits = self.members[0](images)
        if len(self.members) == 1:
            return features, logits
        total = logits.float()
        for member in self.members[1:]:
            total = total + member(images)[1]
        return features, (total / len(self.members)).to(logits.dtype)


def compile_network(network: nn.Module, example: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Compile a frozen network for inputs like `example`: weights as constants on CPUs, a CUDA graph on GPUs."""
    if example.device.type != "cuda":
        compiled: Any = torch.compile(network, dynamic=False)
        with frozen_weights():
            compiled(example)
        return lambda images: compiled(images)
    graph: Any = torch.compile(network, dynamic=False, mode="reduce-overhead")

    def replay(images: Tensor) -> tuple[Tensor, Tensor]:
        # a graph writes its outputs to the same memory every time, so what is handed out must be a copy
        torch.compiler.cudagraph_mark_step_begin()
        features, logits = graph(images)
        return features.clone(), logits.clone()

    for _ in range(3):  # the graph is recorded in the second call
        replay(example)
    return replay


def _example(card: ModelCard) -> Tensor:
    return torch.randn(2, 3, card.size, card.size, generator=torch.Generator().manual_seed(0))


def _take_classifier(model: nn.Module, example: Tensor) -> nn.Module | None:
    """Take a model's last linear layer out, if the logits are that layer's output; None leaves the model whole."""
    find = getattr(model, "get_classifier", None)
    linear = find() if find else next((m for m in reversed(list(model.modules())) if isinstance(m, nn.Linear)), None)
    name = next((name for name, module in model.named_modules() if module is linear), None)
    if not isinstance(linear, nn.Linear) or name is None:
        return None
    calls: list[tuple[Tensor, Tensor]] = []
    hook = linear.register_forward_hook(lambda _module, inputs, output: calls.append((inputs[0], output)))
    with torch.no_grad():
        logits = model(example)
    hook.remove()
    if len(calls) != 1 or calls[0][0].dim() != 2 or not torch.equal(calls[0][1], logits):
        return None
    model.set_submodule(name, nn.Identity())
    return linear
