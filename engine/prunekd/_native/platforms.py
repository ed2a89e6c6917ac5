"""What the machine code is known to work with. Everything else is refused, with the reason."""

import ctypes
import platform
import sys
from functools import cache
from pathlib import Path

# Bytes of C's jmp_buf by (C library, machine), all 64-bit Linux.
JUMP_BUFFER_BYTES = {
    # glibc, <bits/types/struct___jmp_buf_tag.h>: struct { __jmp_buf; int; __sigset_t; }, a __sigset_t being 128 bytes.
    # sysdeps/x86_64/bits/setjmp.h: typedef long int __jmp_buf[8];
    ("glibc", "x86_64"): 8 * 8 + 8 + 128,
    # sysdeps/aarch64/bits/setjmp.h: typedef unsigned long long __jmp_buf [22];
    ("glibc", "aarch64"): 22 * 8 + 8 + 128,
    # musl, <setjmp.h>: struct { __jmp_buf; unsigned long; unsigned long[128 / sizeof(long)]; }
    # arch/x86_64/bits/setjmp.h: typedef unsigned long __jmp_buf[8];
    ("musl", "x86_64"): 8 * 8 + 8 + 128,
    # arch/aarch64/bits/setjmp.h: typedef unsigned long __jmp_buf[22];
    ("musl", "aarch64"): 22 * 8 + 8 + 128,
}
# sizeof(struct jpeg_decompress_struct) of jpeglib.h on 64-bit systems, by version of libjpeg's interface.
INTERFACES = {62: 632, 70: 640, 80: 656}
# The lowest llvmlite is that of the lowest Numba in setup.py; its LLVM is the first that was tried.
LLVMLITE_FROM, LLVMLITE_BELOW = (0, 45), (1, 0)


def unsupported() -> str | None:
    """Why the machine code is not used on this system, None if it may be."""
    if sys.maxsize < 2**32:
        return "this Python has 32 bits and the machine code is written for 64"
    if this_platform() not in JUMP_BUFFER_BYTES:
        known = ", ".join(" ".join(key) for key in JUMP_BUFFER_BYTES)
        return f"the size of jmp_buf on {' '.join(this_platform())} is not known here, only on {known}"
    try:
        import llvmlite
    except Exception as error:  # a broken installation can raise anything
        return f"llvmlite cannot be imported: {type(error).__name__}: {error}"
    version: str = llvmlite.__version__
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if not LLVMLITE_FROM <= numbers < LLVMLITE_BELOW:
        lowest, above = (".".join(map(str, bound)) for bound in (LLVMLITE_FROM, LLVMLITE_BELOW))
        return f"llvmlite is {version}, and only versions from {lowest} to below {above} are used"
    return None


@cache
def this_platform() -> tuple[str, str]:
    """The C library (glibc, musl or "another C library") and the machine of this process."""
    if any("/ld-musl-" in path for path in loaded_files()):  # first: musl may have a package that poses as glibc
        library = "musl"
    elif sys.platform == "linux" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        library = "glibc"
    else:
        library = "another C library"
    return library, platform.machine()


def jump_buffer() -> ctypes.Array[ctypes.c_longdouble]:
    """Memory for C's jmp_buf, aligned to 16 bytes, twice as large as this platform defines it.

    Raises:
        KeyError: a platform that `unsupported` refuses.
    """
    size = 2 * JUMP_BUFFER_BYTES[this_platform()]
    return (ctypes.c_longdouble * -(-size // ctypes.sizeof(ctypes.c_longdouble)))()


def loaded_files() -> set[str]:
    """Paths of the files mapped into this process; empty where the system has no /proc (Linux alone does)."""
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {line[line.index("/") :] for line in lines if "/" in line}
