"""The libjpeg-turbo that Pillow brings along, made callable without a C compiler.

Calling it through ctypes alone will not do: libjpeg reports an error by calling a function that must not return, so the
caller needs C's setjmp and longjmp. The few lines of machine code for that come from LLVM (llvmlite, which Numba brings
along) at run time, in some 15 ms: nothing is compiled when the package is installed.
"""

import ctypes
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
from PIL import _imaging  # type: ignore[attr-defined]  # loads the library that is looked for below

Address = ctypes.c_void_p
FULL = 8  # scales are in eighths, which is how libjpeg counts them; FULL, 4, 2 and 1 are its fast ones
LIBJPEG_ERROR, OTHER_SIZE = 1, 2  # what `decode` returns instead of 0


class ErrorManager(ctypes.Structure):
    """jpeg_error_mgr of jpeglib.h, the same in all versions of its interface."""

    _fields_ = [
        *[(name, Address) for name in ("error_exit", "emit_message", "output_message", "format_message", "reset")],
        ("msg_code", ctypes.c_int),
        ("msg_parm", ctypes.c_int * 20),
        ("trace_level", ctypes.c_int),
        ("num_warnings", ctypes.c_long),
        ("more", ctypes.c_byte * 256),
    ]


class Decompressor(ctypes.Structure):
    """The beginning of jpeg_decompress_struct, which is the same in all versions, with room for the rest."""

    _fields_ = [
        *[(name, Address) for name in ("err", "mem", "progress", "client_data")],
        ("is_decompressor", ctypes.c_int),
        ("global_state", ctypes.c_int),
        ("src", Address),
        *[(name, ctypes.c_int) for name in ("image_width", "image_height", "num_components")],
        *[(name, ctypes.c_int) for name in ("jpeg_color_space", "out_color_space", "scale_num", "scale_denom")],
        ("more", ctypes.c_byte * 2048),
    ]


TASK = ("scale", "image_width", "image_height", "left", "top", "width", "height", "wanted_left", "wanted_width")


class Task(ctypes.Structure):
    """What `decode` below is told; libjpeg widens `left` and `width` to whole blocks of the file."""

    _fields_ = [(name, ctypes.c_int) for name in TASK]


FUNCTIONS = (
    "jpeg_CreateDecompress",
    "jpeg_mem_src",
    "jpeg_read_header",
    "jpeg_start_decompress",
    "jpeg_crop_scanline",
    "jpeg_skip_scanlines",
    "jpeg_read_scanlines",
    "jpeg_abort_decompress",
)
JUMPS = ("_setjmp", "longjmp")
RGB = 2  # JCS_RGB

# A decode ends with jpeg_abort_decompress as soon as the last row is there: what lies behind it need not be decoded.
# `line` holds one row of whole blocks; the wanted part of it is copied to `out`.
CODE = """
declare i32 @_setjmp(ptr) returns_twice
declare void @longjmp(ptr, i32) noreturn
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @{jpeg_CreateDecompress}(ptr, i32, i64)
declare void @{jpeg_mem_src}(ptr, ptr, i64)
declare i32 @{jpeg_read_header}(ptr, i32)
declare i32 @{jpeg_start_decompress}(ptr)
declare void @{jpeg_crop_scanline}(ptr, ptr, ptr)
declare i32 @{jpeg_skip_scanlines}(ptr, i32)
declare i32 @{jpeg_read_scanlines}(ptr, ptr, i32)
declare void @{jpeg_abort_decompress}(ptr)

define void @error_exit(ptr %jpeg) {{
  %p_jump = getelementptr i8, ptr %jpeg, i64 {client_data}
  %jump = load ptr, ptr %p_jump
  call void @longjmp(ptr %jump, i32 1) noreturn
  unreachable
}}

define void @output_message(ptr %jpeg) {{
  ret void
}}

define i32 @create(ptr %jpeg, ptr %jump, i32 %version, i64 %size) {{
  %again = call i32 @_setjmp(ptr %jump) returns_twice
  %failed = icmp ne i32 %again, 0
  br i1 %failed, label %error, label %begin
begin:
  call void @{jpeg_CreateDecompress}(ptr %jpeg, i32 %version, i64 %size)
  ret i32 0
error:
  ret i32 {LIBJPEG_ERROR}
}}

define i32 @decode(ptr %jpeg, ptr %jump, ptr %data, i64 %size, ptr %task, ptr %line, ptr %out) {{
  %p_row = alloca ptr
  store ptr %line, ptr %p_row
  %again = call i32 @_setjmp(ptr %jump) returns_twice
  %failed = icmp ne i32 %again, 0
  br i1 %failed, label %error, label %header
header:
  call void @{jpeg_mem_src}(ptr %jpeg, ptr %data, i64 %size)
  %read = call i32 @{jpeg_read_header}(ptr %jpeg, i32 1)
  %p_image_width = getelementptr i8, ptr %jpeg, i64 {image_width}
  %p_image_height = getelementptr i8, ptr %jpeg, i64 {image_height}
  %p_task_width = getelementptr i8, ptr %task, i64 {task_image_width}
  %p_task_height = getelementptr i8, ptr %task, i64 {task_image_height}
  %image_width = load i32, ptr %p_image_width
  %image_height = load i32, ptr %p_image_height
  %task_width = load i32, ptr %p_task_width
  %task_height = load i32, ptr %p_task_height
  %same_width = icmp eq i32 %image_width, %task_width
  %same_height = icmp eq i32 %image_height, %task_height
  %same = and i1 %same_width, %same_height
  br i1 %same, label %start, label %other_size
start:
  %p_space = getelementptr i8, ptr %jpeg, i64 {out_color_space}
  %p_numerator = getelementptr i8, ptr %jpeg, i64 {scale_num}
  %p_denominator = getelementptr i8, ptr %jpeg, i64 {scale_denom}
  %p_scale = getelementptr i8, ptr %task, i64 {task_scale}
  %scale = load i32, ptr %p_scale
  store i32 {RGB}, ptr %p_space
  store i32 %scale, ptr %p_numerator
  store i32 {FULL}, ptr %p_denominator
  %started = call i32 @{jpeg_start_decompress}(ptr %jpeg)
  %p_left = getelementptr i8, ptr %task, i64 {task_left}
  %p_top = getelementptr i8, ptr %task, i64 {task_top}
  %p_width = getelementptr i8, ptr %task, i64 {task_width}
  %p_height = getelementptr i8, ptr %task, i64 {task_height}
  %p_wanted_left = getelementptr i8, ptr %task, i64 {task_wanted_left}
  %p_wanted_width = getelementptr i8, ptr %task, i64 {task_wanted_width}
  call void @{jpeg_crop_scanline}(ptr %jpeg, ptr %p_left, ptr %p_width)
  %top = load i32, ptr %p_top
  %passed = call i32 @{jpeg_skip_scanlines}(ptr %jpeg, i32 %top)
  %left = load i32, ptr %p_left
  %wanted_left = load i32, ptr %p_wanted_left
  %wanted_width = load i32, ptr %p_wanted_width
  %height = load i32, ptr %p_height
  %before = sub i32 %wanted_left, %left
  %before_bytes = mul i32 %before, 3
  %row_bytes = mul i32 %wanted_width, 3
  %skip = zext i32 %before_bytes to i64
  %bytes = zext i32 %row_bytes to i64
  %wanted = getelementptr i8, ptr %line, i64 %skip
  br label %rows
rows:
  %k = phi i32 [0, %start], [%next_k, %rows]
  %place = phi ptr [%out, %start], [%next_place, %rows]
  %got = call i32 @{jpeg_read_scanlines}(ptr %jpeg, ptr %p_row, i32 1)
  call void @llvm.memcpy.p0.p0.i64(ptr %place, ptr %wanted, i64 %bytes, i1 false)
  %next_k = add i32 %k, 1
  %next_place = getelementptr i8, ptr %place, i64 %bytes
  %more = icmp ult i32 %next_k, %height
  br i1 %more, label %rows, label %done
done:
  call void @{jpeg_abort_decompress}(ptr %jpeg)
  ret i32 0
other_size:
  call void @{jpeg_abort_decompress}(ptr %jpeg)
  ret i32 {OTHER_SIZE}
error:
  call void @{jpeg_abort_decompress}(ptr %jpeg)
  ret i32 {LIBJPEG_ERROR}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Library:
    """libjpeg-turbo with the machine code around it.

    Attributes:
        path: the shared library.
        version, size: what its jpeg_CreateDecompress wants to be told: of the interface (62, 70 or 80) and of the
            structure in bytes.
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


@cache
def library() -> Library | str:
    """The library, bound once per process, or why there is none here."""
    path = _loaded_libjpeg()
    if path is None:
        return "no libjpeg is among the shared libraries that Pillow loaded (Linux alone lists them)"
    if sys.maxsize < 2**32:
        return "the machine code is written for 64-bit systems"
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:  # it was replaced on disk after this process had loaded it
        return f"{path} cannot be opened: {error}"
    for where, names in ((lib, FUNCTIONS), (ctypes.CDLL(None), JUMPS)):
        missing = [name for name in names if not hasattr(where, name)]
        if missing:  # LLVM would end the process over it
            return f"{path if where is lib else 'the C library'} has no {missing[0]}"
    engine = _compile(lib)
    kinds = {"create": [Address, Address, ctypes.c_int, ctypes.c_size_t]}
    kinds["decode"] = [Address, Address, ctypes.c_char_p, ctypes.c_size_t, Address, Address, Address]
    own = {k: ctypes.CFUNCTYPE(ctypes.c_int, *v)(engine.get_function_address(k)) for k, v in kinds.items()}
    std_error, destroy = lib.jpeg_std_error, lib.jpeg_destroy_decompress
    std_error.restype, std_error.argtypes, destroy.argtypes = Address, [Address], [Address]
    found = Library(
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
    return _asked_for_its_version(found)


class State:
    """libjpeg's structures of one decoder; they must not move in memory."""

    def __init__(self, found: Library) -> None:
        self._found = found
        self.errors, self.jpeg = ErrorManager(), Decompressor()
        self.jump = (ctypes.c_longdouble * 64)()  # a jmp_buf and to spare, aligned
        found.std_error(ctypes.addressof(self.errors))
        self.errors.error_exit, self.errors.output_message = found.error_exit, found.output_message
        self.jpeg.err, self.jpeg.client_data = ctypes.addressof(self.errors), ctypes.addressof(self.jump)

    def create(self, version: int, size: int) -> int:
        """0 if libjpeg took them."""
        result: int = self._found.create(ctypes.addressof(self.jpeg), ctypes.addressof(self.jump), version, size)
        return result

    def message(self) -> str:
        """libjpeg's last message."""
        text = ctypes.create_string_buffer(200)  # JMSG_LENGTH_MAX
        ctypes.CFUNCTYPE(None, Address, Address)(self.errors.format_message)(ctypes.addressof(self.jpeg), text)
        return text.value.decode("ascii", "replace")


def _loaded_libjpeg() -> Path | None:
    """The libjpeg that Pillow's extension module is linked with."""
    assert _imaging is not None
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    paths = {Path(line[line.index("/") :]) for line in lines if "/libjpeg" in line}
    beside = Path(_imaging.__file__).parent.parent / "pillow.libs"
    return min(paths, key=lambda path: (path.parent != beside, str(path)), default=None)


def _compile(lib: ctypes.CDLL) -> Any:
    """LLVM's execution engine with CODE's functions, calling those of `lib`."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    names = {name: f"prunekd_{name}" for name in FUNCTIONS}  # another libjpeg may have the bare names in this process
    for name, own_name in names.items():
        llvm.add_symbol(own_name, ctypes.cast(getattr(lib, name), Address).value)
    fields = ("client_data", "image_width", "image_height", "out_color_space", "scale_num", "scale_denom")
    offsets = {name: getattr(Decompressor, name).offset for name in fields}
    offsets |= {f"task_{name}": getattr(Task, name).offset for name in TASK}
    constants = {"RGB": RGB, "FULL": FULL, "LIBJPEG_ERROR": LIBJPEG_ERROR, "OTHER_SIZE": OTHER_SIZE}
    module = llvm.parse_assembly(CODE.format(**names, **offsets, **constants))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine(opt=2))
    engine.finalize_object()
    return engine


def _asked_for_its_version(found: Library) -> Library | str:
    """The library with the version and size that it names itself when it is told wrong ones."""
    asked: list[int] = []
    for version, size in ((0, 0), (None, 0)):
        state = State(found)
        if state.create(asked[0] if version is None else version, size) == 0:
            return f"{found.path} takes any version of its interface, so its own is not known"
        asked.append(int(state.errors.msg_parm[0]))
    if asked[0] not in (62, 70, 80) or not ctypes.sizeof(Decompressor) >= asked[1] >= 500:
        return f"{found.path} has an interface that is not known here: {asked}"
    return replace(found, version=asked[0], size=asked[1])
