"""Architectures by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prunekd.models import ModelCard, check_logits, create_model, load_trained, save_trained
from prunekd.models.trained import read_card

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


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_transformer_is_built_for_the_views_and_read_back(tmp_path: Path, name: str) -> None:
    model = create_model(name, 3, seed=0, size=64).eval()
    images = torch.zeros(1, 3, 64, 64)
    logits = model(images)
    assert logits.shape == (1, 3)
    save_trained(tmp_path / "m.safetensors", model, ModelCard(model=name, num_classes=3, size=64))
    again, _ = load_trained(tmp_path / "m.safetensors")
    assert torch.equal(again(images), logits)


def test_sizes_and_rates_that_a_model_cannot_have_are_refused() -> None:
    with pytest.raises(ValueError, match=r"made for images of 224 x 224 pixels and cannot be built for 8 x 8"):
        create_model("gmlp_s16_224", 3, size=8)
    with pytest.raises(ValueError, match=r"the student, a VisionTransformer, fails on images of 8 x 8"):
        check_logits(create_model("vit_tiny_patch16_224", 3, size=8), 3, 8, "the student")
    with pytest.raises(ValueError, match=r"vgg11 has no stochastic depth; set model\.drop_path to 0"):
        create_model("vgg11", 3, drop_path=0.1)


@pytest.mark.parametrize("card", ["{", "[]", "{}", '{"model": 3}'])
def test_a_damaged_card_is_named(tmp_path: Path, card: str) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "m.safetensors", metadata={"prunekd": card})
    with pytest.raises(ValueError, match=r"m\.safetensors has a model card that cannot be read"):
        read_card(tmp_path / "m.safetensors")
