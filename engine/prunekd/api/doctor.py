"""Find out what is installed on this machine and what is missing."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from prunekd.common.machine import DALI_PACKAGES, available_cores, installed_version, processor_name

FFCV_LIBRARIES = "apt-get install libopencv-dev libturbojpeg0-dev pkg-config g++"
NVIDIA_APEX = (
    "APEX_CPP_EXT=1 APEX_CUDA_EXT=1 pip install -v --no-build-isolation git+https://github.com/NVIDIA/apex "
    "(or use NVIDIA's PyTorch container)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report: a `remedy` is given where something is missing."""

    name: str
    found: bool
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at everything; a package that breaks on import is a finding, not a crash."""
    findings = [
        Finding(name="Python", found=True, detail=platform.python_version()),
        Finding(name="processor", found=True, detail=f"{processor_name()}, {available_cores()} cores"),
    ]
    checks: list[Callable[[], list[Finding]]] = [_torch, _decoder, _ffcv, _dali, _apex, _kernels]
    for check in checks:
        findings += check()
    return findings


def require(findings: Sequence[Finding], needed: Sequence[str]) -> None:
    """Make sure that what is `needed`, by name, was found.

    Raises:
        ValueError: a name that nothing was looked for under.
        RuntimeError: something is missing; the message names it and says why.
    """
    state = {item.name: item for item in findings}
    unknown = [name for name in needed if name not in state]
    if unknown:
        raise ValueError(f"--need {unknown[0]}: doctor looks at {', '.join(state)}")
    missing = [f"{name} ({state[name].detail})" for name in needed if not state[name].found]
    if missing:
        raise RuntimeError(f"needed and missing: {'; '.join(missing)}")


def _import_problem(module: str) -> str | None:
    """None if the module imports, else why not."""
    try:
        import_module(module)
    except Exception as error:  # a half-installed package can raise anything while it is imported
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def _package(name: str, module: str, distribution: str, remedy: str) -> Finding:
    problem = _import_problem(module)
    if problem is None:
        return Finding(name=name, found=True, detail=installed_version(distribution) or "version unknown")
    return Finding(name=name, found=False, detail=problem, remedy=remedy)


def _torch() -> list[Finding]:
    findings = [
        _package("torch", "torch", "torch", "pip install torch"),
        _package("torchvision", "torchvision", "torchvision", "pip install torchvision"),
        _package("timm", "timm", "timm", "pip install timm"),
    ]
    if not findings[0].found:
        return findings
    import torch  # here, because this module must work without it

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if names:
        findings.append(Finding(name="GPU", found=True, detail=", ".join(names)))
    else:
        why = "torch was built without CUDA" if torch.version.cuda is None else "torch sees no NVIDIA driver or GPU"
        findings.append(Finding(name="GPU", found=False, detail=f"{why}; training runs on the CPU"))
    return findings


def _decoder() -> list[Finding]:
    whole = _package("JPEG decoder", "simplejpeg", "simplejpeg", "pip install simplejpeg")
    if _import_problem("prunekd._native.libjpeg"):  # it needs torch, which is spoken of already
        return [whole]
    from prunekd._native.libjpeg import Library, library

    try:
        found = library()
    except ValueError as error:  # what the switch asks for cannot be had
        found = str(error)
    if isinstance(found, Library):
        crops = Finding(name="JPEG crops", found=True, detail=f"decoded alone, by Pillow's {found.path.name}")
    else:
        detail = f"whole images are decoded, at twice the cost: {found}"
        packages = {"llvmlite": "--upgrade numba", "libjpeg": "--force-reinstall pillow"}
        remedy = next((f"pip install {package}" for word, package in packages.items() if word in found), "")
        crops = Finding(name="JPEG crops", found=False, detail=detail, remedy=remedy)
    return [whole, crops]


def _ffcv() -> list[Finding]:
    return [_package("FFCV", "ffcv", "ffcv", f"{FFCV_LIBRARIES}; pip install 'prunekd[ffcv]'")]


def _dali() -> list[Finding]:
    problem = _import_problem("nvidia.dali")
    versions = [f"{name} {installed_version(name)}" for name in DALI_PACKAGES if installed_version(name)]
    if problem is None:
        return [Finding(name="DALI", found=True, detail=", ".join(versions) or "version unknown")]
    return [Finding(name="DALI", found=False, detail=problem, remedy="pip install 'prunekd[dali]'")]


def _apex() -> list[Finding]:
    """NVIDIA's Apex is told by its extension `amp_C`; the `apex` on PyPI is a web toolkit."""
    if find_spec("amp_C") is not None:
        return [_package("Apex (NVIDIA)", "apex.optimizers", "apex", NVIDIA_APEX)]
    if find_spec("apex") is None:
        detail = "not installed; torch's own fused optimizers are used"
    else:
        version = installed_version("apex") or "of unknown version"
        detail = (
            f"the package `apex` {version} found here lacks amp_C: it is not NVIDIA's with its extensions "
            "(PyPI's `apex` is an unrelated web toolkit: pip uninstall apex)"
        )
    return [Finding(name="Apex (NVIDIA)", found=False, detail=detail, remedy=NVIDIA_APEX)]


def _kernels() -> list[Finding]:
    findings = [
        _package("Triton", "triton", "triton", "pip install triton"),
        _package("numba", "numba", "numba", "pip install numba"),
    ]
    problem = _import_problem("prunekd_kernels")
    if problem is not None:
        return [*findings, Finding(name="kernels", found=False, detail=problem, remedy="pip install torch numba")]
    from prunekd_kernels import available_backends

    for name, state in available_backends().items():  # a state may carry a note after "available"
        findings.append(Finding(name=f"kernels: {name}", found=state.startswith("available"), detail=state))
    return findings
