"""Options of the verbs that train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from prunekd.cli._shared import say

F = TypeVar("F", bound=Callable[..., Any])


def training_options(command: F) -> F:
    """Options --recipe, --alpha, --temperature, --reader, --on-error and --set."""
    options = (
        click.option("--recipe", required=True, help="A recipe's name or a YAML file."),
        click.option("--alpha", help="Weight of the teacher's term in [0, 1], or auto (follows the keep ratio)."),
        click.option("--temperature", type=float, help="Temperature of the teacher's term."),
        click.option("--reader", default="native", show_default=True, help="Which reader feeds the training."),
        click.option(
            "--on-error",
            type=click.Choice(["raise", "replace", "skip"]),
            default="raise",
            show_default=True,
            help="What to do with a corrupt sample: stop, take a kept one of its class, or go on without it.",
        ),
        click.option(
            "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. epochs=30."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def overrides_option(options: dict[str, Any]) -> list[str]:
    """The --set options, then --alpha, --temperature and --track as settings of the recipe."""
    from prunekd.pruning.training_dynamics import DYNAMICS

    given = [f"distill.{key}={options[key]}" for key in ("alpha", "temperature") if options[key] is not None]
    if options.get("track"):
        names = DYNAMICS if options["track"] == "all" else options["track"].split(",")
        given.append(f"track=[{','.join(names)}]")
    return [*options["overrides"], *given]


def labels_option(path: Path | None, store: Any, recipe: Any, subset: Any, device: Any) -> Any:
    """Open the soft labels a --labels option names, checked against the run; None without one."""
    if path is None:
        return None
    from prunekd.distill import CachedTeacher

    cached = CachedTeacher.open(
        path,
        store,
        view=recipe.train_view,
        ids=None if subset is None else subset.ids,
        mixed=recipe.mix.on,
        pin=device.type == "cuda",
    )
    say(f"soft labels: {cached!r}")
    return cached
