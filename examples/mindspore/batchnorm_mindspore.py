# SPDX-License-Identifier: MIT
"""mindspore.ops.BatchNorm on a CPU, complete.

    from batchnorm_mindspore import BatchNorm

    output_x, batch_mean, batch_variance, reserve_space_1, reserve_space_2 = BatchNorm(
        is_training=True, epsilon=1e-5, momentum=0.1, data_format="NHWC")(input_x, scale, bias, mean, variance)

Signature, arguments, outputs and the in-place update of mean and variance are those of mindspore.ops.BatchNorm; README.md lists
what is different. It is a Cell, for PyNative and graph mode, and has a gradient and a gradient of that; both are also here by
name, BatchNormGrad and BatchNormGradGrad.

The kernels are in libbatchnorm_mindspore.so, beside this file or where BATCHNORM_MINDSPORE_LIBRARY says.
"""

import ctypes
import os
import pathlib

import mindspore as ms
from mindspore import Tensor, nn, ops

_here = pathlib.Path(__file__).resolve().parent
LIBRARY = str(pathlib.Path(os.environ.get("BATCHNORM_MINDSPORE_LIBRARY") or _here / "libbatchnorm_mindspore.so").resolve())
_library = ctypes.CDLL(LIBRARY)  # OSError: it is not there
_library.batchnorm_mindspore_last_error.restype = ctypes.c_char_p

# The library's numbers of the operations.
_FORWARD, _BACKWARD, _DOUBLE_BACKWARD = range(3)


def _raise_if(status, error):
    if status != 0:
        raise error(_library.batchnorm_mindspore_last_error().decode())


def _check_shapes(operation, is_channels_last, shapes):
    if None in shapes:
        raise TypeError("BatchNorm: an argument is no Tensor")
    if any(extent < 0 for shape in shapes for extent in shape):
        return  # not known before the call, which checks again
    ranks = (ctypes.c_int * len(shapes))(*map(len, shapes))
    extents = [(ctypes.c_int64 * len(shape))(*shape) for shape in shapes]
    pointers = (ctypes.c_void_p * len(shapes))(*map(ctypes.addressof, extents))
    _raise_if(_library.batchnorm_mindspore_check_shapes(operation, ranks, pointers, is_channels_last), ValueError)


def _name_of(dtype):
    """"float32" for mindspore.float32 and for the type of a tensor of it."""
    element = dtype.element_type() if hasattr(dtype, "element_type") else dtype
    return str(element).lower()


def _check_types(operation, dtypes):
    names = (ctypes.c_char_p * len(dtypes))(*(_name_of(dtype).encode() for dtype in dtypes))
    _raise_if(_library.batchnorm_mindspore_check_types(operation, names), TypeError)


def _custom(name, operation, is_channels_last, outputs, bprop):
    """A function of the library as a primitive. outputs: for each output, the input whose shape and type it has."""

    def shapes_of(*shapes):
        _check_shapes(operation, is_channels_last, shapes)
        return tuple(list(shapes[i]) for i in outputs)

    def dtypes_of(*dtypes):
        _check_types(operation, dtypes)
        return tuple(dtypes[i] for i in outputs)

    return ops.Custom(f"{LIBRARY}:batchnorm_mindspore_{name}", shapes_of, dtypes_of, "aot", bprop=bprop)


def _primitives(is_channels_last):
    """The operator, its gradient and the gradient of that."""
    zeros_like = ops.ZerosLike()
    double_backward = _custom("double_backward", _DOUBLE_BACKWARD, is_channels_last, (0, 1, 2), None)

    def bprop_of_backward(dy, x, scale, mean, variance, options, out, dout):
        dx, ddy, dscale = double_backward(x, dy, scale, mean, variance, dout[0], dout[1], dout[2], options)
        return ddy, dx, dscale, zeros_like(mean), zeros_like(variance), zeros_like(options)

    backward = _custom("backward", _BACKWARD, is_channels_last, (1, 2, 2), bprop_of_backward)

    def bprop(x, scale, bias, mean, variance, options, out, dout):
        dx, dscale, dbias = backward(dout[0], x, scale, out[3], out[4], options)
        return dx, dscale, dbias, zeros_like(mean), zeros_like(variance), zeros_like(options)

    return _custom("forward", _FORWARD, is_channels_last, (0, 1, 1, 1, 1), bprop), backward, double_backward


class _Operation(nn.Cell):
    """What the three have in common: options and arguments are checked before they reach MindSpore."""

    def __init__(self, names, is_training, epsilon, momentum, data_format):
        super().__init__()
        for name, value, kind in (("is_training", is_training, bool), ("epsilon", epsilon, float),
                                  ("momentum", momentum, float), ("data_format", data_format, str)):
            if not isinstance(value, kind):
                raise TypeError(f"BatchNorm: {name} is {value!r}, it must be a {kind.__name__}")
        if data_format.upper() not in ("NCHW", "NHWC"):
            raise ValueError(f"BatchNorm: unknown data_format {data_format!r}, known are NCHW and NHWC")
        is_channels_last = data_format.upper() == "NHWC"
        options = [float(is_training), epsilon, momentum, float(is_channels_last)]
        _raise_if(_library.batchnorm_mindspore_check_options((ctypes.c_double * 4)(*options)), ValueError)
        self.names, self.is_training = names, is_training
        self.options = Tensor(options, ms.float64)
        self.primitives = _primitives(is_channels_last)

    def __call__(self, *tensors):
        for name, tensor in zip(self.names, tensors):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"BatchNorm: {name} is a {type(tensor).__name__}, it must be a Tensor")
        return super().__call__(*tensors)


class BatchNorm(_Operation):
    """mindspore.ops.BatchNorm(is_training, epsilon, momentum, data_format)(input_x, scale, bias, mean, variance).

    input_x           rank 2 to 5, "NCHW": [N, C, ...], "NHWC": [N, ..., C]; float32, float16, float64, bfloat16
    scale, bias       [C], of one type with mean and variance: float32 or float16 beside float32 and float16, float32 or
                      bfloat16 beside bfloat16, float64 beside float64
    mean, variance    [C], the running statistics; training updates them in place
    epsilon           in (0, 1]
    momentum          in [0, 1], weighs the new statistic

    Returns output_x and, of the type of scale, batch_mean, batch_variance, reserve_space_1, reserve_space_2: mean and biased
    variance of the batch in training, copies of mean and variance in inference; each of them twice.

    Raises TypeError for types, ValueError for shapes and for numbers out of range.
    """

    def __init__(self, is_training=False, epsilon=1e-5, momentum=0.1, data_format="NCHW"):
        super().__init__(("input_x", "scale", "bias", "mean", "variance"), is_training, epsilon, momentum, data_format)
        self.forward = self.primitives[0]
        if is_training:
            self.forward.add_prim_attr("side_effect_mem", True)  # mean and variance are written

    def __call__(self, input_x, scale, bias, mean, variance):
        if self.is_training and any(written is other for written in (mean, variance)
                                    for other in (input_x, scale, bias, mean if written is variance else variance)):
            raise ValueError("BatchNorm: mean or variance, which training updates, is given twice")
        return super().__call__(input_x, scale, bias, mean, variance)

    def construct(self, input_x, scale, bias, mean, variance):
        return self.forward(input_x, scale, bias, mean, variance, self.options)


class BatchNormGrad(_Operation):
    """The gradient: (dy, x, scale, saved mean, saved variance) to dx, dscale, dbias. The saved statistics are reserve_space_1
    and reserve_space_2 of BatchNorm, and are used as they are given."""

    def __init__(self, is_training=False, epsilon=1e-5, data_format="NCHW"):
        super().__init__(("dy", "x", "scale", "saved_mean", "saved_variance"), is_training, epsilon, 0.1, data_format)
        self.backward = self.primitives[1]

    def construct(self, dy, x, scale, saved_mean, saved_variance):
        return self.backward(dy, x, scale, saved_mean, saved_variance, self.options)


class BatchNormGradGrad(_Operation):
    """The gradients of sum(ddx * dx) + sum(ddscale * dscale) + sum(ddbias * dbias) by x, dy and scale. It has no gradient."""

    def __init__(self, is_training=False, epsilon=1e-5, data_format="NCHW"):
        super().__init__(("x", "dy", "scale", "saved_mean", "saved_variance", "ddx", "ddscale", "ddbias"), is_training, epsilon,
                         0.1, data_format)
        self.double_backward = self.primitives[2]

    def construct(self, x, dy, scale, saved_mean, saved_variance, ddx, ddscale, ddbias):
        return self.double_backward(x, dy, scale, saved_mean, saved_variance, ddx, ddscale, ddbias, self.options)
