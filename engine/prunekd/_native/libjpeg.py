"""The libjpeg-turbo that Pillow brings along, made callable without a C compiler."""

import ctypes
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import PIL.Image  # loads the library that is looked for below

from prunekd._native.machine_code import (
    CALLED_FROM_PYTHON,
    FUNCTIONS,
    JUMPS,
    Address,
    Decompressor,
    ErrorManager,
    compile_for,
)
from prunekd._native.platforms import INTERFACES, jump_buffer, loaded_files, unsupported

SWITCH = "PRUNEKD_NATIVE"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Library:
    """libjpeg-turbo with the machine code around it.

    Attributes:
        path: the shared library.
        version, size: what its jpeg_CreateDecompress must be told: the version of the interface and the size of the
            structure in bytes, one pair of INTERFACES.
        engine: owns the machine code.
    """

    path: Path
    version: int
    size: int
    error_exit: int
    output_message: int
    std_error: Any
    destroy: Any
    create: Any
    decode: Any
    engine: Any


def library() -> Library | str:
    """The library, bound once per process, or the reason why JPEG files are decoded whole instead.

    The environment variable PRUNEKD_NATIVE decides: `auto` (the default) uses the library where it can be used, `0`
    never does, `1` insists.

    Raises:
        ValueError: PRUNEKD_NATIVE has another value, or it is 1 and the library cannot be used.
    """
    switch = os.environ.get(SWITCH, "auto")
    if switch not in ("0", "1", "auto"):
        raise ValueError(f"{SWITCH} is {switch!r}; it must be 0 (never), 1 (insist) or auto (where possible)")
    if switch == "0":
        return f"{SWITCH}=0"
    found = bound()
    if switch == "1" and isinstance(found, str):
        raise ValueError(f"{SWITCH} is 1, but {found}; with {SWITCH}=auto JPEG files are decoded whole")
    return found


@cache
def bound() -> Library | str:
    """The library whatever PRUNEKD_NATIVE says, or why it cannot be used."""
    if (reason := unsupported()) is not None:
        return reason
    path = _pillows_libjpeg()
    if path is None:
        return "no libjpeg is among the shared libraries that Pillow loaded"
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:  # it was replaced on disk after this process had loaded it
        return f"{path} cannot be opened: {error}"
    for where, names in ((lib, FUNCTIONS + CALLED_FROM_PYTHON), (ctypes.CDLL(None), JUMPS)):
        missing = [name for name in names if not hasattr(where, name)]
        if missing:
            return f"{path if where is lib else 'the C library'} has no {missing[0]}"
    try:
        engine = compile_for(lib)
    except Exception as error:  # whatever a future llvmlite raises: decoding goes on without it
        return f"llvmlite does not compile the machine code: {type(error).__name__}: {error}"
    return _with_its_interface(_callable(path, lib, engine))


class State:
    """libjpeg's structures of one decoder; they must not move in memory."""

    def __init__(self, found: Library) -> None:
        self._found = found
        self.errors, self.jpeg, self.jump = ErrorManager(), Decompressor(), jump_buffer()
        found.std_error(ctypes.addressof(self.errors))
        self.errors.error_exit, self.errors.output_message = found.error_exit, found.output_message
        self.jpeg.err, self.jpeg.client_data = ctypes.addressof(self.errors), ctypes.addressof(self.jump)

    def create(self, version: int, size: int) -> int:
        """Offer them to libjpeg as of this version and size; 0 if it took them."""
        result: int = self._found.create(ctypes.addressof(self.jpeg), ctypes.addressof(self.jump), version, size)
        return result

    def message(self) -> str:
        """libjpeg's last message."""
        text = ctypes.create_string_buffer(200)  # JMSG_LENGTH_MAX
        ctypes.CFUNCTYPE(None, Address, Address)(self.errors.format_message)(ctypes.addressof(self.jpeg), text)
        return text.value.decode("ascii", "replace")


def _pillows_libjpeg() -> Path | None:
    """The loaded libjpeg, that of Pillow's wheel before any other."""
    paths = {Path(path) for path in loaded_files() if "/libjpeg" in path}
    beside = Path(PIL.Image.__file__).parent.parent / "pillow.libs"
    return min(paths, key=lambda path: (path.parent != beside, str(path)), default=None)


def _callable(path: Path, lib: ctypes.CDLL, engine: Any) -> Library:
    kinds = {"create": [Address, Address, ctypes.c_int, ctypes.c_size_t]}
    kinds["decode"] = [Address, Address, ctypes.c_char_p, ctypes.c_size_t, Address, Address, Address]
    own = {k: ctypes.CFUNCTYPE(ctypes.c_int, *v)(engine.get_function_address(k)) for k, v in kinds.items()}
    std_error, destroy = lib.jpeg_std_error, lib.jpeg_destroy_decompress
    std_error.restype, std_error.argtypes, destroy.argtypes = Address, [Address], [Address]
    return Library(
        path=path,
        version=0,
        size=0,
        error_exit=engine.get_function_address("error_exit"),
        output_message=engine.get_function_address("output_message"),
        std_error=std_error,
        destroy=destroy,
        engine=engine,
        **own,
    )


def _with_its_interface(found: Library) -> Library | str:
    """The library with the version and size that it names itself when it is told wrong ones."""
    asked: list[int] = []
    for version, size in ((0, 0), (None, 0)):
        state = State(found)
        if state.create(asked[0] if version is None else version, size) == 0:
            return f"{found.path} takes any version of its interface, so its own is not known"
        asked.append(int(state.errors.msg_parm[0]))
    if INTERFACES.get(asked[0]) != asked[1]:
        known = ", ".join(f"{version} ({size} bytes)" for version, size in INTERFACES.items())
        return f"{found.path} has libjpeg's interface {asked[0]} ({asked[1]} bytes); known are {known}"
    return replace(found, version=asked[0], size=asked[1])
