"""Arms of a sweep: named bundles of settings that every keep ratio is trained with. A new arm is one entry of ARMS."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prunekd.common.registry import unknown

ALPHAS = (0.25, 0.5, 0.75, 0.9, 1.0)  # 0 is the arm plain
TEACHERS = ("none", "online", "cached")
_OWN_KEYS = {"base": "another arm's name", "teacher": "none, online or cached", "policy": "a policy's name or all"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What is common to the runs of an arm.

    Attributes:
        name: on the command line and in file names.
        title: in the report.
        summary: one line for readers of the report.
        teacher: `none` trains on labels alone; `cached` distils from soft labels made beforehand.
        policy: the policy that chooses the samples; `all` sees every sample, None lets each of the sweep's policies
            choose in turn.
        settings: overrides of the recipe, `key=value`; {keep} and {dropped} stand for r and 1 - r.
        fewer_epochs: train for r times the recipe's epochs.
        full: the arm whose run on all data is also this arm's at keep 1; None if it has one of its own.
    """

    name: str
    title: str
    summary: str
    teacher: str = "online"
    policy: str | None = None
    settings: tuple[str, ...] = ()
    fewer_epochs: bool = False
    full: str | None = None

    @property
    def reference(self) -> str:
        """Name of the arm that is trained on all data for comparison."""
        return self.full or self.name

    @property
    def dynamic(self) -> bool:
        """True if the samples are chosen anew in every epoch."""
        return any(setting.startswith("dynamic.policy=") for setting in self.settings)

    @property
    def distils(self) -> bool:
        """True if there is a teacher, online or cached."""
        return self.teacher != "none"

    def overrides(self, keep: float) -> list[str]:
        """The recipe's overrides at a keep ratio."""
        return [setting.format(keep=f"{keep:g}", dropped=f"{1 - keep:g}") for setting in self.settings]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for sweep.json."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return values | {"settings": list(self.settings)}


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(name="plain", title="Plain", summary="labels alone", teacher="none"),
        Arm(name="kd", title="KD", summary="distillation from the teacher"),
        Arm(
            name="kd_cached", title="KD, cached", summary="distillation from soft labels made once", teacher="cached",
        ),
        Arm(name="random", title="KD, random", summary="KD on a random subset", policy="random", full="kd"),
        Arm(name="medium", title="KD, medium", summary="KD on medium difficulty (P2)", policy="medium", full="kd"),
        Arm(
            name="infobatch", title="KD, infobatch", policy="all", full="kd",
            summary="KD on all samples; each epoch leaves out those of low loss with probability 1 - r",
            settings=("dynamic.policy=infobatch", "dynamic.parameters.drop={dropped}"),
        ),
        Arm(
            name="rs2", title="KD, rs2", policy="all", full="kd",
            summary="KD on a fresh random fraction r of the samples in every epoch",
            settings=("dynamic.policy=rs2", "dynamic.parameters.keep={keep}"),
        ),
        Arm(
            name="equal_time", title="KD, equal time", policy="all", full="kd", fewer_epochs=True,
            summary="control: distillation on all samples for r times the epochs",
        ),
    )
}  # fmt: skip


def parse_arm(text: str) -> Arm:
    """An arm from `NAME:key=value,...`.

    Keys are base (the arm to start from, kd unless given), teacher, policy, and any dotted setting of a recipe; commas
    inside brackets belong to a value.

    Raises:
        ValueError: not of this form, or an unknown base or teacher.
    """
    name, colon, rest = text.partition(":")
    example = "for example --arm soft:base=kd,distill.alpha=0.9"
    if not colon or not name.replace("_", "").isalnum():
        raise ValueError(f"arm {text!r}: write it as NAME:key=value,..., the name of letters, digits and _; {example}")
    if name in ARMS:
        raise ValueError(f"arm {name!r} exists already; choose another name and say base={name}")
    pairs = [part.partition("=") for part in _split(rest)]
    for key, equals, _ in pairs:
        if not equals or not (key in _OWN_KEYS or "." in key or key.isidentifier()):
            known = ", ".join(f"{k} ({v})" for k, v in _OWN_KEYS.items())
            raise ValueError(f"arm {text!r}: {key!r} is no key=value; keys are {known} or a setting; {example}")
    values = {key: value for key, _, value in pairs if key in _OWN_KEYS}
    base = values.get("base", "kd")
    if base not in ARMS:
        raise unknown("arm", base, ARMS)
    teacher = values.get("teacher", ARMS[base].teacher)
    if teacher not in TEACHERS:
        raise unknown("teacher of an arm", teacher, TEACHERS)
    return replace(
        ARMS[base],
        name=name,
        title=name,
        summary=f"{base} with {rest.replace(',', ', ')}" if rest else base,
        teacher=teacher,
        policy=values.get("policy", ARMS[base].policy),
        settings=(*ARMS[base].settings, *(f"{key}={value}" for key, _, value in pairs if key not in _OWN_KEYS)),
        full=None,
    )


def alpha_arms(teacher: str) -> tuple[Arm, ...]:
    """An arm for each of ALPHAS, distilling from an `online` teacher or `cached` soft labels."""
    return tuple(
        Arm(
            name=f"alpha{round(100 * alpha)}",
            title=f"KD, alpha {alpha:g}",
            summary=f"distillation with alpha {alpha:g}",
            teacher=teacher,
            settings=(f"distill.alpha={alpha}",),
        )
        for alpha in ALPHAS
    )


def arms_of(facts: Mapping[str, Any]) -> dict[str, Arm]:
    """The arms a sweep.json describes, by name, with the known ones for a sweep that says less."""
    described: dict[str, dict[str, Any]] = facts.get("arm_settings") or {}
    return ARMS | {name: _from_dict(values) for name, values in described.items()}


def _from_dict(values: Mapping[str, Any]) -> Arm:
    known: dict[str, Any] = {key: value for key, value in values.items() if key in Arm.__dataclass_fields__}
    return Arm(**{**known, "settings": tuple(known.get("settings", ()))})


def _split(text: str) -> list[str]:
    """Split at commas outside brackets."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [part for part in [*parts, text[start:]] if part]
