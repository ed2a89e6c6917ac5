"""Options of the verbs that train."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., None])


def training_options(command: Command) -> Command:
    """Add --recipe, --alpha, --temperature, --reader, --on-error and --set."""
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


def settings_of(overrides: Sequence[str], alpha: str | None, temperature: float | None) -> dict[str, object]:
    """The --set, --alpha and --temperature options as settings by dotted key."""
    from prunekd.training.recipe import parse_settings

    given = {"alpha": alpha, "temperature": temperature}
    named = [f"distill.{name}={value}" for name, value in given.items() if value is not None]
    return parse_settings([*overrides, *named])
