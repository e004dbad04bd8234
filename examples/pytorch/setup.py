# SPDX-License-Identifier: MIT
"""Builds the package batchnorm_torch against the installed torch:

    python3 -m pip install --no-build-isolation ./examples/pytorch

Eigen comes from EIGEN3_INCLUDE_DIR, or from pkg-config, or from where Debian puts it.
"""

import os
import pathlib
import re
import subprocess

import setuptools
import torch
from torch.utils import cpp_extension

FOLDER = pathlib.Path(__file__).resolve().parent
LIBRARY = FOLDER.parents[1] / "include"
BUILD = FOLDER.parents[1] / "build" / "pytorch"


def eigen():
    """The folder that holds Eigen/Core."""
    candidates = [os.environ.get("EIGEN3_INCLUDE_DIR", "")]
    try:
        flags = subprocess.run(["pkg-config", "--cflags-only-I", "eigen3"], capture_output=True, text=True, check=True).stdout
        candidates += [flag.removeprefix("-I") for flag in flags.split()]
    except (OSError, subprocess.CalledProcessError):
        pass
    candidates.append("/usr/include/eigen3")
    for candidate in candidates:
        if candidate and (pathlib.Path(candidate) / "Eigen" / "Core").exists():
            return candidate
    raise SystemExit("Eigen 3.4 is missing (Debian: libeigen3-dev). EIGEN3_INCLUDE_DIR can name the folder of Eigen/Core.")


def version():
    text = (LIBRARY / "batchnorm" / "version.hpp").read_text()
    return ".".join(re.findall(r"#define BATCHNORM_VERSION_\w+ (\d+)", text))


def extension():
    systems = [eigen(), *cpp_extension.include_paths()]
    return setuptools.Extension(
        "batchnorm_torch._C",
        sources=sorted(str(source.relative_to(FOLDER)) for source in (FOLDER / "src").glob("*.cpp")),
        include_dirs=[str(LIBRARY)],
        library_dirs=cpp_extension.library_paths(),
        libraries=["c10", "torch_cpu"],
        # OpenMP is compiled in but not linked: its functions are found in the OpenMP that torch has loaded. A second one would
        # have threads of its own.
        extra_compile_args=["-std=c++20", "-O2", "-g0", "-fvisibility=hidden", "-fopenmp"] +
        [argument for folder in systems for argument in ("-isystem", folder)],
        language="c++")


# Beside the other builds, not among the sources.
BUILD.mkdir(parents=True, exist_ok=True)

setuptools.setup(
    name="batchnorm_torch",
    version=version(),
    description="torch.nn.BatchNorm1d, 2d and 3d on the CPU by the kernels of batchnorm",
    license="MIT",
    package_dir={"": "python"},
    packages=["batchnorm_torch"],
    ext_modules=[extension()],
    cmdclass={"build_ext": cpp_extension.BuildExtension.with_options(no_python_abi_suffix=True)},
    options={"build": {"build_base": str(BUILD)}, "egg_info": {"egg_base": str(BUILD)}},
    # The interface of torch's C++ library is that of one version.
    install_requires=[f"torch == {torch.__version__.split('+')[0]}"],
    zip_safe=False)
