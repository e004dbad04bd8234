# SPDX-License-Identifier: MIT
"""The C interface from Python, with ctypes alone: a training step, an inference in a slice of a larger tensor, an error.

    python3 example.py build/lib/libbatchnorm_c.so

The library knows of memory what it is told: every length below is asked of the array itself. Of a NumPy array that is
C-contiguous, a.ctypes.data and a.size are the address and the length; of one that is not, those of the array that it is a view
of, with the offset and the strides in elements.
"""

import array
import ctypes
import sys

FLOAT, NCHW, OK = 1, 0, 0


class Vector(ctypes.Structure):
    """batchnorm_vector and batchnorm_const_vector."""
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_int64)]


class Tensor(ctypes.Structure):
    """batchnorm_tensor and batchnorm_const_tensor."""
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_int64), ("offset", ctypes.c_int64),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("strides_length", ctypes.c_int64)]


class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("is_training", ctypes.c_int32), ("running_variance", ctypes.c_int32),
                ("not_finite", ctypes.c_int32), ("reserved", ctypes.c_int32), ("epsilon", ctypes.c_double),
                ("momentum", ctypes.c_double), ("batch_number", ctypes.c_int64), ("team", ctypes.c_void_p)]


class ForwardArguments(ctypes.Structure):
    _fields_ = ([("struct_size", ctypes.c_size_t)] +
                [(name, ctypes.c_int32) for name in ("type", "parameter_type", "format", "rank")] +
                [("shape", ctypes.POINTER(ctypes.c_int64)), ("x", Tensor)] +
                [(name, Vector) for name in ("scale", "bias", "mean", "variance")] + [("output_x", Tensor)] +
                [(name, Vector) for name in ("batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2")])


def vector(values):
    """An array.array of floats, one for each channel."""
    result = Vector(*values.buffer_info())  # address and number of elements
    result.memory = values  # lives as long as the structure that points to it
    return result


def tensor(memory, offset=0, strides=()):
    """The tensor in an array.array that begins at the element `offset`; dense where no strides are given."""
    result = Tensor(*memory.buffer_info(), offset, (ctypes.c_int64 * len(strides))(*strides) if strides else None, len(strides))
    result.memory = memory
    return result


class BatchNorm:
    """The function batchnorm_forward of a library."""

    def __init__(self, path):
        self._library = ctypes.CDLL(path)
        self._library.batchnorm_last_error.restype = ctypes.c_char_p
        self._library.batchnorm_forward.argtypes = [ctypes.POINTER(Options), ctypes.POINTER(ForwardArguments)]

    def __call__(self, shape, is_training, **arrays):
        """arrays: each argument by its name in the structure, a vector() or a tensor()."""
        options = Options(struct_size=ctypes.sizeof(Options), is_training=is_training, epsilon=1e-5, momentum=0.1)
        arguments = ForwardArguments(struct_size=ctypes.sizeof(ForwardArguments), type=FLOAT, format=NCHW, rank=len(shape),
                                     shape=(ctypes.c_int64 * len(shape))(*shape), **arrays)
        if self._library.batchnorm_forward(options, arguments) != OK:
            raise ValueError(self._library.batchnorm_last_error().decode())


def floats(values):
    return array.array("f", values)


def error_of(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    sys.exit("an error was expected")


def expect(name, got, wanted):
    if any(abs(a - b) > 1e-6 for a, b in zip(got, wanted, strict=True)):
        sys.exit(f"{name} is {list(got)}, expected {wanted}")


def main(path):
    batch_norm = BatchNorm(path)

    # Training: two images of two channels with two values each.
    x, y = floats([1, 3, 10, 20, 5, 7, 30, 40]), floats(8 * [0])
    mean, variance, batch_mean = floats([0, 0]), floats([1, 1]), floats([0, 0])
    batch_norm([2, 2, 2], True, x=tensor(x), output_x=tensor(y), mean=vector(mean), variance=vector(variance),
               batch_mean=vector(batch_mean))
    expect("batch_mean", batch_mean, [4, 25])
    expect("mean", mean, [0.4, 2.5])

    # Inference on the first channel alone, in place: [2, 1, 2] in memory of [2, 2, 2].
    part = tensor(x, strides=[4, 2, 1])
    batch_norm([2, 1, 2], False, x=part, output_x=part, mean=vector(floats([1])), variance=vector(floats([1 - 1e-5])))
    expect("x", x, [0, 2, 10, 20, 4, 6, 30, 40])

    # Lengths that do not fit are refused before anything is read or written.
    print(error_of(lambda: batch_norm([2, 64, 2], True, x=tensor(floats(256 * [1])), output_x=tensor(floats(256 * [0])),
                                      scale=vector(floats([1, 1, 1])))))
    print(error_of(lambda: batch_norm([2, 2, 2], True, x=tensor(x, strides=[8, 4, 1]), output_x=tensor(y))))


if __name__ == "__main__":
    main(sys.argv[1])
