"""A Loader in a loop of Hugging Face's Accelerate, on one process or several.

accelerate launch --num_processes 2 examples/accelerate_loop.py [--store STORE]

Do not pass the Loader to `prepare`: it shares each epoch among the processes itself and puts batches on the device.
(`prepare` hands it back unchanged, as it does everything that is no DataLoader.)
"""

import torch
from accelerate import Accelerator

from prunekd import Distillation, Loader
from setting import BATCH_SIZE, SEED, VIEW, Seen, accuracy, options, small_network, store_and_half, trained_teacher


def main() -> None:
    given = options(__doc__)
    accelerator = Accelerator()
    device = accelerator.device
    store, half = store_and_half(given.store)
    teacher = trained_teacher(store, device)
    student = small_network(len(store.classes))
    model, optimizer = accelerator.prepare(student, torch.optim.AdamW(student.parameters(), lr=3e-3))
    loss_fn = Distillation(alpha=0.9, temperature=4.0)
    batch_size = BATCH_SIZE // accelerator.num_processes
    seen = Seen()
    with Loader(store, subset=half, batch_size=batch_size, view=VIEW, seed=SEED, device=device) as loader:
        accelerator.register_for_checkpointing(loader)  # save_state and load_state then go on in mid-epoch
        for epoch in range(given.epochs):
            loader.set_epoch(epoch)
            for images, labels, ids, weights in loader:
                loss = loss_fn(model(images), teacher(images), labels, weights)
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                seen.append(ids.tolist())
    accelerator.print(f"top-1: student on half of the data {accuracy(student, store, device):.3f}")
    seen.save(given.ids, accelerator.process_index)
    accelerator.end_training()


if __name__ == "__main__":
    main()
