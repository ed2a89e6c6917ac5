"""Distillation alone: models and data of torchvision's, a DataLoader of PyTorch's, and only the loss from here.

python examples/torchvision_student.py [--epochs N]
"""

import argparse

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import FakeData
from torchvision.models import mobilenet_v3_small, resnet18
from torchvision.transforms import v2

from prunekd import Distillation

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description="Distillation with a torchvision student.")
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)])
    data = FakeData(96, (3, 32, 32), CLASSES, transform=to_tensor)  # put a dataset here
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = resnet18(num_classes=CLASSES).to(device).eval()  # and trained weights here
    student = mobilenet_v3_small(num_classes=CLASSES).to(device)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
    loss_fn = Distillation(alpha=0.9, temperature=4.0, label_smoothing=0.1)
    for epoch in range(given.epochs):
        total = torch.zeros((), device=device)
        for images, labels in DataLoader(data, batch_size=32, shuffle=True):
            images, labels = images.to(device), labels.to(device)
            with torch.autocast(device.type, dtype=torch.float16 if scaler.is_enabled() else torch.bfloat16):
                with torch.no_grad():
                    targets = teacher(images)
                logits = student(images)
            loss = loss_fn(logits, targets, labels)  # float32 whatever the logits are
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            total += loss.detach()
        print(f"epoch {epoch}: loss {total.item() / 3:.3f}")


if __name__ == "__main__":
    main()
