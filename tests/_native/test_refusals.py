"""What the machine code does not work with is refused with a reason, and the sizes that it relies on are C's."""

import ctypes.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import llvmlite
import pytest

from _native.pictures import jpeg
from prunekd._native import libjpeg, machine_code, platforms
from prunekd._native.jpeg_regions import RegionDecoder
from prunekd._native.libjpeg import SWITCH, Library, bound, library


@pytest.fixture(autouse=True)
def bound_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests set the switch themselves and change what the library is bound from."""
    monkeypatch.setenv(SWITCH, "auto")
    bound.cache_clear()
    yield
    bound.cache_clear()


def refused() -> str:
    """The reason, the same with and without insisting."""
    bound.cache_clear()
    found = library()
    assert isinstance(found, str), found
    os.environ[SWITCH] = "1"
    with pytest.raises(ValueError) as caught:
        library()
    os.environ[SWITCH] = "auto"
    assert f"PRUNEKD_NATIVE is 1, but {found}" in str(caught.value)
    with pytest.raises(ValueError) as caught:
        RegionDecoder()
    assert str(caught.value) == found
    return found


def test_the_library_is_found_where_pillow_is_a_wheel() -> None:
    found = library()
    assert isinstance(found, Library), found
    assert platforms.INTERFACES[found.version] == found.size


@pytest.mark.parametrize("value", ["", "2", "on", "Auto"])
def test_the_switch_takes_three_values(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(SWITCH, value)
    with pytest.raises(ValueError, match=rf"PRUNEKD_NATIVE is '{value}'; it must be 0 .*, 1 .* or auto"):
        library()


def test_switched_off_no_machine_code_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libjpeg, "compile_for", lambda lib: pytest.fail("compiled"))
    monkeypatch.setenv(SWITCH, "0")
    assert library() == "PRUNEKD_NATIVE=0"
    with pytest.raises(ValueError, match="PRUNEKD_NATIVE=0"):
        RegionDecoder()


def test_platforms_that_are_not_in_the_table_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (("glibc", "riscv64"), ("another C library", "x86_64"), ("musl", "ppc64le")):
        monkeypatch.setattr(platforms, "this_platform", lambda key=key: key)
        assert f"jmp_buf on {' '.join(key)} is not known" in refused()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "maxsize", 2**31 - 1)
    assert "32 bits" in refused()


@pytest.mark.parametrize("version", ["0.44.0", "1.0.0", "2.3", "0.9.1", "unknown"])
def test_other_versions_of_llvmlite_are_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(llvmlite, "__version__", version)
    assert refused().startswith(f"llvmlite is {version}, and only versions from 0.45")


@pytest.mark.parametrize("version", ["0.45.0rc1", "0.45.1", "0.99.0+git", "0.50"])
def test_versions_of_llvmlite_inside_the_bounds_are_used(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(llvmlite, "__version__", version)
    assert isinstance(library(), Library)


def test_without_llvmlite_and_with_a_changed_one_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "llvmlite", None)
        assert "llvmlite cannot be imported: ModuleNotFoundError" in refused()
    with monkeypatch.context() as patch:
        patch.setattr(machine_code, "CODE", "define void @error_exit(")
        assert "llvmlite does not compile the machine code" in refused()
    with monkeypatch.context() as patch:
        patch.delattr("llvmlite.binding.create_mcjit_compiler")
        assert "create_mcjit_compiler" in refused()


def test_other_interfaces_of_libjpeg_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libjpeg, "INTERFACES", {62: 700, 90: 632})
    assert "has libjpeg's interface 62 (632 bytes); known are 62 (700 bytes), 90 (632 bytes)" in refused()


def test_libraries_that_will_not_do_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def reason(path: Path | None) -> str:
        monkeypatch.setattr(libjpeg, "_pillows_libjpeg", lambda: path)
        return refused()

    assert "no libjpeg is among" in reason(None)
    assert "cannot be opened" in reason(tmp_path / "libjpeg.so.62")
    maths = ctypes.util.find_library("m")
    assert maths is not None
    assert "has no jpeg_CreateDecompress" in reason(Path(maths))


def test_setjmp_writes_no_more_than_the_table_says() -> None:
    size = platforms.JUMP_BUFFER_BYTES[platforms.this_platform()]
    decoder = RegionDecoder()
    jump = decoder._state.jump
    assert ctypes.sizeof(jump) >= 2 * size
    assert ctypes.addressof(jump) % 16 == 0
    ctypes.memset(jump, 0xA5, ctypes.sizeof(jump))
    file = jpeg(60, 50)
    decoder.decode(file, 60, 50, (3, 4, 30, 20))
    with pytest.raises(ValueError, match="libjpeg-turbo says"):
        decoder.decode(file[:99], 60, 50, (3, 4, 30, 20))
    written = bytes(jump)
    assert written[:64] != b"\xa5" * 64
    assert set(written[size:]) == {0xA5}


def by_the_compiler(folder: Path, includes: str, expressions: list[str]) -> list[int]:
    """Values of C expressions on this machine; skips the test where there is no compiler or no such header."""
    compiler = next((found for name in ("cc", "gcc", "g++", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc, g++, clang) is on the path")
    prints = "\n".join(f'printf("%zu\\n", (size_t)({expression}));' for expression in expressions)
    (folder / "sizes.c").write_text(f"#include <stdio.h>\n#include <stddef.h>\n{includes}\nint main() {{ {prints} }}\n")
    command, english = [compiler, "sizes.c", "-o", "sizes"], os.environ | {"LC_ALL": "C"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=english)
    if done.returncode and "No such file" in done.stderr:
        pytest.skip(f"{compiler} finds no {includes}: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return [int(line) for line in subprocess.check_output([folder / "sizes"], text=True).split()]


def test_jmp_buf_has_the_size_in_the_table(tmp_path: Path) -> None:
    found = by_the_compiler(tmp_path, "#include <setjmp.h>", ["sizeof(jmp_buf)"])
    assert found == [platforms.JUMP_BUFFER_BYTES[platforms.this_platform()]]


def test_structures_are_those_of_jpeglib_h(tmp_path: Path) -> None:
    ours = {"jpeg_error_mgr": machine_code.ErrorManager, "jpeg_decompress_struct": machine_code.Decompressor}
    names = {"reset": "reset_error_mgr"}
    fields = [(c, kind, name) for c, kind in ours.items() for name, *_ in kind._fields_ if name != "more"]
    offsets = [f"offsetof(struct {c}, {names.get(name, name)})" for c, _, name in fields]
    sizes = [f"sizeof(struct {c})" for c in ours]
    header = "#include <jpeglib.h>"
    found = by_the_compiler(tmp_path, header, [*offsets, *sizes, "JPEG_LIB_VERSION", "JCS_RGB"])
    assert found[: len(fields)] == [getattr(kind, name).offset for _, kind, name in fields]
    error_size, jpeg_size, version, rgb = found[len(fields) :]
    assert error_size <= ctypes.sizeof(machine_code.ErrorManager)
    assert platforms.INTERFACES[version] == jpeg_size <= ctypes.sizeof(machine_code.Decompressor)
    assert rgb == machine_code.RGB
