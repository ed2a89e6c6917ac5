"""Checks command lines that are written down (docs, launch files) against the real parsers, without running them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import click
import torch.distributed.run
import yaml

from prunekd.cli import main
from prunekd.training.recipe import load_recipe


def check_prunekd(words: Sequence[str]) -> str:
    """Check the words after `prunekd` as the command line would, but for whether files exist. Returns the verb.

    Raises:
        click.UsageError: for an unknown verb or option, or one that is missing or has no such value.
        ValueError: for a recipe or a setting that does not exist.
    """
    verb, *arguments = [word for word in words if word != "--debug"] or [""]
    if verb in ("--help", "--version"):
        return verb
    outer = click.Context(main)
    command = main.get_command(outer, verb)
    if command is None:
        raise click.UsageError(f"no verb {verb!r}")
    inner = click.Context(command, parent=outer, info_name=verb)
    values, left, _ = command.make_parser(inner).parse_args(arguments)
    if left:
        raise click.UsageError(f"{verb} takes no {left}")
    for parameter in command.params:
        given = values.get(str(parameter.name))
        if parameter.required and not given:
            raise click.UsageError(f"{verb} needs {parameter.opts[0]}")
        if given is None or isinstance(parameter.type, click.Path) or isinstance(given, bool):
            continue
        for value in given if isinstance(given, (list, tuple)) else [given]:
            parameter.type_cast_value(inner, (value,) if parameter.multiple else value)
    if values.get("recipe") and not Path(values["recipe"]).suffix:
        load_recipe(values["recipe"], tuple(values.get("overrides") or ()))
    return verb


def check_torchrun(words: Sequence[str]) -> str:
    """Check the words after `torchrun` with torchrun's own parser, and what it starts with ours. Returns the verb."""
    options = torch.distributed.run.get_args_parser().parse_args(list(words))
    if not options.module or options.training_script != "prunekd":
        raise ValueError(f"torchrun starts {options.training_script}, not -m prunekd")
    return check_prunekd(options.training_script_args)


def check(line: str) -> str | None:
    """Check a line of shell that runs prunekd, directly or under torchrun. Returns the verb, None for others."""
    words = shlex.split(line, comments=True)
    while words and "=" in words[0]:  # assignments before the command
        words = words[1:]
    for start, checker in (
        (["prunekd"], check_prunekd),
        (["python", "-m", "prunekd"], check_prunekd),
        (["torchrun"], check_torchrun),
        (["python", "-m", "torch.distributed.run"], check_torchrun),
    ):
        if words[: len(start)] == start:
            return checker(words[len(start) :])
    return None


def read_yaml(path: Path) -> dict[str, object]:
    """A YAML file's mapping."""
    value = yaml.safe_load(path.read_text())
    assert isinstance(value, dict)
    return value
