"""prunekd.train: paths and objects alike, a student of one's own, a process group of one's own."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import prunekd
from prunekd.api.scoring import merge_scores
from prunekd.store import Store
from prunekd.training.recipe import as_recipe


class Tiny(nn.Module):
    """A student that no recipe names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(images).mean((2, 3)))
        return out


def weights(run: prunekd.Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "model.safetensors")


def test_paths_and_objects_train_the_same_run(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path
) -> None:
    scores = prunekd.score(tiny_store, teacher_run.path, device="cpu")
    half = prunekd.select(tiny_store, "medium", keep=0.5, scores=scores)
    scores.save(tmp_path / "scores.parquet")
    half.save(tmp_path / "half.parquet")
    teacher = prunekd.open_teacher(teacher_run.path, tiny_store, device="cpu")
    by_object = prunekd.train(
        tiny_store, recipe=as_recipe("demo", small), subset=half, teacher=teacher, reshape=scores,
        out=tmp_path / "objects", device=torch.device("cpu"),
    )  # fmt: skip
    reports: list[str] = []
    by_path = prunekd.train(
        str(tiny_store.path), recipe="demo", settings=small, subset=str(tmp_path / "half.parquet"),
        teacher=str(teacher_run.path), reshape=tmp_path / "scores.parquet", out=str(tmp_path / "paths"), device="cpu",
        progress=lambda values: reports.append(str(values["kind"])),
    )  # fmt: skip
    by_ids = prunekd.train(
        tiny_store, recipe="demo", settings=small, subset=half.ids, teacher=teacher, reshape=scores,
        out=tmp_path / "ids", device="cpu",
    )  # fmt: skip
    assert reports.count("epoch") == 2
    for other in (by_path, by_ids):
        assert other.top1 == by_object.top1
        assert all(torch.equal(tensor, weights(other)[name]) for name, tensor in weights(by_object).items())
    assert by_object.result["arm"] == "kd"
    assert by_object.result["samples_kept"] == 48


def test_a_run_knows_what_it_left(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path
) -> None:
    run = prunekd.train(tiny_store, recipe="demo", settings=small, track="all", out=tmp_path / "run", device="cpu")
    assert json.loads((run.path / "result.json").read_text()) == run.result
    assert run.top1 == run.result["top1"]
    assert run.card.classes == tiny_store.classes
    assert {"aum", "forgetting", "dual"} <= set(run.load_scores().columns)
    assert not run.load_model().training
    again = prunekd.train(
        tiny_store, recipe="demo", settings=small, track="all", out=run.path, resume="auto", device="cpu"
    )
    assert again == run
    assert prunekd.Run.open(str(run.path)) == run
    with pytest.raises(ValueError, match="holds a run already"):
        prunekd.train(tiny_store, recipe="demo", settings=small, out=run.path, device="cpu")
    with pytest.raises(ValueError, match="holds no run"):
        prunekd.Run.open(tmp_path)
    (run.path / "result.json").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        prunekd.Run.open(run.path)


def test_a_module_is_trained_in_place_and_saved(tiny_store: Store, small: dict[str, object], tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Tiny()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    run = prunekd.train(
        tiny_store, recipe="demo", settings={**small, "epochs": 6}, model=module, out=tmp_path / "run", device="cpu"
    )
    assert not module.training
    assert run.top1 is not None
    assert run.top1 > 0.5  # of four classes
    assert not torch.equal(before["head.weight"], module.head.weight)
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in module.state_dict().items())
    described = json.loads((run.path / "run.json").read_text())
    assert described["model"] == run.result["model"] == run.card.model == "module:Tiny"
    assert len(described["initial_weights"]) == 64
    with pytest.raises(ValueError, match="Tiny, a module that prunekd cannot build; build it yourself"):
        prunekd.open_teacher(run.path, tiny_store, device="cpu")
    loaded = run.load_model(Tiny())
    pixels = torch.rand(3, 3, 12, 12)
    with torch.no_grad():
        assert torch.allclose(loaded(pixels), module(pixels), atol=1e-5)  # but for the memory format
    card = run.card
    teacher = prunekd.open_teacher(loaded, tiny_store, mean=card.mean, std=card.std, classes=card.classes, device="cpu")
    assert teacher.num_classes == 4
    fresh = Tiny()
    prunekd.train(
        tiny_store, recipe="demo", settings={**small, "epochs": 6}, model=fresh, out=run.path, resume="auto",
        device="cpu",
    )  # fmt: skip
    assert torch.equal(fresh.head.weight, module.head.weight)  # a finished run gives its weights back
    with pytest.raises(ValueError, match="was started with model = 'module:Tiny', not None"):
        prunekd.train(
            tiny_store, recipe="demo", settings={**small, "epochs": 6}, out=run.path, resume="auto", device="cpu"
        )


def test_a_run_can_be_trained_in_any_thread(tiny_store: Store, small: dict[str, object], tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(
            prunekd.train, tiny_store, recipe="demo", settings=small, out=tmp_path / "run", device="cpu"
        ).result()
    assert run.top1 is not None


def test_a_module_that_gives_no_logits_is_refused_before_training(
    tiny_store: Store, small: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"the student, a Flatten, gives \(2, 432\) for 2 images and 4 classes"):
        prunekd.train(tiny_store, recipe="demo", settings=small, model=nn.Flatten(), out=tmp_path / "r", device="cpu")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"settings": {"optimizer.rate": 1}}, r"unknown setting optimizer\.rate"),
        ({"settings": {"epochs": "many"}}, "epochs is 'many'; it must be an integer"),
        ({"track": "dul"}, "did you mean 'dual'"),
        ({"subset": np.array([0, 0])}, "named more than once"),
        ({"reader": "nativ"}, "did you mean 'native'"),
        ({"labels": "nowhere"}, "make soft labels with"),
        ({"device": "tpu"}, "it must be auto, cpu, cuda"),
        ({"settings": {"distill.alpha": 0.5}}, r"distill\.alpha \(--alpha\) is 0\.5, but the run has no teacher"),
        ({"settings": {"distill.objective": "dkd"}}, r"distill\.objective is 'dkd', but the run has no teacher"),
        ({"settings": {"optimizer.lr": "inf"}}, r"optimizer\.lr is inf; it must be a finite number"),
        ({"settings": {"clip_norm": "inf"}}, r"clip_norm is inf; it must be a finite number"),
        ({"settings": {"mix.mixup": "inf"}}, r"mix\.mixup is inf; it must be a finite number"),
        ({"settings": {"dynamic.parameters": {"keep": "inf"}}}, r"dynamic\.parameters\.keep is inf"),
        ({"settings": {"seed": 2**64}}, r"seed is 18446744073709551616; it must be 0 or more and below 2\^63"),
        ({"settings": {"batch_size": 10**30}}, "larger than the 96 samples kept; use --set batch_size=24"),
        ({"settings": {"train_view.size": 10**30}}, "it must be 1 to 65535 pixels"),
    ],
)
def test_what_does_not_fit_is_named(tiny_store: Store, tmp_path: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prunekd.train(tiny_store, recipe="demo", out=tmp_path / "run", **{"device": "cpu", **more})  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_batch_beyond_the_validation_split_takes_it_whole(
    tiny_store: Store, small: dict[str, object], tmp_path: Path
) -> None:
    plain, big = (
        prunekd.train(
            tiny_store,
            recipe="demo",
            settings={**small, "eval.batch_size": size},
            out=tmp_path / str(size),
            device="cpu",
        )
        for size in (32, 10**30)
    )
    assert plain.top1 == big.top1


def test_the_objective_is_told_in_words(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path, told: list[str]
) -> None:
    settings = {**small, "distill.alpha": 0.5, "distill.temperature": 3}
    prunekd.train(
        tiny_store, recipe="demo", settings=settings, teacher=teacher_run.path, out=tmp_path / "kd", device="cpu"
    )
    prunekd.train(tiny_store, recipe="demo", settings=small, out=tmp_path / "plain", device="cpu")
    assert [line for line in told if line.startswith("objective")] == [
        "objective: kd, alpha 0.5 (as set), temperature 3",
        "objective: labels alone",
    ]


OWN_GROUP = """
import sys
from pathlib import Path
import torch
import torch.distributed as dist
import prunekd
rank, meeting, store, teacher, out = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], Path(sys.argv[5])
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
group = dist.group.WORLD
settings = {"epochs": 2, "batch_size": 16, "precision": "fp32", "train_view.size": 32, "eval_view.size": 32,
            "model.name": "test_convnext", "optimizer.lr": 0.01}
run = prunekd.train(store, recipe="demo", settings=settings, out=out / "run")
scores = prunekd.score(store, teacher)
labels = prunekd.make_labels(store, teacher, recipe="demo", out=out / "labels", views=1)
assert dist.is_initialized() and dist.group.WORLD is group
total = torch.tensor([float(rank + 1)])
dist.all_reduce(total)
assert total.item() == 3
assert len(scores.ids) == 96 and labels.views == 1 and run.top1 is not None
if rank == 0:
    scores.save(out / "scores.parquet")
dist.destroy_process_group()
"""

TORCHRUN = """
import sys
from pathlib import Path
import torch.distributed as dist
import prunekd
store, teacher, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
scores = prunekd.score(store, teacher, device="cpu")
assert not dist.is_initialized()
again = prunekd.score(store, teacher, device="cpu")
assert not dist.is_initialized()
labels = prunekd.make_labels(store, teacher, recipe="demo", out=out / "labels", views=1, device="cpu")
assert len(labels.ids) == 96 and (scores["el2n"] == again["el2n"]).all()
"""


def test_a_process_group_of_ones_own_is_used_and_left_open(
    tiny_store: Store, teacher_run: prunekd.Run, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(OWN_GROUP)
    paths = [str(tmp_path / "meeting"), str(tiny_store.path), str(teacher_run.path), str(tmp_path)]
    processes = [
        subprocess.Popen([sys.executable, str(script), str(rank), *paths], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-3000:]
    both = json.loads((tmp_path / "run/result.json").read_text())
    assert len(both["ledger"]["ranks"]) == 2
    # the samples of one process and of two are the same, so their scores and losses agree
    alone = prunekd.score(tiny_store, teacher_run.path, device="cpu")
    scores = prunekd.select(tiny_store, "hardest", keep=1.0, scores=tmp_path / "scores.parquet", score="el2n")
    assert np.array_equal(scores.ids, prunekd.select(tiny_store, "hardest", keep=1.0, scores=alone, score="el2n").ids)


def test_under_torchrun_each_call_opens_a_group_and_closes_it(
    tiny_store: Store, teacher_run: prunekd.Run, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(TORCHRUN)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", "localhost:0", str(script), str(tiny_store.path), str(teacher_run.path), str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_run_is_not_resumed_with_other_samples_under_the_same_description(
    tiny_store: Store, small: dict[str, object], tmp_path: Path
) -> None:
    ids = np.arange(32)
    one, other = (prunekd.Subset.of_ids(tiny_store, part) for part in (ids, ids + 32))
    assert one.info == other.info
    words: dict[str, object] = {"recipe": "demo", "settings": small, "out": tmp_path / "run", "device": "cpu"}
    prunekd.train(tiny_store, subset=one, **words)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "run/run.json").read_text())["subset"]["digest"] == one.digest
    prunekd.train(tiny_store, subset=one, resume="auto", **words)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"subset.digest = '{one.digest}', not '{other.digest}'"):
        prunekd.train(tiny_store, subset=other, resume="auto", **words)  # type: ignore[arg-type]


def test_training_takes_samples_of_the_training_split_alone(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path
) -> None:
    val = prunekd.select(tiny_store, "random", keep=0.5, split="val")
    val.save(tmp_path / "val.parquet")
    for subset in (val, tmp_path / "val.parquet"):
        with pytest.raises(ValueError, match="this subset is one of the split 'val', not 'train'"):
            prunekd.train(
                tiny_store, recipe="demo", settings=small, subset=subset, out=tmp_path / "run", device="cpu"
            )  # fmt: skip
        with pytest.raises(ValueError, match="this subset is one of the split 'val', not 'train'"):
            prunekd.make_labels(
                tiny_store, teacher_run.path, recipe="demo", settings=small, subset=subset, views=1,
                out=tmp_path / "labels", device="cpu",
            )  # fmt: skip
        with pytest.raises(ValueError, match="this subset is one of the split 'val', not 'train'"):
            prunekd.Loader(tiny_store, "train", subset=subset, batch_size=4, size=12)
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.glob(".labels*"))


def test_reshaping_needs_class_statistics(
    tiny_store: Store, teacher_run: prunekd.Run, small: dict[str, object], tmp_path: Path
) -> None:
    scores = prunekd.score(tiny_store, teacher_run.path, device="cpu")
    for table in (merge_scores(tiny_store, [scores, scores]), replace(scores, class_std=np.full(4, np.nan))):
        with pytest.raises(ValueError, match="these scores have no class statistics for 4 of 4 classes"):
            prunekd.train(
                tiny_store, recipe="demo", settings=small, teacher=teacher_run.path, reshape=table,
                out=tmp_path / "run", device="cpu",
            )  # fmt: skip
    with pytest.raises(ValueError, match="class_scale holds numbers that are not positive and finite"):
        prunekd.Distillation(objective="reshape", class_scale=torch.tensor([1.0, float("nan")]))
