"""The sources by name: find out what a path is, and open it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prunekd.common.registry import unknown
from prunekd.store.format.store import SourceDescription
from prunekd.store.sources import arrays, cifar, ilsvrc, imagefolder, parquet, webdataset
from prunekd.store.sources.arrays import Arrays
from prunekd.store.sources.hold_out import hold_out
from prunekd.store.sources.imagefolder import ImageFolder
from prunekd.store.sources.layout import DEFAULT, Layout
from prunekd.store.sources.shards import is_pattern, recognise_shards
from prunekd.store.sources.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceKind:
    """A way in which datasets lie on disk.

    Attributes:
        open: opens one; ValueError where it is malformed.
        recognise: why a path is taken for this kind, in a few words; empty if it is not.
        layout: what it looks like, for messages.
    """

    open: Callable[[Path, Layout], Source]
    recognise: Callable[[Path], str]
    layout: str


def _fixed(open_: Callable[[Path], Source]) -> Callable[[Path, Layout], Source]:
    """The opener of a kind whose splits and labels are fixed."""

    def open_fixed(path: Path, layout: Layout) -> Source:
        if layout.says:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in layout.says)
            raise ValueError(f"{names} is for imagefolder, webdataset and parquet; the splits of {path} are fixed")
        return open_(path)

    return open_fixed


# In the order in which a path is held against them.
SOURCES = {
    "arrays": SourceKind(open=_fixed(Arrays), recognise=arrays.recognise, layout="FILE.npz"),
    "ilsvrc": SourceKind(
        open=_fixed(ilsvrc.open_ilsvrc), recognise=ilsvrc.recognise, layout=f"a folder with {ilsvrc.TRAIN_TAR}"
    ),
    "cifar": SourceKind(open=_fixed(cifar.Cifar), recognise=cifar.recognise, layout=" or ".join(cifar.LAYOUTS)),
    "webdataset": SourceKind(
        open=webdataset.open_webdataset,
        recognise=partial(recognise_shards, suffix=".tar"),
        layout="NAME.tar, a folder or a pattern of them",
    ),
    "parquet": SourceKind(
        open=parquet.ParquetImages,
        recognise=partial(recognise_shards, suffix=".parquet"),
        layout="NAME.parquet, a folder or a pattern of them",
    ),
    "imagefolder": SourceKind(open=ImageFolder, recognise=imagefolder.recognise, layout="train/CLASS/* or CLASS/*"),
}


def open_source(path: str | Path, kind: str = "auto", val_fraction: float = 0.0, layout: Layout = DEFAULT) -> Source:
    """Open a dataset; with `val_fraction` hold out that part of every class as `val`.

    Args:
        path: of a file or folder; for shards also a pattern with `*`, `?`, `[...]` or `{0..9}`.
        kind: a key of SOURCES, or `auto` for the first that `recognise_source` finds.
        val_fraction: 0 to leave the splits as they are.
        layout: which part is which split, where the names do not say it.

    Raises:
        ValueError: nothing there, an unknown kind, a malformed source, or `val_fraction` with a source that has a
            validation split already.
    """
    path = Path(path).absolute()
    _check_there(path)
    if kind == "auto":
        kind, _ = recognise_source(path)
    elif kind not in SOURCES:
        raise unknown("kind of source", kind, ("auto", *SOURCES))
    source = SOURCES[kind].open(path, replace(layout, hold_out=bool(val_fraction)))
    return hold_out(source, val_fraction) if val_fraction else source


def recognise_source(path: Path) -> tuple[str, str]:
    """What kind of source a path is, and why.

    Raises:
        ValueError: it is none; the message lists what can be read.
    """
    _check_there(path)
    for name, kind in SOURCES.items():
        if reason := kind.recognise(path):
            return name, reason
    layouts = "; ".join(f"{name} ({kind.layout})" for name, kind in SOURCES.items())
    raise ValueError(f"{path} is no source that can be read: {layouts}")


def _check_there(path: Path) -> None:
    if not path.exists() and not is_pattern(path):
        raise ValueError(f"the source {path} does not exist")


def reopen_source(description: SourceDescription) -> Source:
    """Open the source of a store again, given what the store keeps of it.

    Raises:
        ValueError: it moved, or it no longer lists the same inputs.
    """
    path = Path(description["path"])
    if not path.exists() and not is_pattern(path):
        raise ValueError(f"the source {path} of this store is no longer there; move it back or convert it anew")
    layout = Layout(**description.get("layout", {}))  # type: ignore[arg-type]  # checked when the store was opened
    source = open_source(path, description["kind"], description.get("val_fraction", 0.0), layout)
    if source.describe() != description:
        raise ValueError(f"the source {path} no longer lists the inputs this store was made from; convert it anew")
    return source
