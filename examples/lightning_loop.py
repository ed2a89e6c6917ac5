"""A Loader as the dataloader of a Lightning Trainer.

python examples/lightning_loop.py [--store STORE]

Lightning wraps no sampler around it: a Loader shares each epoch among the processes itself. Each iteration begins the
next epoch, so nothing need call `set_epoch`. Lightning keeps the Loader's state_dict in its checkpoints, so that
`fit(..., ckpt_path=...)` goes on in mid-epoch.
"""

import lightning
import torch
from torch import Tensor, nn

from prunekd import Batch, Distillation, Loader
from setting import BATCH_SIZE, SEED, VIEW, Seen, options, small_network, store_and_half, trained_teacher


class Student(lightning.LightningModule):
    def __init__(self, network: nn.Module, teacher: nn.Module, seen: Seen) -> None:
        super().__init__()
        self.network, self.teacher, self.seen = network, teacher, seen
        self.loss_fn = Distillation(alpha=0.9, temperature=4.0)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        images, labels, ids, weights = batch
        self.seen.append(ids.tolist())
        return self.loss_fn(self.network(images), self.teacher(images), labels, weights)

    def validation_step(self, batch: Batch, _: int) -> None:
        right = (self.network(batch.images).argmax(1) == batch.labels).float().mean()
        self.log("top1", right, batch_size=len(batch.labels), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.network.parameters(), lr=3e-3)


def main() -> None:
    given = options(__doc__)
    store, half = store_and_half(given.store)
    student = Student(small_network(len(store.classes)), trained_teacher(store, "cpu"), Seen())
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=given.epochs, **quiet)
    batch_size = BATCH_SIZE // trainer.world_size
    with (
        Loader(store, subset=half, batch_size=batch_size, view=VIEW, seed=SEED) as loader,
        Loader(store, "val", batch_size=256, size=VIEW.size) as val,
    ):
        trainer.fit(student, loader, val)
    print(f"top-1: student on half of the data {trainer.callback_metrics['top1']:.3f}")
    student.seen.save(given.ids, trainer.global_rank)


if __name__ == "__main__":
    main()
