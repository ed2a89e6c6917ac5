"""The frozen teacher against the plain model it was made from."""

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from prunekd.distill import OnlineTeacher, TeacherSettings, open_teacher
from prunekd.distill.fold import fold_batch_norm
from prunekd.distill.teacher_files import load_teacher_model
from prunekd.models import ModelCard, create_model, save_trained

CARD = ModelCard(model="cifar_resnet8", num_classes=4, size=16, classes=("a", "b", "c", "d"))


def lived_in(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms the statistics and weights of a trained network, so that folding has something to do."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features, generator=generator) * 0.2
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
            module.weight.data = torch.rand(module.num_features, generator=generator) + 0.5
            module.bias.data = torch.randn(module.num_features, generator=generator) * 0.2
    return model.eval()


@pytest.mark.parametrize("name", ["cifar_resnet14", "resnet18", "mobilenetv3_small_050", "densenet121"])
def test_folding_keeps_the_logits_and_removes_batch_norms(name: str) -> None:
    model = lived_in(create_model(name, 7, seed=1))
    example = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    folded, count = fold_batch_norm(model, example)
    before = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    after = sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert count > 0
    assert before - after == count
    other = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(folded(other), model(other), rtol=1e-3, atol=1e-4)


def test_a_convolution_used_beside_its_norm_is_an_error_not_a_drift() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return (self.bn(y) + y).mean((2, 3))

    with pytest.raises(RuntimeError, match="folding batch norm changed a logit"):
        fold_batch_norm(lived_in(Both()), torch.randn(2, 3, 8, 8))


def test_teacher_is_frozen_and_gives_the_plain_models_logits() -> None:
    model = lived_in(create_model("cifar_resnet8", 4, seed=3))
    teacher = OnlineTeacher(model, CARD, TeacherSettings(dtype=torch.float32))
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8).to(memory_format=torch.channels_last)
    mean, std = torch.tensor(CARD.mean).view(1, 3, 1, 1), torch.tensor(CARD.std).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = model((images.float() / 255 - mean) / std)
    got = teacher(images)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
    assert not got.requires_grad
    assert not isinstance(teacher, nn.Module)
    assert "batch norms folded" in repr(teacher)


def test_bf16_teacher_drifts_little() -> None:
    model = lived_in(create_model("cifar_resnet8", 4, seed=4))
    images = torch.randint(0, 256, (16, 3, 16, 16), dtype=torch.uint8).to(memory_format=torch.channels_last)
    exact = OnlineTeacher(model, CARD, TeacherSettings(dtype=torch.float32))(images)
    half = OnlineTeacher(model, CARD, TeacherSettings(dtype=torch.bfloat16))(images)
    assert (half.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_pixels_and_normalized_images_are_told_apart() -> None:
    teacher = OnlineTeacher(
        lived_in(create_model("cifar_resnet8", 4, seed=0)), CARD, TeacherSettings(dtype=torch.float32)
    )
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8).to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CARD.mean, CARD.std))
    normalized = (pixels / 255 - mean) / std
    torch.testing.assert_close(teacher.from_normalized(normalized), teacher(pixels), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"torch\.float32; a teacher takes uint8 pixels .*from_normalized"):
        teacher(normalized)


def test_class_count_and_class_names_must_be_the_stores() -> None:
    teacher = OnlineTeacher(create_model("cifar_resnet8", 4, seed=0), CARD, TeacherSettings())
    teacher.check_fits(("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="4 classes and the store has 3"):
        teacher.check_fits(("a", "b", "c"))
    with pytest.raises(ValueError, match="class 1 is 'b' for the teacher and 'c' in the store"):
        teacher.check_fits(("a", "c", "b", "d"))


def test_a_teacher_is_found_in_a_run_a_file_and_a_foreign_state_dict(tmp_path: Path) -> None:
    model = lived_in(create_model("cifar_resnet8", 4, seed=5))
    save_trained(tmp_path / "model.safetensors", model, CARD)
    foreign = timm.create_model("resnet18", num_classes=6)
    wrapped = {"state_dict": {f"module.{k}": v for k, v in foreign.state_dict().items()}}
    torch.save(wrapped, tmp_path / "foreign.pth")
    for spec in (str(tmp_path), str(tmp_path / "model.safetensors")):
        loaded, card = load_teacher_model(spec)
        assert card == CARD
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    loaded, card = load_teacher_model(f"resnet18@{tmp_path / 'foreign.pth'}")
    assert card.num_classes == 6
    assert torch.equal(loaded.fc.weight, foreign.fc.weight)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "does not exist; give a run folder"),
        ("timm:resnet1", "unknown model 'resnet1'"),
        ("resnet18@nowhere.pth", "nowhere.pth does not exist"),
    ],
)
def test_wrong_specs_are_named_with_the_remedy(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_teacher(spec, ("a",), TeacherSettings())


def test_weights_of_another_model_and_unfinished_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a finished run"):
        load_teacher_model(str(tmp_path))
    torch.save(timm.create_model("resnet18", num_classes=6).state_dict(), tmp_path / "r18.pth")
    with pytest.raises(ValueError, match=r"r18\.pth do not fit ResNet"):
        load_teacher_model(f"resnet34@{tmp_path / 'r18.pth'}")
    with pytest.raises(ValueError, match="give it as ARCHITECTURE@"):
        load_teacher_model(str(tmp_path / "r18.pth"))
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match=r"broken\.safetensors cannot be read"):
        load_teacher_model(str(tmp_path / "broken.safetensors"))


def test_a_pretrained_model_comes_with_timms_own_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are made here; which model is asked for and what its card says is timm's."""
    asked: list[tuple[str, int, bool]] = []

    def without_download(name: str, num_classes: int, *, pretrained: bool = False) -> nn.Module:
        asked.append((name, num_classes, pretrained))
        return create_model(name, num_classes, seed=0)

    monkeypatch.setattr("prunekd.distill.teacher_files.create_model", without_download)
    model, card = load_teacher_model("timm:mobilenetv3_small_050.lamb_in1k")
    assert asked == [("mobilenetv3_small_050.lamb_in1k", 1000, True)]
    config = timm.get_pretrained_cfg("mobilenetv3_small_050.lamb_in1k")
    assert (card.mean, card.std, card.size) == (tuple(config.mean), tuple(config.std), config.input_size[-1])
    assert card.num_classes == 1000
    assert not model.training
