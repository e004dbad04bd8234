# SPDX-License-Identifier: MIT
"""Calls of an operator of MindSpore as data, run and compared; for the tests beside this file."""

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops.operations._grad_ops import BatchNormGradGrad

# The arithmetic of the original is float32: its sums and roundings are a few units in the last place of the largest value (the
# golden cases bound them by 6e-7). Results of half are correctly rounded in both, but for values that lie between two halves.
RELATIVE = {np.dtype(np.float32): 2e-6, np.dtype(np.float16): 1e-3, np.dtype(np.float64): 1e-14}


class Part:
    """Counts the cases of one part of this test."""

    parts = []

    def __init__(self, name):
        self.name, self.equal, self.total = name, 0, 0
        Part.parts.append(self)

    def case(self, name, problems):
        problems = [problem for problem in problems if problem]
        self.total += 1
        self.equal += not problems
        for problem in problems:
            print(f"  NOT EQUAL: {self.name}, {name}: {problem}")

    def close(self):
        print(f"{self.name}: {self.equal} of {self.total} equal", flush=True)


def array(tensor):
    return tensor.float().asnumpy() if tensor.dtype == ms.bfloat16 else tensor.asnumpy()


def difference(name, got, want, relative=None, absolute=0.0):
    """None, or in what two arrays differ: by more than `relative` of the largest value expected."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{name} is {got.dtype} {got.shape}, expected {want.dtype} {want.shape}"
    relative = RELATIVE[want.dtype] if relative is None else relative
    finite = np.abs(want[np.isfinite(want)]).astype(np.float64)
    allowed = absolute + relative * (finite.max() if finite.size else 0)
    with np.errstate(invalid="ignore"):
        right = (got == want) | (np.isnan(got) & np.isnan(want)) | (
            np.abs(got.astype(np.float64) - want.astype(np.float64)) <= allowed)
    return None if right.all() else f"{name} is {got[~right][0]}, expected {want[~right][0]} within {allowed:.2g}"


class Call:
    """Arguments of one call; fresh tensors for each run, since training writes them."""

    def __init__(self, shape, channel_axis=1, x_type=np.float32, parameter_type=np.float32, seed=1):
        random = np.random.default_rng(seed)
        channels = shape[channel_axis]
        self.channel_axis = channel_axis
        self.x = random.normal(1.5, 2, shape).astype(x_type)
        self.dy = random.normal(0.25, 1, shape).astype(x_type)
        self.ddx = random.normal(-0.5, 1, shape).astype(x_type)
        self.scale, self.bias, self.mean, self.ddscale, self.ddbias = (
            random.uniform(-1.5, 1.5, channels).astype(parameter_type) for _ in range(5))
        self.variance = random.uniform(0.5, 3, channels).astype(parameter_type)

    def tensors(self):
        return [Tensor(v) for v in (self.x, self.scale, self.bias, self.mean, self.variance)]

    def run(self, operator):
        """The five outputs, mean and variance after the call, and the tensors."""
        tensors = self.tensors()
        outputs = operator(*tensors)
        return [array(output) for output in outputs] + [array(tensors[3]), array(tensors[4])]

    def formula(self, is_training=True, epsilon=1e-5, momentum=0.1):
        """What the call gives, in float64."""
        x = np.moveaxis(self.x.astype(np.float64), self.channel_axis, -1)
        values = x.reshape(-1, x.shape[-1])
        old_mean, old_variance = self.mean.astype(np.float64), self.variance.astype(np.float64)
        mean, variance = (values.mean(0), values.var(0)) if is_training else (old_mean, old_variance)
        y = (x - mean) / np.sqrt(variance + epsilon) * self.scale + self.bias
        if is_training:
            m = len(values)
            old_mean = (1 - momentum) * old_mean + momentum * mean
            old_variance = (1 - momentum) * old_variance + momentum * variance * m / max(m - 1, 1)
        return [np.moveaxis(y, -1, self.channel_axis), mean, variance, mean, variance, old_mean, old_variance]

    def rounded_formula(self, **options):
        y, *rest = self.formula(**options)
        return [y.astype(self.x.dtype)] + [v.astype(self.scale.dtype) for v in rest]


NAMES = ("output_x", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2", "mean", "variance")


class FirstOutput(nn.Cell):
    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def construct(self, x, scale, bias, mean, variance):
        return self.operator(x, scale, bias, mean, variance)[0]


class Gradients(nn.Cell):
    """dx, dscale, dbias by automatic differentiation."""

    def __init__(self, operator):
        super().__init__()
        self.gradient = ops.GradOperation(get_all=True, sens_param=True)(FirstOutput(operator))

    def construct(self, x, scale, bias, mean, variance, dy):
        gradients = self.gradient(x, scale, bias, mean, variance, dy)
        return gradients[0], gradients[1], gradients[2]


def gradients(operator, call):
    return [array(g) for g in Gradients(operator)(*call.tensors(), Tensor(call.dy))]


def double_gradients(operator, call):
    """By x, scale and dy, by automatic differentiation twice."""
    twice = ops.GradOperation(get_all=True, sens_param=True)(Gradients(operator))
    result = twice(*call.tensors(), Tensor(call.dy), (Tensor(call.ddx), Tensor(call.ddscale), Tensor(call.ddbias)))
    return [array(result[i]) for i in (0, 1, 5)]


def double_gradients_of_statistics(call, is_training, saved_mean, saved_variance):
    """By x, scale and dy, by the original's own primitive. In PyNative mode its automatic one is not reliable: called again, it
    gives NaN or an error, or ends the process."""
    primitive = BatchNormGradGrad(is_training, 1e-5, "NCHW")
    dx, ddy, dscale = primitive(*(Tensor(v) for v in (call.x, call.dy, call.scale, saved_mean, saved_variance, call.ddx,
                                                      call.ddscale, call.ddbias)))
    return array(dx), array(dscale), array(ddy)


class Network(nn.Cell):
    """With Parameters, as networks have them; the running statistics are read before and after the update."""

    def __init__(self, operator, call):
        super().__init__()
        self.operator = operator
        self.gamma, self.beta = Parameter(Tensor(call.scale), name="gamma"), Parameter(Tensor(call.bias), name="beta")
        self.mean = Parameter(Tensor(call.mean), name="mean", requires_grad=False)
        self.variance = Parameter(Tensor(call.variance), name="variance", requires_grad=False)

    def construct(self, x):
        before = self.mean + 0
        y = self.operator(x, self.gamma, self.beta, self.mean, self.variance)[0]
        return y, before, self.mean + 0


def network_step(operator, call):
    network = Network(operator, call)
    x = Tensor(call.x)

    def loss(data):
        y, _, _ = network(data)
        return (y * y * y).sum()

    y, before, after = network(x)
    value, steps = ms.value_and_grad(loss, None, network.trainable_params())(x)
    return [array(v) for v in (y, before, after, value, *steps, network.mean, network.variance)]


def compared(names, got, want, relative=None):
    return [difference(name, g, w, relative) for name, g, w in zip(names, got, want)]
