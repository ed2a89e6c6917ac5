"""What Arrow says of a damaged Parquet file, as an error that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa


@contextmanager
def naming_damage(path: Path, remedy: str) -> Iterator[None]:
    """Turn what Arrow finds wrong with the content of `path` into a ValueError naming it; `remedy` ends the message.

    Raises:
        ValueError: the file is damaged.
        OSError: the storage failed.
    """
    try:
        yield
    except MemoryError as error:  # Arrow's own, too
        raise ValueError(f"{path} is damaged (it asks for too much memory: {error}); {remedy}") from None
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged or not a Parquet file as it should be ({error}); {remedy}") from None
    except OSError as error:
        if error.errno is not None:
            raise  # the storage's; Arrow's complaints about a file's content have no number
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from None
