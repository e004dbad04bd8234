# SPDX-License-Identifier: MIT
"""Where mindspore.ops.BatchNorm on the CPU is wrong or refuses, ours is right; what the original gives is shown beside it."""

import os
import subprocess
import sys

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

import batchnorm_mindspore as ours
from cases import (NAMES, Call, Part, array, compared, difference, double_gradients, double_gradients_of_statistics,
                   gradients)


def shown(name, function):
    """Prints what the original gives; it is not judged, since another version of MindSpore may be right."""
    try:
        print(f"  the original, {name}: {function()}")
    except Exception as error:
        print(f"  the original, {name}: {type(error).__name__}: {str(error).splitlines()[0]}")


def first(values, count=3):
    return np.array2string(np.asarray(values).ravel()[:count], precision=6)


def unwritten_outputs(part):
    for is_training in (True, False):
        call = Call((4, 3, 5, 2))
        kind = "training" if is_training else "inference"
        want = call.rounded_formula(is_training=is_training)
        part.case(f"all five outputs, {kind}", compared(NAMES, call.run(ours.BatchNorm(is_training)), want))
        shown(f"outputs 1 to 4, {kind}", lambda: " ".join(first(o) for o in call.run(ops.BatchNorm(is_training))[1:5]) +
              f", expected {first(want[1])} {first(want[2])} twice")


def channels_last(part):
    for shape in ((4, 7, 3), (4, 5, 6, 3), (3, 3, 3, 3), (2, 3, 4, 5, 6)):
        for is_training in (True, False):
            call = Call(shape, len(shape) - 1)
            # Channels first in the way that the original understands: what comes of the same numbers, moved.
            moved = Call(shape, len(shape) - 1)
            moved.x, moved.dy, moved.ddx = (np.ascontiguousarray(np.moveaxis(v, -1, 1)) for v in (call.x, call.dy, call.ddx))
            name = f"NHWC {shape} {'training' if is_training else 'inference'}"
            operator = ours.BatchNorm(is_training, data_format="NHWC")
            part.case(name, compared(NAMES, call.run(operator), call.rounded_formula(is_training=is_training)))
            if len(shape) == 5:  # which the original does not take
                first_channels = ours.BatchNorm(is_training)
                want, want_twice = gradients(first_channels, moved), double_gradients(first_channels, moved)
            else:
                statistics = [v.astype(np.float32) for v in call.formula(is_training=is_training)[3:5]]
                want = gradients(ops.BatchNorm(is_training), moved)
                want_twice = double_gradients_of_statistics(moved, is_training, *statistics)
            want, want_twice = ([np.moveaxis(v, 1, -1) if v.ndim > 1 else v for v in w] for w in (want, want_twice))
            part.case(name + ", gradient", compared(("dx", "dscale", "dbias"), gradients(operator, call), want))
            part.case(name + ", double gradient",
                      compared(("dx", "dscale", "ddy"), double_gradients(operator, call), want_twice))
    call = Call((3, 3, 3, 3), 3)
    shown("NHWC, y of (3, 3, 3, 3)", lambda: first(call.run(ops.BatchNorm(True, data_format="NHWC"))[0]) +
          f", expected {first(call.formula()[0])}")


def running_statistics_of_half(part):
    for x_type in (np.float32, np.float16):
        call = Call((4, 3, 5), 1, x_type, np.float16)
        want = call.rounded_formula()
        part.case(f"running statistics of float16 beside {np.dtype(x_type)}",
                  compared(NAMES, call.run(ours.BatchNorm(True)), want))
        shown("running mean of float16", lambda: first(call.run(ops.BatchNorm(True))[5]) + f", expected {first(want[5])}")


def one_value_per_channel(part):
    for shape in ((1, 3), (1, 3, 1), (1, 3, 1, 1)):
        for momentum in (0.0, 0.1, 1.0):
            call = Call(shape)
            operator = ours.BatchNorm(True, momentum=momentum)
            got = call.run(operator)
            part.case(f"one value, {shape}, momentum {momentum}",
                      compared(NAMES, got, call.rounded_formula(momentum=momentum)) +
                      [difference("y", got[0].ravel(), call.bias, 0)] +
                      compared(("dx", "dscale", "dbias"), gradients(operator, call),
                               (np.zeros_like(call.x), np.zeros_like(call.scale), call.dy.ravel())))
    shown("one value per channel, running variance", lambda: first(Call((1, 3)).run(ops.BatchNorm(True))[6]))


def empty_tensors(part):
    for shape in ((0, 3), (0, 3, 2, 2), (2, 3, 0, 2), (2, 0, 4)):
        for is_training in (True, False):
            call = Call(shape)
            zeros = np.zeros_like(call.mean)
            mean, variance = (zeros, zeros) if is_training else (call.mean, call.variance)
            name = f"empty {shape} {'training' if is_training else 'inference'}"
            part.case(name, compared(NAMES, call.run(ours.BatchNorm(is_training)),
                                     (call.x, mean, variance, mean, variance, call.mean, call.variance), 0))
            part.case(name + ", gradient", compared(("dx", "dscale", "dbias"), gradients(ours.BatchNorm(is_training), call),
                                                    (call.x, zeros, zeros), 0))
            # Not by automatic differentiation: the original's own gradient of a sum over nothing ends the process.
            twice = ours.BatchNormGradGrad(is_training)(*(Tensor(v) for v in (
                call.x, call.dy, call.scale, call.mean, call.variance, call.ddx, call.ddscale, call.ddbias)))
            part.case(name + ", double gradient",
                      compared(("dx", "ddy", "dscale"), [array(v) for v in twice], (call.x, call.x, zeros), 0))
    call = Call((0, 3))
    shown("empty batch, running variance in training", lambda: first(call.run(ops.BatchNorm(True))[6]) +
          f", before {first(call.variance)}")
    shown("no channels", lambda: Call((2, 0, 4)).run(ops.BatchNorm(True)))


def vectors_of_another_length(part):
    for length in (2, 4):
        call = Call((4, 3))
        call.mean, call.variance = np.ones(length, np.float32), np.ones(length, np.float32)
        part.case(f"mean of length {length} beside 3 channels", [refused(
            ValueError, f"batchnorm::BatchNorm: mean has {length} elements, expected C = 3 (x is [4, 3], NCHW)",
            lambda: call.run(ours.BatchNorm(True)))])
        shown(f"variance of length {length} after training with 3 channels",
              lambda: first(call.run(ops.BatchNorm(True))[6], length))


def numbers(part):
    """NaN under momentum 1, constant channels, offsets."""
    call = Call((4, 3, 5))
    call.mean[:], call.variance[:] = np.nan, np.inf
    want = call.rounded_formula(momentum=0.1)
    want[5], want[6] = want[1], (call.formula()[2] * 20 / 19).astype(np.float32)
    part.case("momentum 1 replaces NaN", compared(NAMES, call.run(ours.BatchNorm(True, momentum=1.0)), want))
    shown("momentum 1 with NaN, running mean", lambda: first(call.run(ops.BatchNorm(True, momentum=1.0))[5]))

    call = Call((4, 3, 5))
    call.x[:] = 0.1
    bias = np.broadcast_to(call.bias[:, None], call.x.shape)
    part.case("constant channel 0.1", [difference("y", call.run(ours.BatchNorm(True))[0], bias, 0)])
    shown("constant channel 0.1, y - bias", lambda: np.abs(call.run(ops.BatchNorm(True))[0] - bias).max())

    for offset in (1e4, 1e6):
        call = Call((8, 3, 25))
        call.x += np.float32(offset)
        call.scale[:], call.bias[:] = 1, 0
        want = call.rounded_formula()
        part.case(f"offset {offset:g}", compared(NAMES, call.run(ours.BatchNorm(True)), want))
        shown(f"offset {offset:g}, error of y", lambda: np.abs(call.run(ops.BatchNorm(True))[0] - want[0]).max())


def types_and_ranks(part):
    for is_training in (True, False):
        for name, shape, x_type, parameter_type in (("rank 5", (2, 3, 4, 2, 3), np.float32, np.float32),
                                                    ("float64", (4, 3, 5), np.float64, np.float64)):
            call = Call(shape, 1, x_type, parameter_type)
            part.case(f"{name}, {is_training}",
                      compared(NAMES, call.run(ours.BatchNorm(is_training)), call.rounded_formula(is_training=is_training)))
            shown(name, lambda: first(call.run(ops.BatchNorm(is_training))[0]))
        call = Call((4, 3, 5))
        rounded = Tensor(call.x).astype(ms.bfloat16)
        call.x = array(rounded)
        for vectors in (ms.float32, ms.bfloat16):
            tensors = [rounded] + [tensor.astype(vectors) for tensor in call.tensors()[1:]]
            y = ours.BatchNorm(is_training)(*tensors)[0]
            # y is rounded to 8 bits, by up to 2^-9 of the power of two above it; so are the vectors, where they are bfloat16.
            allowed = 2.0**-8 if vectors == ms.float32 else 2.0**-6
            part.case(f"bfloat16 with {vectors}, {is_training}",
                      [difference("y", array(y), call.formula(is_training=is_training)[0].astype(np.float32), allowed),
                       None if y.dtype == ms.bfloat16 else f"y is {y.dtype}"])
    shown("bfloat16", lambda: ops.BatchNorm(True)(rounded, *call.tensors()[1:]))


def refused(error_type, message, function):
    """None if function() raises that error with that first line."""
    try:
        function()
    except error_type as error:
        text = str(error).splitlines()[0]
        return None if text == message else f"the message is '{text}', expected '{message}'"
    except Exception as error:
        return f"{type(error).__name__} is raised, expected {error_type.__name__}: {error}"
    return f"nothing is raised, expected {error_type.__name__}"


def failure_of_kernel():
    """None if an error that only the call finds is MindSpore's RuntimeError, with the message on standard error."""
    program = """
import mindspore as ms, sys
import batchnorm_mindspore as ours
vector = [ms.Tensor([1.0]) for _ in range(4)]
try:
    ours.BatchNorm(True)(ms.Tensor([[1.0]]), *vector)[0].asnumpy()
except RuntimeError:
    sys.exit(3)
"""
    environment = dict(os.environ, BATCHNORM_ISA="x87", BATCHNORM_MINDSPORE_LIBRARY=ours.LIBRARY,
                       PYTHONPATH=os.path.dirname(ours.__file__))
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    if result.returncode == 3 and "batchnorm: BATCHNORM_ISA is 'x87', available here are " in result.stderr:
        return None
    return f"status {result.returncode}, {result.stderr}"


def errors(part):
    """What is refused, and that the operator works afterwards."""

    def built(**options):
        return lambda: ours.BatchNorm(**options)

    def called(change, **options):
        call = Call((2, 3, 4))
        change(call)
        return lambda: call.run(ours.BatchNorm(True, **options))

    def with_x(value):
        return called(lambda call: setattr(call, "x", value))

    name = "batchnorm::BatchNorm: "
    about = " (x is [2, 3, 4], NCHW)"
    cases = [
        (ValueError, name + "epsilon is 0, it must be in (0, 1]", built(epsilon=0.0)),
        (ValueError, name + "epsilon is 1.5, it must be in (0, 1]", built(epsilon=1.5)),
        (ValueError, name + "epsilon is nan, it must be in (0, 1]", built(epsilon=float("nan"))),
        (ValueError, name + "momentum is -0.1, it must be in [0, 1]", built(momentum=-0.1)),
        (ValueError, name + "momentum is 1.1, it must be in [0, 1]", built(momentum=1.1)),
        (TypeError, "BatchNorm: is_training is 1, it must be a bool", built(is_training=1)),
        (TypeError, "BatchNorm: epsilon is 1, it must be a float", built(epsilon=1)),
        (TypeError, "BatchNorm: momentum is None, it must be a float", built(momentum=None)),
        (TypeError, "BatchNorm: data_format is 5, it must be a str", built(data_format=5)),
        (ValueError, "BatchNorm: unknown data_format 'NCDHW', known are NCHW and NHWC", built(data_format="NCDHW")),
        (ValueError, name + "x has rank 1, expected 2 to 5 (x is [3], NCHW)", with_x(np.ones(3, np.float32))),
        (ValueError, name + "x has rank 6, expected 2 to 5 (x is [1, 3, 1, 1, 1, 1], NCHW)",
         with_x(np.ones((1, 3, 1, 1, 1, 1), np.float32))),
        (ValueError, "batchnorm::Shape: rank 9 exceeds the largest, 8", with_x(np.ones((1, 3) + 7 * (1,), np.float32))),
        (TypeError, name + "x is int32, known are float32, float64, float16 and bfloat16", with_x(np.ones((2, 3), np.int32))),
        (TypeError, name + "scale is float32, which does not go with x of float64", with_x(np.ones((2, 3)))),
        (TypeError, name + "bias is float16, expected float32, the type of scale",
         called(lambda call: setattr(call, "bias", call.bias.astype(np.float16)))),
        (ValueError, name + "scale has 4 elements, expected C = 3" + about,
         called(lambda call: setattr(call, "scale", np.ones(4, np.float32)))),
        (ValueError, name + "scale has 3 elements, expected C = 4 (x is [2, 3, 4], NHWC)",
         called(lambda call: None, data_format="NHWC")),
        (ValueError, name + "bias has shape [], expected [C] = [3]" + about,
         called(lambda call: setattr(call, "bias", np.float32(1)))),
        (TypeError, "BatchNorm: scale is a NoneType, it must be a Tensor",
         lambda: ours.BatchNorm()(Tensor(np.ones((2, 3), np.float32)), None, None, None, None)),
        (ValueError, "batchnorm::BatchNorm::backward: dy has shape [3, 2], expected the shape of x (x is [2, 3], NCHW)",
         lambda: ours.BatchNormGrad()(*(Tensor(np.ones(s, np.float32)) for s in ((3, 2), (2, 3), 3, 3, 3)))),
    ]
    for error_type, message, function in cases:
        part.case(f"{error_type.__name__}: {message}", [refused(error_type, message, function)])
    twice = Tensor(np.ones(3, np.float32))
    part.case("mean as variance", [refused(
        ValueError, "BatchNorm: mean or variance, which training updates, is given twice",
        lambda: ours.BatchNorm(True)(Tensor(np.ones((2, 3), np.float32)), twice, twice, twice, twice))])
    part.case("error of the kernel itself", [failure_of_kernel()])
    call = Call((2, 3, 4))
    part.case("right call after the wrong ones", compared(NAMES, call.run(ours.BatchNorm(True)), call.rounded_formula()))


def run(mode):
    for function in (unwritten_outputs, channels_last, running_statistics_of_half, one_value_per_channel, empty_tensors,
                     vectors_of_another_length, numbers, types_and_ranks, errors):
        part = Part(f"{function.__name__.replace('_', ' ')}, {mode} mode")
        function(part)
        part.close()
