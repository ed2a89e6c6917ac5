"""Options of the verbs that train."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import click

Command = Callable[..., None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """--recipe, --reader, --on-error, and --set, --alpha and --temperature as settings by dotted key."""

    recipe: str
    settings: dict[str, object]
    reader: str
    on_error: str


def training_options(command: Command) -> Command:
    """Add the options of TrainingOptions; the command gets them as `training`."""

    @click.option("--recipe", required=True, help="A recipe's name or a YAML file.")
    @click.option("--alpha", help="Weight of the teacher's term in [0, 1], or auto (follows the keep ratio).")
    @click.option("--temperature", type=float, help="Temperature of the teacher's term.")
    @click.option("--reader", default="native", show_default=True, help="Which reader feeds the training.")
    @click.option(
        "--on-error",
        type=click.Choice(["raise", "replace", "skip"]),
        default="raise",
        show_default=True,
        help="What to do with a corrupt sample: stop, take a kept one of its class, or go on without it.",
    )
    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a setting, e.g. epochs=30.")
    @wraps(command)
    def gather(
        *args: Any,
        recipe: str,
        alpha: str | None,
        temperature: float | None,
        reader: str,
        on_error: str,
        overrides: tuple[str, ...],
        **rest: Any,
    ) -> None:
        from prunekd.training.recipe import parse_settings

        given = [] if alpha is None else [f"distill.alpha={alpha}"]
        settings = parse_settings([*overrides, *given])
        if temperature is not None:
            settings["distill.temperature"] = temperature
        training = TrainingOptions(recipe=recipe, settings=settings, reader=reader, on_error=on_error)
        command(*args, training=training, **rest)

    return gather
