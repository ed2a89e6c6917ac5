"""Parts of the trainer on their own: mixing, averaging, watching, counting samples."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from prunekd.common.distributed import World
from prunekd.common.files import read_json
from prunekd.common.pixels import renormalize
from prunekd.training.ema import Ema
from prunekd.training.mix import Mixing, draw_mixing, mix_images, mix_labels
from prunekd.training.settings import MixSettings
from prunekd.training.watch import LossWatch, require_finite

WORLD = World(0, 1, torch.device("cpu"))


def test_mixup_is_the_formula_on_images_and_labels() -> None:
    images, labels = torch.rand(5, 3, 6, 4), torch.tensor([0, 2, 1, 1, 2])
    mixed = mix_images(images, Mixing(0.3, None))
    soft = mix_labels(labels, 3, Mixing(0.3, None))
    for i in range(5):
        torch.testing.assert_close(mixed[i], 0.3 * images[i] + 0.7 * images[4 - i])
        expected = torch.zeros(3)
        expected[labels[i]] += 0.3
        expected[labels[4 - i]] += 0.7
        torch.testing.assert_close(soft[i], expected)


@given(seed=st.integers(0, 2**40), step=st.integers(0, 2**40), height=st.integers(4, 40), width=st.integers(4, 40))
def test_cutmix_shares_are_the_shares_of_pixels(seed: int, step: int, height: int, width: int) -> None:
    mixing = draw_mixing(MixSettings(cutmix=1.0), seed, step, height, width)
    assert mixing is not None
    assert mixing.box is not None
    mixed = mix_images(torch.stack([torch.zeros(1, height, width), torch.ones(1, height, width)]), mixing)
    foreign = mixed[0].mean().item()
    assert foreign == pytest.approx(1 - mixing.share, abs=1e-6)
    assert mixed[1].mean().item() == pytest.approx(mixing.share, abs=1e-6)
    assert draw_mixing(MixSettings(cutmix=1.0), seed, step, height, width) == mixing


def test_mixing_is_drawn_as_settings_ask() -> None:
    def draws(settings: MixSettings) -> list[Mixing | None]:
        return [draw_mixing(settings, 3, step, 32, 32) for step in range(4000)]

    assert draws(MixSettings()) == [None] * 4000
    both = draws(MixSettings(mixup=0.8, cutmix=1.0, probability=0.5, switch=0.25))
    kinds = [None if m is None else m.box is not None for m in both]
    assert kinds.count(None) / 4000 == pytest.approx(0.5, abs=0.04)
    assert kinds.count(True) / 4000 == pytest.approx(0.125, abs=0.03)
    shares = np.array([m.share for m in draws(MixSettings(mixup=0.4)) if m is not None])
    assert len(shares) == 4000
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(0.25 / (2 * 0.4 + 1), abs=0.02)  # variance of Beta(a, a)


def test_the_average_follows_weights_and_statistics() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ema = Ema(model, 0.9)
    expected = {name: tensor.double().clone() for name, tensor in model.state_dict().items()}
    for _ in range(3):
        model(torch.randn(4, 3, 8, 8))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update()
        for name, tensor in model.state_dict().items():
            averaged = 0.9 * expected[name] + 0.1 * tensor.double()
            expected[name] = averaged if tensor.is_floating_point() else tensor.double()
    for name, tensor in ema.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)
    assert not ema.model.training
    other = Ema(model, 0.9)
    other.load_state_dict(copy.deepcopy(ema.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), ema.state_dict().values(), strict=True))


def test_the_watch_finds_the_first_bad_step_and_dumps_it(tmp_path: Path) -> None:
    watch = LossWatch()
    for step in range(6):
        losses = torch.ones(3)
        if step in (3, 5):
            losses[1] = float("nan")
        watch.add(step, torch.arange(3) + 10 * step, losses)
    with pytest.raises(RuntimeError, match=r"not finite at step 3 of epoch 2.*none yet"):
        require_finite(watch, WORLD, tmp_path, 2)
    dump = read_json(tmp_path / "nonfinite-rank0.json")
    assert dump["step"] == 3
    assert dump["samples"] == [{"id": 30, "loss": "1.0"}, {"id": 31, "loss": "nan"}, {"id": 32, "loss": "1.0"}]
    require_finite(watch, WORLD, tmp_path, 2)  # what was looked at is forgotten


def test_renormalising_is_undoing_and_doing_again() -> None:
    pixels = torch.rand(2, 3, 4, 4)
    before, after = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def normalised(stats: tuple[tuple[float, ...], tuple[float, ...]]) -> torch.Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in stats)
        return (pixels - mean) / std

    torch.testing.assert_close(renormalize(normalised(before), before, after), normalised(after))
