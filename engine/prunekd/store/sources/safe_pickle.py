"""Pickles of plain values and uint8 arrays, read without running anything that stands in them.

A pickle is a program: it names functions and calls them. Here every name but the few that NumPy's own pickles of arrays
need is refused, and for those few stand-ins are called, which note what they were given and do nothing else. Not even
NumPy's code sees a value that the file chose before it has been checked.
"""

import pickle
from math import prod
from pathlib import Path

import numpy as np

_UINT8 = ("u1", "|u1", "uint8")


class Pixels:
    """Stands for an array: keeps the state that the pickle sets."""

    def __init__(self, *_: object) -> None:
        self._state: object = None

    def __setstate__(self, state: object) -> None:
        self._state = state

    def array(self, path: Path) -> np.ndarray:
        """The array, uint8; ValueError naming `path` if it is of another type or its shape does not fit its bytes."""
        state = self._state
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Type)):
            raise ValueError(f"{path} holds an array that NumPy did not write")
        _, shape, kind, by_column, data = state
        data = data.encode("latin-1") if isinstance(data, str) else data
        if kind.name not in _UINT8 or by_column or not isinstance(data, bytes) or not _positive(shape):
            raise ValueError(f"{path} holds an array of {kind.name!r}; it must be uint8, row by row")
        if prod(shape) != len(data):
            raise ValueError(f"{path} holds an array that claims the shape {shape} and has {len(data)} bytes")
        return np.frombuffer(data, np.uint8).reshape(shape)


class _Type:
    """Stands for an element type: keeps its name."""

    def __init__(self, name: object = "", *_: object) -> None:
        self.name = name

    def __setstate__(self, state: object) -> None:
        """Byte order and the like say nothing about uint8."""


class _ArrayClass:
    """Stands for the class of arrays, which is only ever handed to `_reconstruct`."""

    def __setstate__(self, state: object) -> None:
        """There is none. Were this missing, a pickle could set attributes of the class."""


class _Encoded(bytes):
    """Stands for `_codecs.encode`, with which bytes are written in old protocols."""

    def __new__(cls, text: object, encoding: object = "") -> "_Encoded":
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("text in an encoding other than latin1")
        return super().__new__(cls, text.encode("latin-1"))

    def __setstate__(self, state: object) -> None:
        """See _ArrayClass."""


_STAND_INS: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): _Type,
    ("numpy.core.multiarray", "_reconstruct"): Pixels,
    ("numpy._core.multiarray", "_reconstruct"): Pixels,
    ("_codecs", "encode"): _Encoded,
}


def _positive(shape: object) -> bool:
    return isinstance(shape, tuple) and all(type(side) is int and side > 0 for side in shape)


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which plain values do not need")
        return _STAND_INS[module, name]


def load_plain(path: Path) -> object:
    """The value in a pickle; arrays come as Pixels. Text of Python 2 is read as Latin-1.

    Raises:
        ValueError: it is no pickle, is damaged, or names anything else; the message says what.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin-1").load()
    except Exception as error:  # damaged pickles raise nearly every type
        raise ValueError(f"{path} is not read: {error or type(error).__name__}") from None
