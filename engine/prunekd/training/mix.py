"""Mixup and CutMix as a pure function of (seed, step): a resumed run mixes as the uninterrupted one did."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from prunekd.common.philox import MIX, random_words
from prunekd.training.settings import MixSettings


class Mixing(NamedTuple):
    """How one batch is mixed: share of the image itself in (0, 1]; box (top, left, height, width) for CutMix."""

    share: float
    box: tuple[int, int, int, int] | None


def draw_mixing(settings: MixSettings, seed: int, step: int, height: int, width: int) -> Mixing | None:
    """How to mix the batch of optimizer step `step`, None for not at all.

    The share is Beta(a, a) distributed; CutMix's box has the area 1 - share of the image around a uniform centre and is
    cut off at the borders, which the share returned takes into account.
    """
    if not settings.on:
        return None
    words = random_words(seed, 0, MIX, np.array([step]))[:, 0]
    rng = np.random.Generator(np.random.Philox(key=words[:2]))
    if rng.random() >= settings.probability:
        return None
    cut = settings.cutmix > 0 and (settings.mixup == 0 or rng.random() < settings.switch)
    parameter = settings.cutmix if cut else settings.mixup
    share = float(rng.beta(parameter, parameter))
    if not cut:
        return Mixing(share, None)
    side = (1 - share) ** 0.5
    top, bottom = _cut(rng.random(), side, height)
    left, right = _cut(rng.random(), side, width)
    area = (bottom - top) * (right - left) / (height * width)
    return Mixing(1 - area, (top, left, bottom - top, right - left))


def _cut(centre: float, side: float, length: int) -> tuple[int, int]:
    middle, half = int(centre * length), int(side * length) // 2
    return max(0, middle - half), min(length, middle + half)


def mix_images(images: Tensor, mixing: Mixing) -> Tensor:
    """Mix each image (B, C, H, W) with the one that mirrors it in the batch's order."""
    other = images.flip(0)
    if mixing.box is None:
        return torch.lerp(other, images, mixing.share)
    top, left, height, width = mixing.box
    mixed = images.clone()
    part = (..., slice(top, top + height), slice(left, left + width))
    mixed[part] = other[part]
    return mixed


def mix_labels(labels: Tensor, num_classes: int, mixing: Mixing) -> Tensor:
    """Labels (B,) as soft labels float32 (B, num_classes), mixed as `mix_images` mixes the images."""
    one_hot = F.one_hot(labels, num_classes).float()
    return torch.lerp(one_hot.flip(0), one_hot, mixing.share)
