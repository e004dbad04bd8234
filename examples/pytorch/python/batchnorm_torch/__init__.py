# SPDX-License-Identifier: MIT
"""Batch normalization of PyTorch on the CPU by the kernels of batchnorm.

    import batchnorm_torch

and torch.nn.BatchNorm1d, 2d, 3d and torch.nn.functional.batch_norm run on them, in training and inference, with their
gradients, for float, double, half and bfloat16, in every memory format. What they do not take runs on PyTorch's own kernels
as before.
"""

import contextlib
import pathlib
from typing import NamedTuple

import torch

__all__ = ["Calls", "calls", "disable", "enable", "instruction_set", "is_enabled", "reset_calls", "using"]

try:
    torch.ops.load_library(pathlib.Path(__file__).with_name("_C.so"))
except OSError as error:
    raise ImportError(f"batchnorm_torch cannot be loaded; if torch (now {torch.__version__}) was replaced, install it again: "
                      f"{error.__cause__ or error}") from error

_ops = torch.ops.batchnorm_torch


class Calls(NamedTuple):
    """How many calls, in all threads, the kernels of batchnorm took, and how many they passed on to PyTorch's own."""

    forward_taken: int
    forward_passed_on: int
    backward_taken: int
    backward_passed_on: int


def calls() -> Calls:
    """The calls since the import or the last reset_calls()."""
    return Calls(*_ops.counts())


def reset_calls() -> None:
    _ops.reset_counts()


def enable() -> None:
    """From now on the kernels of batchnorm run, in all threads; so it is after the import."""
    _ops.set_enabled(True)


def disable() -> None:
    """From now on PyTorch's own kernels run, in all threads."""
    _ops.set_enabled(False)


def is_enabled() -> bool:
    return _ops.is_enabled()


@contextlib.contextmanager
def using(enabled: bool):
    """For the length of a with block the kernels of batchnorm run, or PyTorch's own; in all threads."""
    before = is_enabled()
    _ops.set_enabled(enabled)
    try:
        yield
    finally:
        _ops.set_enabled(before)


def instruction_set() -> str:
    """What the kernels run on: "baseline", "x86-64-v3" or "x86-64-v4"; BATCHNORM_ISA in the environment chooses."""
    return _ops.instruction_set()


instruction_set()  # an unknown BATCHNORM_ISA is an error here, not a reason to pass every call on
