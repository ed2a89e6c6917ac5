"""NumPy files, with one error for whatever is wrong with them."""

from pathlib import Path
from tokenize import TokenError

import numpy as np


def load_array(path: Path, remedy: str, *, mapped: bool = True) -> np.ndarray:
    """Read the array of a `.npy` file; `mapped` leaves it on the disk, read-only.

    Raises:
        ValueError: the file is missing, damaged or holds objects; the message names it and ends with `remedy`.
        OSError: the storage failed.
    """
    try:
        array: np.ndarray = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; {remedy}") from None
    except (OSError, ValueError, EOFError, SyntaxError, TokenError) as error:  # NumPy parses headers as Python
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(f"{path} cannot be read as a NumPy array ({error}); {remedy}") from None
    return array
