"""Distill on half of the data in a training loop of one's own.

python examples/plain_loop.py [--store STORE]
"""

import torch

from prunekd import Distillation, Loader
from setting import BATCH_SIZE, SEED, VIEW, Seen, accuracy, options, small_network, store_and_half, trained_teacher


def main() -> None:
    given = options(__doc__)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store, half = store_and_half(given.store)
    teacher = trained_teacher(store, device)
    student = small_network(len(store.classes)).to(device)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    loss_fn = Distillation(alpha=0.9, temperature=4.0)
    seen = Seen()
    with Loader(store, subset=half, batch_size=BATCH_SIZE, view=VIEW, seed=SEED, device=device) as loader:
        for epoch in range(given.epochs):
            loader.set_epoch(epoch)
            for images, labels, ids, weights in loader:
                loss = loss_fn(student(images), teacher(images), labels, weights)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen.append(ids.tolist())
    print(f"top-1: teacher {accuracy(teacher, store, device):.3f}, ", end="")
    print(f"student on half of the data {accuracy(student, store, device):.3f}")
    seen.save(given.ids)


if __name__ == "__main__":
    main()
