"""Trained models on disk: damaged weights are named, and those without a digest stay readable."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prunekd.models import ModelCard, create_model, load_trained, save_trained
from prunekd.models.trained import load_weights

CARD = ModelCard(model="cifar_resnet8", num_classes=3, size=12, classes=("a", "b", "c"))


def test_a_model_comes_back_from_either_kind_of_path(tmp_path: Path) -> None:
    model = create_model("cifar_resnet8", 3, seed=4)
    save_trained(str(tmp_path / "m.safetensors"), model, CARD)
    for path in (tmp_path / "m.safetensors", str(tmp_path / "m.safetensors")):
        again, card = load_trained(path)
        assert card == CARD
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = create_model("cifar_resnet8", 3, seed=4)
    save_trained(path, model, CARD)
    whole = path.read_bytes()
    for place in (-1, -len(whole) // 2):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        for load in (load_trained, lambda path: load_weights(model, path)):
            with pytest.raises(
                ValueError, match=r"m\.safetensors is damaged: its weights are not what its digest says"
            ):
                load(path)


def test_a_model_without_a_digest_is_read(tmp_path: Path) -> None:
    """0.1.0 wrote none."""
    path = tmp_path / "m.safetensors"
    save_trained(path, create_model("cifar_resnet8", 3, seed=4), CARD)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert len(metadata.pop("prunekd.digest")) == 64
    save_file(load_file(path), path, metadata=metadata)
    assert load_trained(path)[1] == CARD
