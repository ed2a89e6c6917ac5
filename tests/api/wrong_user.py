"""Uses of the public face that mypy must find wrong, each in a line marked `wrong`. Never run."""

import prunekd


def misuse(store: prunekd.Store, subset: prunekd.Subset, run: prunekd.Run) -> None:
    """One mistake for each public name."""
    prunekd.convert("photos")  # wrong: no store
    prunekd.convert("photos", "store", max_side="64")  # wrong
    prunekd.open_store(3)  # wrong
    prunekd.select(store, "random", 0.5)  # wrong: keep has a name
    prunekd.select(store, "random", keep="half")  # wrong
    subset.save(store)  # wrong
    prunekd.open_teacher("timm:resnet18", 3)  # wrong
    prunekd.score(store)  # wrong: no teacher
    prunekd.make_labels(store, "teacher", recipe="demo")  # wrong: no out
    prunekd.train(store, recipe="demo", out="run", epochs=3)  # wrong: a setting
    prunekd.Loader(store, "train")  # wrong: no batch_size
    prunekd.Distillation(temperature="4")  # wrong
    prunekd.run_sweep("study.yaml", store)  # wrong: no out
    prunekd.report()  # wrong
    print(run.accuracy)  # wrong
