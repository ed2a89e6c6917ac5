"""The readers of a run, or of several runs that take turns on one store."""

from dataclasses import dataclass

from prunekd.common.distributed import World
from prunekd.input import Reader, open_reader
from prunekd.training.run import RunSpec


@dataclass(frozen=True, slots=True)
class Readers:
    """Open readers of a store's training split and, if it has one, its validation split."""

    train: Reader
    val: Reader | None

    def close(self) -> None:
        """Close both."""
        self.train.close()
        if self.val:
            self.val.close()


def open_readers(spec: RunSpec, world: World) -> Readers:
    """Open the reader a run asks for; validation always reads natively, so that arms differ in training alone."""
    pin = world.device.type == "cuda"
    train = open_reader(spec.reader, spec.store, "train", workers=spec.workers, pin=pin, on_error=spec.on_error)
    has_val = "val" in spec.store.splits
    return Readers(train, open_reader("native", spec.store, "val", workers=spec.workers, pin=pin) if has_val else None)
