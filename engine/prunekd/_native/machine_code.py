"""The machine code, written by hand in LLVM's assembly language, and the C structures that it works on.

libjpeg reports an error by calling a function that must not return. The caller therefore needs C's setjmp and longjmp,
which ctypes cannot call. LLVM (llvmlite, a dependency of Numba) makes the machine code for that at run time in about
15 ms, so nothing is compiled when the package is installed.
"""

import ctypes
from typing import Any

Address = ctypes.c_void_p
FULL = 8  # libjpeg counts scales in eighths; FULL, 4, 2 and 1 are its fast ones
LIBJPEG_ERROR, OTHER_SIZE = 1, 2  # what `create` and `decode` return instead of 0


class ErrorManager(ctypes.Structure):
    """The beginning of jpeg_error_mgr (jpeglib.h), the same in all interfaces, with room for the rest."""

    _fields_ = [
        *[(name, Address) for name in ("error_exit", "emit_message", "output_message", "format_message", "reset")],
        ("msg_code", ctypes.c_int),
        ("msg_parm", ctypes.c_int * 20),
        ("trace_level", ctypes.c_int),
        ("num_warnings", ctypes.c_long),
        ("more", ctypes.c_byte * 256),
    ]


class Decompressor(ctypes.Structure):
    """The beginning of jpeg_decompress_struct (jpeglib.h), the same in all interfaces, with room for the rest."""

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
    """Arguments of `decode`; libjpeg widens `left` and `width` to whole blocks of the file."""

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
CALLED_FROM_PYTHON = ("jpeg_std_error", "jpeg_destroy_decompress")
JUMPS = ("_setjmp", "longjmp")
RGB = 2  # JCS_RGB

# A decode ends with jpeg_abort_decompress as soon as the last row is there: the rest of the file need not be decoded.
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


def compile_for(lib: ctypes.CDLL) -> Any:
    """LLVM's execution engine with the functions of CODE, which call those of `lib`.

    All of FUNCTIONS and JUMPS must exist: LLVM ends the process over a name that it cannot find.
    """
    import llvmlite.binding as llvm  # here, so that a llvmlite that cannot be imported is a reason and no error

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
