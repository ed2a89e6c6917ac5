"""Triton without a GPU: this folder's `triton` cases in the interpreter, and compilation for a GPU that is not here."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prunekd_kernels import _stats
from prunekd_kernels._backends import interpreting

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(
    interpreting() or torch.cuda.is_available(), reason="Triton's cases run in this process itself"
)


def test_cases_pass_in_the_interpreter():
    folder = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-k", "triton and not offline", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "-W", "ignore::RuntimeWarning", str(folder)], capture_output=True, text=True,
                          timeout=280, check=False, env=os.environ | {"TRITON_INTERPRET": "1"})  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


POINTERS = {
    "zs": "*bf16", "zt": "*fp16", "labels": "*i64", "weight": "*fp32", "class_scale": "*fp32", "scales": "*fp32",
    "loss": "*fp32", "row_stats": "*fp32", "stats": "*fp32", "grad_loss": "*fp32", "grad": "*bf16", "smoothing": "fp32",
    "alpha": "*fp32", "temperature": "*fp32", "ids": "*i16", "values": "*fp16", "logsumexp": "*fp32",
    "features": "*bf16", "head_weight": "*bf16", "head_bias": "*bf16", "partial": "*fp32",
    "images": "*u8", "flip": "*i1", "out": "*bf16",
    **{f"{name}_{i}": "fp32" for name in ("mean", "inv") for i in range(4)},
}  # fmt: skip
ON = dict.fromkeys(
    ["HAS_TEACHER", "HAS_WEIGHT", "HAS_SCALE", "WANT_STATS", "SPREAD", "HAS_BIAS", "FLIP", "ALPHA_TENSOR",
     "TEMPERATURE_TENSOR"], True,
)  # fmt: skip
TILE = {"WIDEN": False, "ROWS": 64, "COLUMNS": 128, "DEPTH": 32}
CASES = [
    ("dense", "_forward_kernel", {"SOFT": False, "ROWS": 1, "BLOCK": 4096}, {}, 8),
    ("dense", "_forward_kernel", {"SOFT": True, "ROWS": 64, "BLOCK": 16, "ALPHA_TENSOR": False},
     {"labels": "*fp32", "alpha": "fp32"}, 4),
    ("dense", "_backward_kernel", {"SOFT": False, "ROWS": 1, "BLOCK": 4096}, {}, 8),
    ("topk", "_forward_kernel", {"SOFT": False, "ROWS": 1, "BLOCK": 4096, "KEPT": 16}, {}, 8),
    ("topk", "_backward_kernel", {"SOFT": False, "ROWS": 1, "BLOCK": 4096, "KEPT": 16}, {}, 8),
    ("last_layer", "_partial_kernel", {"MOMENTS": False, **TILE}, {}, 8),
    ("last_layer", "_merge_kernel", {"ROWS": 64}, {}, 4),
    ("last_layer", "_backward_kernel", {"SOFT": False, **TILE}, {}, 8),
    # an integer argument of 1 becomes a constant in a launch
    ("dense", "_forward_kernel", {"SOFT": False, "ROWS": 1, "BLOCK": 4096, "rows": 1}, {}, 8),
    ("topk", "_forward_kernel", {"SOFT": False, "ROWS": 1, "BLOCK": 4096, "KEPT": 1, "kept": 1, "rows": 1}, {}, 8),
    ("topk", "_backward_kernel", {"SOFT": False, "ROWS": 1, "BLOCK": 4096, "KEPT": 1, "kept": 1, "rows": 1}, {}, 8),
    ("last_layer", "_partial_kernel", {"MOMENTS": True, **TILE, "rows": 1, "per_share": 1, "depth": 1}, {}, 8),
    ("last_layer", "_merge_kernel", {"ROWS": 64, "rows": 1, "shares": 1}, {}, 4),
    ("normalization", "_normalize_kernel", {"CHANNELS": 3, "BLOCK": 1024}, {}, 4),
]  # fmt: skip


@pytest.mark.parametrize(
    ("package", "name", "constants", "types", "warps"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_kernels_compile_for_hopper(package, name, constants, types, warps):
    """Down to machine code for compute capability 9.0, with the assembler that Triton brings along."""
    from importlib import import_module

    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(import_module(f"prunekd_kernels.{package}.triton_kernel"), name)
    values = {n: constants.get(n, ON.get(n)) for n in kernel.arg_names if n in constants or n in ON}
    signature = {n: "constexpr" if n in values else types.get(n, POINTERS.get(n, "i32")) for n in kernel.arg_names}
    positions = {(kernel.arg_names.index(n),): value for n, value in values.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=positions)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    assert len(compiled.asm["cubin"]) > 0


def test_row_statistics_have_the_same_places_as_everywhere():
    from prunekd_kernels import _triton_blocks

    source = inspect.getsource(_triton_blocks.stat_place.fn)
    places = {name: int(number) for name, number in re.findall(r'NAME == "(\w+)":\s+place \+= (\d+) \* rows', source)}
    numbers = {name: number for name, number in vars(_stats).items() if isinstance(number, int)}
    assert places == {name: number for name, number in numbers.items() if not name.endswith("_ROW_STATS")}
