"""Teachers from paths, modules and open ones."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import prunekd
from prunekd.store import Store

HALF = (0.5, 0.5, 0.5)


def images() -> torch.Tensor:
    """uint8 (5, 3, 12, 12)."""
    return torch.randint(0, 256, (5, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_module_gives_the_logits_of_the_same_weights_from_a_run(tiny_store: Store, teacher_run: prunekd.Run) -> None:
    module = teacher_run.load_model()
    by_path = prunekd.open_teacher(teacher_run.path, tiny_store.path, precision="fp32", compile="off", device="cpu")
    by_module = prunekd.open_teacher(
        module, tiny_store, precision="fp32", compile="off", device=torch.device("cpu"),
        mean=HALF, std=HALF, classes=tiny_store.classes,
    )  # fmt: skip
    assert torch.equal(by_module(images()), by_path(images()))
    assert by_module.digest == by_path.digest
    assert by_path.describe()["spec"] == str(teacher_run.path)
    assert by_module.describe()["spec"] == "module"
    assert by_module.describe()["model"] == "CifarResNet"
    assert prunekd.open_teacher(by_module, tiny_store) is by_module


def test_a_module_stays_as_it_was(tiny_store: Store, teacher_run: prunekd.Run) -> None:
    module = teacher_run.load_model().train()
    before = copy.deepcopy(module.state_dict())
    teacher = prunekd.open_teacher(module, tiny_store, mean=HALF, std=HALF, classes=tiny_store.classes, device="cpu")
    teacher(images())
    assert all(part.training for part in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())
    after = module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    expected = teacher(images())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert torch.equal(teacher(images()), expected)  # the teacher has weights of its own


def wrong_size() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 5 * 5, 4))


def wrong_classes() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))


def wrong_output() -> nn.Module:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    return Pair()


@pytest.mark.parametrize(
    ("make", "more", "message"),
    [
        (wrong_classes, {"mean": HALF}, r"std, classes are missing; give mean and std"),
        (wrong_classes, {"mean": HALF, "std": HALF, "classes": "abcd"}, r"gives \(2, 7\) for 2 images and 4 classes"),
        (wrong_classes, {"mean": HALF, "std": HALF, "classes": "abcdefg"}, "has 7 classes and the store has 4"),
        (wrong_size, {"mean": HALF, "std": HALF, "classes": "abcd"}, "fails on images of 12 x 12 pixels"),
        (wrong_output, {"mean": HALF, "std": HALF, "classes": "abcd"}, "gives tuple for 2 images"),
        (wrong_classes, {"mean": (0.5,), "std": HALF, "classes": "abcdefg"}, "three numbers each"),
        (wrong_classes, {"mean": HALF, "std": HALF, "classes": "abcdefg", "size": "own"}, "give the side in pixels"),
        (wrong_classes, {"precision": "fp8", "mean": HALF, "std": HALF, "classes": "abcdefg"}, "it must be bf16"),
    ],
)
def test_a_module_that_cannot_be_the_teacher_is_refused(
    tiny_store: Store, make: type[nn.Module], more: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prunekd.open_teacher(make(), tiny_store, device="cpu", **more)  # type: ignore[arg-type]


def test_a_module_is_opened_before_it_is_used(tiny_store: Store, teacher_run: prunekd.Run) -> None:
    with pytest.raises(ValueError, match=r"open it first: prunekd\.open_teacher"):
        prunekd.score(tiny_store, teacher_run.load_model(), device="cpu")
    with pytest.raises(ValueError, match="mean describe a module"):
        prunekd.open_teacher(teacher_run.path, tiny_store, mean=HALF, device="cpu")


@pytest.mark.parametrize("device", ["tpu", "meta", torch.device("meta")])
def test_a_device_that_is_not_one_is_named(
    tiny_store: Store, teacher_run: prunekd.Run, device: str | torch.device
) -> None:
    with pytest.raises(ValueError, match="it must be auto, cpu, cuda"):
        prunekd.open_teacher(teacher_run.path, tiny_store, device=device)


def test_a_module_wrapped_for_several_processes_is_refused(tiny_store: Store, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(wrong_classes())
        with pytest.raises(ValueError, match=r"give the module itself \(module\.module\)"):
            prunekd.open_teacher(wrapped, tiny_store, mean=HALF, std=HALF, classes="abcdefg", device="cpu")
        with pytest.raises(ValueError, match="the student is wrapped"):
            prunekd.train(tiny_store, recipe="demo", model=wrapped, out=tmp_path / "run")
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()
