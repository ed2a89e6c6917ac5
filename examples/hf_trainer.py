"""A Loader in Hugging Face's Trainer, with a vision model of transformers as the student.

python examples/hf_trainer.py [--store STORE]

The Trainer wants a dictionary per batch, and asks `get_train_dataloader` what to iterate over. Checkpoints at the end
of epochs (`save_strategy="epoch"`) are gone on with exactly; one from mid-epoch begins its epoch again.
"""

import tempfile
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from prunekd import Distillation, Loader
from setting import BATCH_SIZE, SEED, VIEW, Seen, accuracy, options, store_and_half, trained_teacher


class Dictionaries:
    """A Loader's batches as the arguments of a transformers model, with the weights beside them."""

    def __init__(self, loader: Loader, seen: Seen) -> None:
        self.loader, self.seen, self.set_epoch = loader, seen, loader.set_epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Tensor | None]]:
        for images, labels, ids, weights in self.loader:
            self.seen.append(ids.tolist())
            yield {"pixel_values": images, "labels": labels, "weights": weights}


class Distiller(Trainer):
    def __init__(self, model: nn.Module, args: TrainingArguments, batches: Dictionaries, teacher: nn.Module) -> None:
        super().__init__(model, args)
        self.batches, self.teacher = batches, teacher
        self.loss_fn = Distillation(alpha=0.9, temperature=4.0)

    def get_train_dataloader(self) -> Any:
        return self.batches

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        images = inputs["pixel_values"]
        output = model(pixel_values=images)
        loss = self.loss_fn(output.logits, self.teacher(images), inputs["labels"], inputs["weights"])
        return (loss, output) if return_outputs else loss


def main() -> None:
    given = options(__doc__)
    store, half = store_and_half(given.store)
    arguments = TrainingArguments(
        tempfile.mkdtemp(), num_train_epochs=given.epochs, learning_rate=3e-3, save_strategy="no", report_to=[],
        disable_tqdm=True, logging_steps=20, ignore_data_skip=True,
    )  # fmt: skip
    device, batch_size = arguments.device, BATCH_SIZE // arguments.world_size
    teacher = trained_teacher(store, device)
    classes = len(store.classes)
    config = ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=classes
    )
    student, seen = ResNetForImageClassification(config), Seen()
    with Loader(store, subset=half, batch_size=batch_size, view=VIEW, seed=SEED, device=device) as loader:
        Distiller(student, arguments, Dictionaries(loader, seen), teacher).train()
    student.eval()
    top1 = accuracy(lambda images: student(images).logits, store, device)
    print(f"top-1: student on half of the data {top1:.3f}")
    seen.save(given.ids, arguments.process_index)


if __name__ == "__main__":
    main()
