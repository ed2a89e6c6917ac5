"""Whether compacting pays: touched blocks by brute force, break-even by counting, the forecast against what is read."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunekd.store import Store
from prunekd.store.jobs.compact import compact
from prunekd.store.jobs.compaction_cost import (
    Gain,
    Reading,
    Storage,
    available_memory,
    compaction_cost,
    gains,
    storage_of,
    touched,
)
from prunekd.store.jobs.convert import convert
from prunekd.store.sources import open_source
from support import write_arrays

EXACT = "exact extents (readers native, ffcv, dali)"
PLENTY = 1 << 40


@given(
    gaps=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 60)), min_size=1, max_size=30),
    unit=st.sampled_from([1, 4, 16, 64]),
    seed=st.integers(0, 99),
)
def test_touched_blocks_are_those_found_one_by_one(gaps: list[tuple[int, int]], unit: int, seed: int) -> None:
    sizes = np.array([size for _, size in gaps])
    pointers = np.cumsum([gap for gap, _ in gaps]) + np.cumsum(sizes) - sizes
    order = np.random.default_rng(seed).permutation(len(sizes))
    pointers, sizes = pointers[order], sizes[order]
    own = [{byte // unit for byte in range(p, p + s)} for p, s in zip(pointers.tolist(), sizes.tolist(), strict=True)]
    assert touched(pointers, sizes, unit) == (len(set().union(*own)) * unit, sum(map(len, own)) * unit)


READINGS = st.builds(lambda a, b: Reading(first=a, later=b), st.integers(0, 99), st.integers(0, 99))


@given(before=READINGS, after=READINGS, cost=st.integers(0, 400))
def test_the_break_even_is_the_first_epoch_that_saves_more_than_it_cost(
    before: Reading, after: Reading, cost: int
) -> None:
    gain = Gain(before=before, after=after, cost=cost)
    by_hand = [
        sum([before.first, *[before.later] * (n - 1)]) - sum([after.first, *[after.later] * (n - 1)]) - cost
        for n in range(1, 600)
    ]
    paying = [n for n, net in enumerate(by_hand, start=1) if net > 0]
    assert gain.from_epochs == (paying[0] if paying else None)


def test_what_fits_in_memory_is_read_once_and_what_does_not_every_time(tiny_store: Store) -> None:
    split, ids = tiny_store.split("train"), np.arange(0, 96, 3)
    full, none = (gains(split, ids, memory, 1 << 17) for memory in (PLENTY, 0))
    pages = {int(p) // 4096 for p in np.concatenate([split.pointers[ids], split.pointers[ids] + 431])}
    own = sum(
        1 + (int(p) + 431) // 4096 - int(p) // 4096 for p in split.pointers[ids]
    )  # images of 432 bytes, on one page or two
    assert full[EXACT].before == Reading(first=len(pages) * 4096, later=0)
    assert none[EXACT].before == Reading(first=own * 4096, later=own * 4096)
    half = gains(split, ids, len(pages) * 2048, 1 << 17)[EXACT].before
    assert half.later == own * 2048
    assert full[EXACT].after.first == -(-32 * 432 // 4096) * 4096
    assert full[EXACT].cost == len(pages) * 4096 + 32 * 432
    away = none["exact extents, the new store on another storage"]
    assert away.after.total(9) == 0
    assert away.from_epochs == 2
    assert full["exact extents, the new store on another storage"].from_epochs is None


def test_the_forecast_is_what_a_cold_reading_takes(tmp_path: Path) -> None:
    """Against the kernel's own count of bytes that came from the storage, where there is one."""
    store = convert(open_source(write_arrays(tmp_path / "a.npz", train=150, side=63)), tmp_path / "store")
    ids = np.random.default_rng(0).permutation(150)[:50]
    made = compact(store, ids, tmp_path / "made")
    forecast = gains(store.split("train"), ids, PLENTY, 1 << 17)[EXACT]
    assert forecast.before.first > 1.2 * forecast.after.first
    for one, expected in ((store, forecast.before.first), (made, forecast.after.first)):
        split = one.split("train")
        file = os.open(split.path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
        with split.payloads() as payloads:
            start = _bytes_read()
            for row in split.rows(ids):
                payloads.read(int(row))
            found = _bytes_read() - start
        if storage_of(split.path).kind in ("unknown", "network") or not found:
            pytest.skip("this storage does not count what is read from it")
        assert found == pytest.approx(expected, rel=0.08)  # the kernel may have kept a page, or read one of its own


def _bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("read_bytes:")[1].split()[0])


def test_the_facts_say_what_pays_and_on_what_it_rests(tiny_store: Store) -> None:
    storage = Storage(kind="network", file_system="nfs4", read_ahead=1 << 17)
    cost = compaction_cost(tiny_store.split("train"), np.arange(48), 10, 0, storage)
    assert (cost.kept, cost.kept_bytes, cost.storage, cost.epochs) == (48, 48 * 432, "network", 10)
    for one in cost.readers.values():
        assert one.bytes_saved == one.bytes_before - one.bytes_after - one.bytes_copied
        assert one.pays == (one.bytes_saved > 0)
        assert one.pays == (one.pays_from_epochs is not None and one.pays_from_epochs <= 10)
        assert one.stays_in_memory == {"before": False, "after": one.bytes_after == 0}


def test_the_storage_under_a_path_is_described(tmp_path: Path) -> None:
    found = storage_of(tmp_path)
    assert found.kind in ("solid state", "spinning", "network", "unknown")
    assert found.read_ahead >= 4096
    assert available_memory() > 1 << 20
