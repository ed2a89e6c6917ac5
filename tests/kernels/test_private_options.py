"""Private options of Numba, llvmlite and PyTorch: they do what they are for, and fail clearly where they are gone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from prunekd_kernels import _backends, _private_options, kd_loss
from prunekd_kernels._private_options import PrivateOptionError

numba = pytest.importorskip("numba")


def _sum_of_both(a, b):
    total = 0.0
    for row in (a, b):  # arrays in a tuple are counted, with Numba 0.62 as with 0.68
        for value in row:
            total += value
    return total


def test_no_array_is_reference_counted():
    arrays = np.ones(3), np.zeros(3)
    counted, uncounted = numba.njit(_sum_of_both), _private_options.jit_without_reference_counts(_sum_of_both)
    ir = []
    for function in (counted, uncounted):
        function.compile(tuple(numba.typeof(array) for array in arrays))
        ir.append("".join(function.inspect_llvm().values()))
    assert "NRT_incref" in ir[0]
    assert "NRT_incref" not in ir[1]


def test_a_numba_without_the_option_is_named(monkeypatch):
    from numba.core.options import DefaultOptions

    monkeypatch.delattr(DefaultOptions, "_nrt")
    with pytest.raises(PrivateOptionError, match=rf"numba {numba.__version__}.*_nrt.*backend='torch'"):
        _private_options.jit_without_reference_counts(_sum_of_both)


def test_wide_vectors_are_asked_of_llvm():
    from llvmlite import ir

    function = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), []), "f")
    _private_options.prefer_wide_vectors(function)
    assert '"prefer-vector-width"="512"' in str(function)
    with pytest.raises(PrivateOptionError, match=r"llvmlite.*attributes"):
        _private_options.prefer_wide_vectors(SimpleNamespace(attributes=[]))


def test_a_numba_that_cannot_link_is_named():
    kernel = SimpleNamespace(dispatcher=SimpleNamespace(get_compile_result=None))
    with pytest.raises(PrivateOptionError, match="add_linking_libs"):
        _private_options.call_compiled(SimpleNamespace(), None, kernel, None, [])
    with pytest.raises(PrivateOptionError, match="get_call_type"):
        _private_options.compiled_signature(None, kernel, ())


def test_a_pytorch_that_ignores_the_mark_is_named(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(_backends.resolved_name, "_dynamo_marked_constant", False)
    student, labels = torch.randn(3, 5), torch.zeros(3, dtype=torch.long)
    compiled = torch.compile(kd_loss, fullgraph=True, backend="eager")
    version = torch.__version__.split("+")[0]
    # torch 2.7 tells the class of an exception in compiled code, not its message
    told = "PrivateOptionError" if version.startswith("2.7.") else f"torch {version}.*_dynamo_marked_constant"
    with pytest.raises(Exception, match=told):
        compiled(student, student, labels, alpha=0.5, temperature=1.0)
    torch._dynamo.reset()
