"""Which part of a source is which split: the usual names, and what the user says instead."""

from dataclasses import dataclass

from prunekd.store.sources.source import TRAIN, VAL

TEST = "test"
ROLES = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "eval": VAL,
    "evaluation": VAL,
    "test": TEST,
    "testing": TEST,
}
HERE, NONE = ".", "none"
TEST_IS_VAL = "nothing is named val, so the validation split is test; --val-split none leaves it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the user says of a source whose names do not say it.

    Attributes:
        train_split: name of the folder of the training split, in shards a word in the file names; `.` if SOURCE itself
            holds the classes. None for the usual names.
        val_split: the same of the validation split; `none` for no validation split.
        label_names: labels of shards are names, those that look like numbers too.
        hold_out: a validation split is held out of `train`, so that a folder `test` is not taken for it.
    """

    train_split: str | None = None
    val_split: str | None = None
    label_names: bool = False
    hold_out: bool = False

    def __post_init__(self) -> None:
        for option, name in (("--train-split", self.train_split), ("--val-split", self.val_split)):
            if name is not None and (not name or name == ".." or "/" in name or "\0" in name):
                raise ValueError(f"{option} is {name!r}; give the name of a folder of SOURCE, not a path")
        if self.val_split == HERE or (self.train_split is not None and self.train_split == self.val_split):
            raise ValueError(f"--val-split is {self.val_split!r}, the training split; give another folder, or none")
        if self.train_split == HERE and self.val_split not in (None, NONE):
            raise ValueError(
                "--train-split . takes every folder of SOURCE as a class, --val-split too; hold images out with "
                "--val-fraction, or move the validation images"
            )

    @property
    def says(self) -> dict[str, str | bool]:
        """What is not left to the usual names; kept in the description of a source."""
        values = {"train_split": self.train_split, "val_split": self.val_split, "label_names": self.label_names}
        return {name: value for name, value in values.items() if value}


DEFAULT = Layout()
