"""The Loader: batches of a store for a training loop of one's own."""

import hashlib
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from prunekd.common.closing import Closing
from prunekd.common.distributed import rank_and_size
from prunekd.common.pixels import IMAGENET_MEAN, IMAGENET_STD, to_input
from prunekd.input import open_reader
from prunekd.input.loader_options import check_options, resolve_device, resolve_pin, resolve_view
from prunekd.input.plan import EpochPlan, train_plan
from prunekd.input.prefetch import on_device
from prunekd.input.readers.batch import Batch
from prunekd.input.readers.reader import Reader
from prunekd.input.views import ViewSettings
from prunekd.pruning.subset import Subset, as_subset
from prunekd.store import Store, open_store


class Loader(Closing):
    """Iterates over a split of a store, or a subset of it, as a `torch.utils.data.DataLoader` does over a dataset.

    `for images, labels, ids, weights in loader` yields Batches that own their memory:

    - images: (B, 3, size, size) of `dtype` in channels-last memory on `device`: (pixel / 255 - mean) / std, or the
      pixels themselves for uint8;
    - labels: int64 (B,), and weights: float32 (B,) or None where the subset has none, on `device`;
    - ids: int64 (B,), always on the CPU.

    Each iteration is one epoch, with an order and crops of its own: epoch e shows what epoch e of `prunekd train` shows
    with the same seed, view and subset, if the recipe's batch_size is `batch_size` x world size and no dynamic policy
    chooses the samples. Iterating again begins the next epoch; `set_epoch` chooses another, from the next iteration on.
    A loop may be left at any time.

    Processes share an epoch: `rank` and `world_size` come from torch.distributed when an iteration begins. So pass the
    Loader to no function that shards a DataLoader (Accelerate's `prepare` leaves it alone).

    A Loader reads with threads. They end with `close`, with the `with` block, or with the object. Iterate in one thread
    and in the process that made it: it can be neither pickled nor used after a fork. `state_dict` may be called from
    any thread.

    Args:
        store: an open store, or its path.
        split: the name of a split.
        subset: what to iterate over: a Subset, the path of its file, or ids, int64 (k,); None for the whole split.
        batch_size: samples per batch of this process (a recipe's batch_size counts those of all processes).
        size: side of the images in pixels; None for that of `view`, or 224.
        view: how images are cropped. None: random resized crops with flips for `train` (torchvision's defaults), the
            central crop for any other split.
        reader: a name in `prunekd.input.READERS`.
        shuffle: draw the order of each epoch from the seed. None: only for `train`. False keeps the order of the
            subset, or of the store.
        drop_last: leave out the last batch of an epoch if it is short. None: as `shuffle`. With False every sample is
            seen exactly once over all processes, none is repeated to fill a batch; in an evaluation by several
            processes some may thus have one batch less than others.
        seed: of orders and crops, in [0, 2^64).
        workers: decoding threads (processes for `torch`); None for one per core.
        pin: read into pinned memory. None: if `device` is a GPU. With True and device cpu the batches are pinned.
        device: `cpu`, `cuda` (the current one), `auto`, or a torch.device. Batches are copied to a GPU while the
            one before is in use.
        dtype: float32, bfloat16, float16, or uint8 for pixels that are not normalized.
        mean, std: three numbers each in units of [0, 1] pixel values; ImageNet's by default.
        on_error: what happens with a corrupt sample: `raise`, `replace` it by a kept one of its class, or `skip` it.
        replay: `CachedTeacher.replay`, for the views that cached soft labels were made on; those of a batch are then
            `cached.lookup(batch.ids, cached.view_index_for(epoch))`.
        rank, world_size: this process among those that share an epoch; None asks torch.distributed.

    Attributes:
        reader: the open Reader, with its counters `bytes_read`, `payload_bytes` and `faults`.
        ids: int64 (n,), the samples of an epoch of all processes.
        epoch: the one that the next iteration shows.
        view: may be replaced between iterations, for instance by a larger one (progressive resolution).

    Raises:
        ValueError: a value out of range, a subset of another store, or a reader that is not installed. When an
            iteration begins: fewer samples than one batch with `drop_last`; a shuffled epoch whose short last batch has
            fewer samples than processes; WORLD_SIZE in the environment but no process group yet.

    Example:
        loader = prunekd.Loader("store", subset="half.parquet", batch_size=256, device="cuda")
        for epoch in range(90):
            loader.set_epoch(epoch)
            for images, labels, ids, weights in loader:
                print(epoch, images.shape, labels.shape, ids.tolist(), weights)
    """

    def __init__(
        self,
        store: Store | str | Path,
        split: str = "train",
        *,
        batch_size: int,
        subset: Subset | str | Path | np.ndarray | None = None,
        size: int | None = None,
        view: ViewSettings | None = None,
        reader: str = "native",
        shuffle: bool | None = None,
        drop_last: bool | None = None,
        seed: int = 0,
        workers: int | None = None,
        pin: bool | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        on_error: str = "raise",
        replay: Callable[[EpochPlan, int], EpochPlan] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.store = store if isinstance(store, Store) else open_store(store)
        self.batch_size, self.seed = index(batch_size), index(seed)
        self.shuffle = split == "train" if shuffle is None else shuffle
        self.drop_last = self.shuffle if drop_last is None else drop_last
        self.view = resolve_view(split, size, view)
        self.device = resolve_device(device)
        self.dtype, self.mean, self.std = dtype, tuple(mean), tuple(std)
        check_options(self.batch_size, self.seed, dtype, self.mean, self.std, rank, world_size)
        self._given_world = rank, world_size
        self._replay = replay
        self._split = self.store.split(split)
        self.ids, self._weights = self._samples(subset)
        on_gpu = self.device.type == "cuda"
        self._pin = resolve_pin(pin, on_gpu)
        with torch.cuda.device(self.device) if on_gpu else nullcontext():  # dali decodes on the current GPU
            self.reader: Reader = open_reader(
                reader, self.store, split, workers=workers, pin=self._pin and on_gpu, on_error=on_error
            )
        self._process = os.getpid()
        self._next = self._position = (0, 0)  # epoch and batches of it handed out: of the next iteration, and now
        self._running: object | None = None  # the iteration that was begun last, until it ends
        self._finalizer = weakref.finalize(self, _release, self.reader, self._process)

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"Loader({str(self.store.path)!r}, {self._split.name!r}, "
            f"{len(self.ids):,} of {len(self._split):,} samples, batch_size={self.batch_size}, "
            f"{self.view.kind} at {self.view.size}, {dtype} on {self.device}, "
            f"reader={self.reader.name!r}, seed={self.seed}, epoch={self.epoch})"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Loader holds threads and open files, so it can be neither pickled nor copied; pass its arguments on and "
            "make one in each process"
        )

    # ---- iterating ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Batches of a whole epoch of this process."""
        rank, world_size = self._world()
        if self.drop_last:
            return len(self.ids) // (self.batch_size * world_size)
        return -(-len(self.ids[rank::world_size]) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the next epoch, or the rest of the one that `load_state_dict` set, from the first `next` on."""
        self._check_alive()
        epoch, first = self._next  # at the first `next`: frameworks call `iter` and drop what it gives
        plan = self._plan(epoch, first)
        self._next, self._position = (epoch + 1, 0), (epoch, first)
        this = self._running = object()
        try:
            if len(plan):
                with closing(on_device(self.reader.epoch(plan), self.device)) as batches:
                    for seen, batch in enumerate(batches, start=first + 1):
                        finished = self._finished(batch)
                        if self._running is this:
                            self._position = (epoch, seen)
                        yield finished
            if self._running is this:
                self._position = self._next
        finally:
            if self._running is this:
                self._running = None

    def _check_alive(self) -> None:
        if not self._finalizer.alive:
            raise ValueError("this Loader is closed; make another one")
        if os.getpid() != self._process:
            raise RuntimeError(
                f"this Loader belongs to process {self._process}, whose threads process {os.getpid()} lacks after the "
                "fork; make a Loader in each process"
            )

    def _plan(self, epoch: int, first: int) -> EpochPlan:
        rank, world_size = self._world()
        plan = train_plan(
            self._split,
            ids=self.ids,
            weights=self._weights,
            seed=self.seed,
            epoch=epoch,
            batch_size=self.batch_size * world_size,
            view=self.view,
            world_size=world_size,
            rank=rank,
            start_step=first,
            shuffle=self.shuffle,
            drop_last=self.drop_last,
        )
        return plan if self._replay is None else self._replay(plan, epoch)

    def _finished(self, batch: Batch) -> Batch:
        """A reader's batch as this Loader yields it."""
        on_cpu = self.device.type == "cpu"
        images = batch.images
        if self.dtype != torch.uint8:
            images = to_input(images, self.mean, self.std, self.dtype)
        batch = batch._replace(images=images)
        if not (on_cpu and self._pin):
            return batch
        weights = None if batch.weights is None else batch.weights.pin_memory()
        return Batch(images.pin_memory(), batch.labels.pin_memory(), batch.ids.pin_memory(), weights)

    # ---- where it stands ---------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration shows."""
        return self._next[0]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; one that is under way goes on as it is.

        The place in an epoch that `load_state_dict` set is kept if `epoch` is that epoch.
        """
        if not 0 <= epoch < 2**32:
            raise ValueError(f"epoch is {epoch}; it must be 0 or more")
        if epoch != self.epoch:
            self._next = (epoch, 0)
        if self._running is None:
            self._position = self._next

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration begun last stands, as plain values for JSON or a checkpoint.

        `batches_seen` counts the batches that were handed out, not those read ahead: called inside the loop, the batch
        in hand is among them. A framework that asks for batches ahead of their use counts those as well.
        """
        epoch, seen = self._position
        return {"epoch": epoch, "batches_seen": seen, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Have the next iteration go on where `state` was taken, to the sample; another world size will do.

        Raises:
            ValueError: a state of other samples, another seed, order or number of samples per step of all processes,
                or one that names no place in an epoch.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise ValueError(
                    f"the state was taken with {name} {state.get(name)}, this Loader has {value}; make the Loader with "
                    "the same store, subset, seed and batch_size x world size, or start without the state"
                )
        try:
            epoch, seen = index(state["epoch"]), index(state["batches_seen"])
        except (KeyError, TypeError):
            epoch = seen = -1
        if min(epoch, seen) < 0:
            place = f"epoch {state.get('epoch')!r} and batches_seen {state.get('batches_seen')!r}"
            raise ValueError(
                f"the state says {place}, which are no whole numbers from 0 on; give what `state_dict` returned"
            )
        self._running = None
        self._next = self._position = (epoch, seen)

    def _identity(self) -> dict[str, Any]:
        """What the n-th batch of an epoch depends on."""
        return {
            "split": self._split.name,
            "samples": self._digest,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "drop_last": self.drop_last,
            "global_batch_size": self.batch_size * self._world()[1],
        }

    @cached_property
    def _digest(self) -> str:
        """SHA-256 of ids, labels and weights, in hexadecimal."""
        labels = self._split.labels[self._split.rows(self.ids)]
        found = hashlib.sha256(self.ids.tobytes() + labels.tobytes())
        found.update(b"" if self._weights is None else self._weights.tobytes())
        return found.hexdigest()

    def close(self) -> None:
        """End the threads and close the files; a second call does nothing."""
        self._finalizer()

    # ---- settings ----------------------------------------------------------------------------------------------------

    def _samples(self, subset: Subset | str | Path | np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Ids int64 (n,) and weights float32 (n,) or None; ascending where the order is drawn anyway."""
        if subset is None:
            return self._split.ids, None
        chosen = as_subset(self.store, subset, self._split.name)
        order = np.argsort(chosen.ids) if self.shuffle else np.arange(len(chosen))
        return chosen.ids[order], None if chosen.weights is None else chosen.weights[order].astype(np.float32)

    def _world(self) -> tuple[int, int]:
        """This process's rank and the world size, as they are now."""
        rank, world_size = self._given_world
        if rank is not None and world_size is not None:
            return rank, world_size
        return rank_and_size()


def _release(reader: Reader, process: int) -> None:
    """Close a Loader's reader, unless this is a fork, in which the threads do not exist."""
    if os.getpid() == process:
        reader.close()
