# SPDX-License-Identifier: MIT
"""What the tests share: types, memory layouts, the formula in extended precision, and runs with and without the extension."""

import batchnorm_torch
import numpy as np
import torch

# The types of x and of the parameters.
TYPES = {
    "float": (torch.float, torch.float),
    "double": (torch.double, torch.double),
    "half": (torch.half, torch.half),
    "half, float parameters": (torch.half, torch.float),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
    "bfloat16, float parameters": (torch.bfloat16, torch.float),
}
BOTH = (True, False)


def module_of(rank):
    return {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d, 5: torch.nn.BatchNorm3d}[rank]


def channels_last(rank):
    return {4: torch.channels_last, 5: torch.channels_last_3d}[rank]


def memory_formats(rank):
    return (torch.contiguous_format, channels_last(rank)) if rank > 3 else (torch.contiguous_format, )


def _larger(tensor, layout):
    """The tensor as a slice of a larger one that is filled with NaN."""
    extents = [extent + 2 for extent in tensor.shape]
    larger = torch.full(extents, float("nan"), dtype=tensor.dtype)
    if layout == "channels last":
        larger = larger.contiguous(memory_format=channels_last(tensor.dim()))
    return larger


def _slice(tensor, larger, axes):
    place = larger[tuple(slice(1, -1) if axis in axes else slice(0, extent) for axis, extent in enumerate(tensor.shape))]
    return place.copy_(tensor)


def layouts(tensor):
    """The same values in every layout: (name, tensor)."""
    rank = tensor.dim()
    yield "contiguous", tensor.contiguous()
    yield "sliced channels", _slice(tensor, _larger(tensor, ""), (1,))
    yield "sliced everywhere", _slice(tensor, _larger(tensor, ""), range(rank))
    yield "transposed", tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    if rank >= 4:
        yield "channels last", tensor.contiguous(memory_format=channels_last(rank))
        yield "channels last, sliced channels", _slice(tensor, _larger(tensor, "channels last"), (1,))
        yield "channels last, sliced everywhere", _slice(tensor, _larger(tensor, "channels last"), range(rank))


def exact(tensor):
    """As NumPy's extended precision."""
    return tensor.detach().to(torch.double).numpy().astype(np.longdouble)


class Formula:
    """The operator and its gradients as they are defined, in extended precision.

    Beside each result stands what its rounding error is measured at: the largest of the terms it is made of.
    """

    def __init__(self, x, dy, weight, bias, mean, variance, training, epsilon):
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        m = x.size // x.shape[1]

        def along(vector):
            return vector.reshape(1, -1, *[1] * (x.ndim - 2))

        self.values = m
        self.mean = x.mean(axes) if training else mean
        self.variance = ((x - along(self.mean))**2).mean(axes) if training else variance
        r = 1 / np.sqrt(self.variance + np.longdouble(epsilon))
        scale = np.ones_like(r) if weight is None else weight
        shift = np.zeros_like(r) if bias is None else bias
        self.scale_along = np.abs(along(scale))
        xh = (x - along(self.mean)) * along(r)
        self.inverse_deviation = r
        self.y = along(scale) * xh + along(shift)
        self.terms_of_y = np.maximum(np.abs(self.y), np.maximum(np.abs(along(scale) * xh), np.abs(along(shift))))
        self.dbias, self.dweight = dy.sum(axes), (dy * xh).sum(axes)
        self.terms_of_dbias = np.abs(dy).sum(axes)
        self.terms_of_dweight = np.abs(dy * xh).sum(axes) + self.terms_of_dbias * (np.abs(self.mean * r) + 1)
        parts = [dy] + ([along(self.dbias) / m * np.ones_like(x), xh * along(self.dweight) / m] if training else [])
        self.dx = along(scale * r) * (parts[0] - sum(parts[1:]))
        self.terms_of_dx = np.abs(along(scale * r)) * (sum(np.abs(part) for part in parts) +
                                                       np.abs(along(self.dweight / m * self.mean * r)))

    def running(self, old_mean, old_variance, momentum):
        unbiased = self.variance * self.values / (self.values - 1)
        return old_mean + momentum * (self.mean - old_mean), old_variance + momentum * (unbiased - old_variance)


def half_ulp(dtype):
    return torch.finfo(dtype).eps / 2


def tolerances(formula, element, parameter):
    """How far each result may be from the formula, by rounding alone: the promise of docs/numerics.md.

    float, half, bfloat16: y is within 3 units of float at the largest of its terms, gradients within 8: PyTorch's interface
    hands them a mean and an inverse deviation that were rounded to the parameters' type, half a unit each, and the deviation
    counts twice. double: sums are carried in double too, 140 half units of the terms' magnitudes. Then each result is rounded
    to its own type.
    """
    is_double = element == torch.double
    unit = torch.finfo(torch.double if is_double else torch.float).eps
    saved = 3 * half_ulp(parameter)
    sums = 70 * unit if is_double else 0

    def rounded(value, terms, units, dtype, extra=0.0):
        smallest = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
        return np.abs(value) * half_ulp(dtype) * 1.01 + terms * (units * unit + extra + sums) + smallest

    terms_of_y = np.maximum(formula.terms_of_y, formula.scale_along) if is_double else formula.terms_of_y
    spread = np.sqrt(formula.variance) + np.abs(formula.mean)
    return {
        "y": rounded(formula.y, terms_of_y, 3, element),
        "dx": rounded(formula.dx, formula.terms_of_dx, 8, element, saved),
        "dweight": rounded(formula.dweight, formula.terms_of_dweight, 8, parameter, saved),
        "dbias": rounded(formula.dbias, formula.terms_of_dbias, 2, parameter),
        "running_mean": rounded(spread, spread, 2, parameter),
        "running_var": rounded(formula.variance + 1, formula.variance + 1, 2, parameter),
    }


def outcome(call):
    """What a call leads to: its results, or the exception that it raises."""
    try:
        return "returned", call()
    except Exception as error:  # whatever PyTorch raises
        return "raised", type(error).__name__, str(error)


def with_and_without(call):
    """The outcomes of a call that leaves nothing behind, and how many calls the extension took of it."""
    outcomes = {}
    for enabled in BOTH:
        with batchnorm_torch.using(enabled):
            batchnorm_torch.reset_calls()
            outcomes[enabled] = outcome(call)
            if enabled:
                calls = batchnorm_torch.calls()
    return outcomes[True], outcomes[False], calls
