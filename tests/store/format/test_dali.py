"""NVIDIA DALI decodes the payloads of a store, fed by external_source in the order we choose."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prunekd.store.jobs.convert import ConvertSettings, convert
from prunekd.store.sources import open_source
from support import require

pytestmark = pytest.mark.dali


def test_dali_reads_the_kept_samples_of_a_store(tmp_path: Path) -> None:
    require("nvidia.dali")
    from nvidia.dali import fn, pipeline_def

    rng = np.random.default_rng(1)
    for k in range(12):
        path = tmp_path / "source/train" / f"class{k % 2}" / f"{k:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, size=(4, 5, 3), dtype=np.uint8))
        coarse.resize((40 + k, 30), Image.Resampling.BICUBIC).save(path, quality=92)
    split = convert(open_source(tmp_path / "source"), tmp_path / "store", ConvertSettings()).split("train")
    kept = np.array([11, 2, 7, 4], dtype=np.int64)
    with split.payloads() as payloads:
        encoded = [np.frombuffer(payloads.read(int(row)), np.uint8) for row in split.rows(kept)]

        @pipeline_def(batch_size=4, num_threads=1, device_id=None)
        def pipeline() -> tuple[object, object]:
            data, ids = fn.external_source(
                source=lambda: (encoded, [np.array([i]) for i in kept]), num_outputs=2, batch=True
            )
            return fn.decoders.image(data, device="cpu"), ids

        built = pipeline()
        built.build()
        images, ids = built.run()
        assert [int(ids.at(i)[0]) for i in range(4)] == kept.tolist()
        for i, row in enumerate(split.rows(kept)):
            expected = np.asarray(Image.open(io.BytesIO(payloads.read(int(row)))).convert("RGB")).astype(int)
            assert np.abs(images.at(i).astype(int) - expected).mean() < 1.5
