"""Recipes: settings of a training run from YAML, with `key=value` overrides by dotted key and typos named."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from prunekd.common.files import read_text
from prunekd.training.settings import Recipe

T = TypeVar("T")


def recipe_names() -> list[str]:
    """Names of the recipes that come with prunekd."""
    folder = resources.files("prunekd") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


Settings = Mapping[str, object]  # values by dotted key: {"epochs": 30, "optimizer.lr": 0.1}


def as_recipe(value: Recipe | str | Path, settings: Settings | None = None) -> Recipe:
    """A recipe from what people hold: a Recipe, a name or a YAML file, with some settings by dotted key changed.

    Raises:
        ValueError: as `load_recipe`.
    """
    tree = value.to_dict() if isinstance(value, Recipe) else _read(str(value))
    for key, setting in (settings or {}).items():
        _set(tree, key, setting)
    return build(Recipe, tree)


def load_recipe(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Load a recipe by name or from a YAML file and apply `key=value` overrides with dotted keys.

    Raises:
        ValueError: no such recipe, unknown key (with the nearest match), wrong type or value out of range.
    """
    return as_recipe(name_or_path, parse_settings(overrides))


def _read(name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        text = read_text(path, "recipe")
    elif name_or_path in recipe_names():
        text = (resources.files("prunekd") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        raise ValueError(f"unknown recipe {name_or_path!r}; give a .yaml file or one of: {', '.join(recipe_names())}")
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {name_or_path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"recipe {name_or_path} must be a mapping of settings, not {type(tree).__name__}")
    return tree


def adjust(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """The recipe with `key=value` overrides; errors as for `load_recipe`."""
    return as_recipe(recipe, parse_settings(overrides))


def parse_settings(overrides: Iterable[str]) -> dict[str, object]:
    """Settings by dotted key from `key=value` items, the values read as YAML; of a key named twice the last counts.

    Raises:
        ValueError: an item without `=`.
    """
    settings: dict[str, object] = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ValueError(f"--set {override!r}: write it as key=value, for example optimizer.lr=0.05")
        settings.pop(key, None)  # the order of the items is that of the last of each key
        settings[key] = yaml.safe_load(text)
    return settings


def build(cls: type[T], tree: Mapping[str, Any], prefix: str = "") -> T:
    """Build a settings dataclass from plain values, checking names and types; `prefix` is its dotted key."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values = {}
    for key, value in tree.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(fields)}"
            raise ValueError(f"unknown setting {prefix}{key}{hint}")
        values[key] = _convert(value, hints[key], f"{prefix}{key}")
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    missing = [f"{prefix}{name}" for name in required if name not in values]
    if missing:
        raise ValueError(f"missing setting{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return cls(**values)


def _convert(value: Any, hint: Any, key: str) -> Any:
    if hint is object:
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type[Any], hint)):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"{key} is {value!r}; it must be a mapping of settings")
        return build(typing.cast(type[Any], hint), value, f"{key}.")
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        for option in sorted(options, key=lambda o: o is str):  # str takes everything, so it comes last
            try:
                return _convert(value, option, key)
            except ValueError:
                continue
        raise ValueError(f"{key} is {value!r}; it must be {' or '.join(_type_name(o) for o in options)}")
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{key} is {value!r}; it must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_convert(item, inner, key) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{key} is {value!r}; it must be a mapping")
        inner = typing.get_args(hint)[1]
        return {str(name): _convert(item, inner, f"{key}.{name}") for name, item in value.items()}
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 5e-4 as a string
        except ValueError:
            pass
    elif value is None and hint is type(None):
        return None
    elif isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"{key} is {value!r}; it must be {_type_name(hint)}")


def _type_name(hint: Any) -> str:
    names = {float: "a number", int: "an integer", bool: "true or false", str: "a name", type(None): "null"}
    return names.get(hint, str(hint))


def _set(tree: dict[str, Any], key: str, value: object) -> None:
    parts = key.split(".")
    node = tree
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise ValueError(f"setting {key!r}: {part} holds no further settings")
        node = child
    node[parts[-1]] = value
