"""Architectures by name."""

import pytest
import torch

from prunekd.models import create_model

# Millions of parameters with option A shortcuts and 10 classes: He et al. 2016, table 6
PUBLISHED_MILLIONS = {20: 0.27, 32: 0.46, 56: 0.85, 110: 1.7}


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 56, 110])
def test_cifar_resnet_shapes_depth_and_size(depth: int) -> None:
    model = create_model(f"cifar_resnet{depth}", 10, seed=0).eval()
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(layers) == depth
    if depth in PUBLISHED_MILLIONS:
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        assert millions == pytest.approx(PUBLISHED_MILLIONS[depth], abs=0.05)
    with torch.no_grad():
        x = torch.randn(2, 3, 32, 32)
        features = model.forward_features(x)
        assert features.shape == (2, 64, 8, 8)
        assert model.forward_head(features, pre_logits=True).shape == (2, 64)
        torch.testing.assert_close(model(x), model.forward_head(features))


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = create_model("cifar_resnet8", 5, seed=3), create_model("cifar_resnet8", 5, seed=3)
    other = create_model("cifar_resnet8", 5, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet19", "did you mean"), ("cifar_resnet9", "cifar_resnet8"), ("nonsense_x", "unknown model")],
)
def test_unknown_names_are_errors_with_a_hint(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, 10)


def test_cifar_resnets_have_no_pretrained_weights_or_drop_path() -> None:
    with pytest.raises(ValueError, match="no pretrained weights"):
        create_model("cifar_resnet8", 10, pretrained=True)
    with pytest.raises(ValueError, match=r"set model\.drop_path to 0"):
        create_model("cifar_resnet8", 10, drop_path=0.1)
