"""What does scoring cost beside the forward passes it needs anyway?

    python benchmarks/scoring.py [STORE] [--teacher RUN] [--model resnet18] [--size 128] [--rounds 5]

Three passes over the training split take turns: plain inference (the same reader, the same teacher, the class of the
largest logit of each image brought to the host), the scores that need logits alone, and every teacher-derived score,
those on features included. One row each is appended to benchmarks/results/scoring.csv: seconds, median and 20th and
80th percentile, and the ratio of the medians to plain inference. Without STORE, photographs are made up; without
--teacher, the teacher has weights drawn at random, which costs the same.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from epoch_time import made_up
from prunekd.common.distributed import World
from prunekd.distill import OnlineTeacher, TeacherSettings, open_teacher
from prunekd.inference.score_pass import score_store
from prunekd.input import ViewSettings, eval_plan, open_reader
from prunekd.models import ModelCard, create_model
from prunekd.models.trained import IMAGENET_MEAN, IMAGENET_STD
from prunekd.pruning.scores import FEATURE_SCORES, SCORES
from prunekd.store import Store, open_store
from recording import RESULTS, append_rows, circumstances, spread

BATCH = 256


def inference(store: Store, teacher: OnlineTeacher, view: ViewSettings, device: torch.device) -> None:
    """Predict the class of every training sample."""
    split = store.split("train")
    with open_reader("native", store, "train", pin=device.type == "cuda") as reader, torch.no_grad():
        for batch in reader.epoch(eval_plan(split, batch_size=BATCH, view=view, seed=0)):
            teacher(batch.images.to(device, non_blocking=True)).argmax(dim=1).cpu()


def passes(store: Store, teacher: OnlineTeacher, view: ViewSettings, device: torch.device) -> dict[str, Callable]:
    world = World(0, 1, device)
    logits_only = [name for name, score in SCORES.items() if not score.needs_features]

    def scored(names: list[str]) -> Callable[[], object]:
        return lambda: score_store(store, teacher, view, world, names=names, batch_size=BATCH)

    return {
        "plain inference": lambda: inference(store, teacher, view, device),
        f"{len(logits_only)} scores of logits": scored(logits_only),
        f"all {len(SCORES) + len(FEATURE_SCORES)} scores": scored([*SCORES, *FEATURE_SCORES]),
    }


def make_teacher(store: Store, spec: str | None, model: str, size: int, settings: TeacherSettings) -> OnlineTeacher:
    if spec:
        return open_teacher(spec, store.classes, settings)
    classes = len(store.classes)
    card = ModelCard(model=model, num_classes=classes, mean=IMAGENET_MEAN, std=IMAGENET_STD, size=size)
    return OnlineTeacher(create_model(model, classes, seed=0), card, settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--teacher")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(options.store) if options.store else made_up(Path(folder))
        settings = TeacherSettings(device=device, channels_last=None)
        teacher = make_teacher(store, options.teacher, options.model, options.size, settings)
        view = ViewSettings(kind="center", size=options.size)
        found = passes(store, teacher, view, device)
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for number in range(options.rounds + 1):
            turn = number % len(found)  # nobody is always first
            for name, call in [*found.items()][turn:] + [*found.items()][:turn]:
                started = time.perf_counter()
                call()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - started)
                    print(number, name, round(seconds[name][-1], 2), flush=True)
    images = len(store.split("train"))
    facts = {"model": teacher.card.model, "size": options.size, "images": images, "classes": len(store.classes)}
    rows = [
        {"pass": name, **facts, **spread("seconds", values, 3), "rounds": options.rounds}
        for name, values in seconds.items()
    ]
    plain = rows[0]["seconds_median"]
    for row in rows:
        row["of_plain"] = round(row["seconds_median"] / plain, 3)
        print(f"{row['pass']:20s} {row['seconds_median']:7.2f} s  {row['of_plain']:.3f} x plain inference")
    append_rows(RESULTS / "scoring.csv", [row | circumstances() for row in rows])


if __name__ == "__main__":
    main()
