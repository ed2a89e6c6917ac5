"""normalize on every backend against float64 arithmetic."""

import pytest
import torch

from prunekd_kernels import normalize

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-11}
"""Relative to 1 + |value|; bfloat16 is truncated by Triton's interpreter."""


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("flip", [True, False], ids=["flip", "no flip"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 9), (3, 32, 32), (2, 40, 70)], ids=str)
def test_matches_float64(backend, device, dtype, flip, shape, generator):
    images = torch.randint(0, 256, (*shape, 3), generator=generator, dtype=torch.uint8)
    mirrored = torch.rand(shape[0], generator=generator) < 0.5 if flip else None
    wanted = (images.double() - torch.tensor(MEAN)) / torch.tensor(STD)
    if mirrored is not None:
        wanted[mirrored] = wanted[mirrored].flip(2)
    got = normalize(
        images.to(device), MEAN, STD, None if mirrored is None else mirrored.to(device), dtype, backend=backend
    )
    assert got.dtype == dtype
    assert got.shape == (shape[0], 3, *shape[1:])
    assert got.is_contiguous(memory_format=torch.channels_last)
    error = (got.cpu().double().permute(0, 2, 3, 1) - wanted).abs() / (1 + wanted.abs())
    assert error.max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channel_counts(backend, device, channels, generator):
    images = torch.randint(0, 256, (2, 3, 5, channels), generator=generator, dtype=torch.uint8)
    got = normalize(images.to(device), MEAN[:1] * channels, STD[:1] * channels, backend=backend)
    wanted = (images.float() - MEAN[0]) / STD[0]
    torch.testing.assert_close(got.cpu(), wanted.permute(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


def test_channels_last_batches_are_read_in_place_and_others_copied(backend, device, generator):
    batch = torch.randint(0, 256, (3, 3, 6, 8), generator=generator, dtype=torch.uint8).to(device)
    last = batch.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    assert last.is_contiguous()
    first = batch.permute(0, 2, 3, 1)
    assert torch.equal(normalize(last, MEAN, STD, backend=backend), normalize(first, MEAN, STD, backend=backend))


def test_empty_batch(backend, device):
    got = normalize(torch.empty(0, 4, 4, 3, dtype=torch.uint8, device=device), MEAN, STD, backend=backend)
    assert got.shape == (0, 3, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 4, 4, 3), MEAN, STD), "uint8"),
        ((torch.zeros(2, 3, 8, 9, dtype=torch.uint8), MEAN, STD), "1 to 4"),
        ((torch.zeros(2, 8, 8, 1, dtype=torch.uint8), MEAN, STD), r"permute\(0, 2, 3, 1\)"),
        ((torch.zeros(2, 4, 4, 3, dtype=torch.uint8), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), "pixel units"),
        ((torch.zeros(2, 4, 4, 3, dtype=torch.uint8), MEAN, STD, torch.zeros(3, dtype=torch.bool)),
         r"expected \(2,\) bool"),
        ((torch.zeros(2, 4, 4, 3, dtype=torch.uint8), MEAN, STD, None, torch.float64), "not offered"),
    ],
)  # fmt: skip
def test_errors_name_value_and_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        normalize(*arguments)
