"""What frameworks do with a Loader beyond iterating: nothing is sharded twice, and checkpoints go on in mid-epoch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from prunekd import Loader
from prunekd.store import Store
from support import require


def load(store: Store) -> Loader:
    return Loader(store, batch_size=8, size=12, workers=1)


def epochs(store: Store, count: int) -> list[list[int]]:
    with load(store) as loader:
        return [batch.ids.tolist() for _ in range(count) for batch in loader]


def test_lightning_goes_on_in_mid_epoch(tiny_store: Store, tmp_path: Path) -> None:
    lightning = require("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3 * 12 * 12, 4)
            self.seen: list[list[int]] = []

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            self.seen.append(batch.ids.tolist())
            return nn.functional.cross_entropy(self.layer(batch.images.flatten(1)), batch.labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    def fit(steps: int, path: Path | None) -> Module:
        module = Module()
        with load(tiny_store) as loader:
            trainer = lightning.Trainer(
                max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            trainer.fit(module, loader, ckpt_path=path)
            trainer.save_checkpoint(tmp_path / "checkpoint.ckpt")
        return module

    expected = epochs(tiny_store, 3)
    assert fit(17, None).seen == expected[:17]
    assert fit(30, tmp_path / "checkpoint.ckpt").seen == expected[17:30]


def test_accelerate_leaves_a_loader_alone_and_keeps_its_place(tiny_store: Store, tmp_path: Path) -> None:
    accelerator = require("accelerate").Accelerator(cpu=True)
    expected = epochs(tiny_store, 2)
    with load(tiny_store) as loader:
        assert accelerator.prepare(loader) is loader
        accelerator.register_for_checkpointing(loader)
        for number, batch in enumerate(loader):
            assert batch.ids.tolist() == expected[number]
            if number == 4:
                accelerator.save_state(str(tmp_path))
                break
        list(loader)
        accelerator.load_state(str(tmp_path))
        assert [batch.ids.tolist() for _ in range(2) for batch in loader] == expected[5:]
    accelerator.free_memory()


@pytest.mark.parametrize("named", [False, True])
def test_a_checkpoint_of_torch_keeps_a_loaders_place(tiny_store: Store, tmp_path: Path, named: bool) -> None:
    expected = epochs(tiny_store, 2)
    with load(tiny_store) as loader:
        for _, _ in zip(range(3), loader, strict=False):
            pass
        torch.save({"loader": loader.state_dict()}, tmp_path / "checkpoint.pt")
    with load(tiny_store) as loader:
        loader.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["loader"])
        found = []
        for epoch in range(loader.epoch, 2):
            if named:
                loader.set_epoch(epoch)
            found += [batch.ids.tolist() for batch in loader]
    assert found == expected[3:]
