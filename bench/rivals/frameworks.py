# SPDX-License-Identifier: MIT
"""Batch normalization as the frameworks offer it in Python, on NumPy's buffers.

Each class has a name with the version, and `calls(problem)`: a function that runs the problem once, to the end, and one that
returns its result as a NumPy array; or None where the framework does not offer the problem. What can be prepared is prepared
before. Frameworks that return a new tensor get memory that was used before, since rivals.py has told malloc to keep it.
"""

import numpy as np


class PyTorch:
    def __init__(self, threads):
        import torch

        self.torch = torch
        torch.set_num_threads(threads)
        self.name = "PyTorch " + torch.__version__.split("+")[0]

    def calls(self, problem):
        torch = self.torch

        def tensor(array):
            viewed = torch.from_numpy(array)
            return viewed.movedim(-1, 1) if problem.is_channels_last and viewed.dim() > 2 else viewed

        if problem.is_channels_last and len(problem.shape) == 3:
            return None  # no memory format of its own
        x, dy, y = tensor(problem.x), tensor(problem.dy), tensor(problem.y)
        scale, bias, mean, variance = (torch.from_numpy(v) for v in problem.vectors())
        epsilon = problem.epsilon
        if problem.operation == "backward":
            inverse = torch.rsqrt(variance + epsilon)
            result = [None]

            def run():
                with torch.inference_mode():
                    result[0] = torch.ops.aten.native_batch_norm_backward(
                        dy, x, scale, None, None, mean, inverse, True, epsilon, [True, True, True])[0]

            def get():
                moved = result[0].movedim(1, -1) if problem.is_channels_last and x.dim() > 2 else result[0]
                return moved.numpy()

            return run, get
        saved = torch.empty_like(mean), torch.empty_like(mean)
        is_training = problem.operation == "training"

        def run():
            with torch.inference_mode():
                torch.native_batch_norm(x, scale, bias, mean, variance, is_training, problem.momentum, epsilon,
                                        out=(y, *saved))

        return run, lambda: problem.y


class OnnxRuntime:
    def __init__(self, threads):
        import onnx
        import onnxruntime

        self.onnx, self.runtime, self.threads = onnx, onnxruntime, threads
        self.name = "ONNX Runtime " + onnxruntime.__version__

    def calls(self, problem):
        if problem.operation == "backward" or (problem.is_channels_last and len(problem.shape) > 2):
            return None
        is_training = problem.operation == "training"
        session = self.session(problem, is_training)
        binding = session.io_binding()
        arrays = dict(zip(("scale", "bias", "mean", "variance"), problem.vectors()), x=problem.x)
        outputs = {"y": problem.y}
        if is_training:
            outputs.update(new_mean=np.zeros_like(problem.mean), new_variance=np.zeros_like(problem.mean))
        for bind, group in ((binding.bind_input, arrays), (binding.bind_output, outputs)):
            for name, array in group.items():
                bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

        def run(kept=(arrays, outputs)):  # the binding knows their addresses only
            session.run_with_iobinding(binding)

        return run, lambda: problem.y

    def session(self, problem, is_training):
        helper, float32 = self.onnx.helper, self.onnx.TensorProto.FLOAT
        inputs = [("x", problem.shape)] + [(name, problem.shape[1:2]) for name in ("scale", "bias", "mean", "variance")]
        outputs = [("y", problem.shape)]
        if is_training:
            outputs += [("new_mean", problem.shape[1:2]), ("new_variance", problem.shape[1:2])]
        node = helper.make_node("BatchNormalization", [name for name, _ in inputs], [name for name, _ in outputs],
                                epsilon=problem.epsilon, momentum=1 - problem.momentum, training_mode=int(is_training))
        graph = helper.make_graph([node], "batch_normalization",
                                  [helper.make_tensor_value_info(name, float32, shape) for name, shape in inputs],
                                  [helper.make_tensor_value_info(name, float32, shape) for name, shape in outputs])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        return self.runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Jax:
    def __init__(self, threads):  # it takes the threads that the process is bound to
        import jax

        self.jax = jax
        jax.config.update("jax_platforms", "cpu")
        self.name = "JAX " + jax.__version__

    def calls(self, problem):
        jax, numpy = self.jax, self.jax.numpy
        channel_axis = len(problem.shape) - 1 if problem.is_channels_last else 1
        others = tuple(axis for axis in range(len(problem.shape)) if axis != channel_axis)
        along = [1] * len(problem.shape)
        along[channel_axis] = -1

        def normalize(x, scale, bias, mean, variance):
            factor = scale * jax.lax.rsqrt(variance + problem.epsilon)
            return (x - mean.reshape(along)) * factor.reshape(along) + bias.reshape(along)

        def train(x, scale, bias):
            mean = numpy.mean(x, others)
            variance = numpy.maximum(numpy.mean(x * x, others) - mean * mean, 0)
            return normalize(x, scale, bias, mean, variance), mean, variance

        def train_and_update(x, scale, bias, mean, variance):
            y, batch_mean, batch_variance = train(x, scale, bias)
            m = x.size // x.shape[channel_axis]
            unbiased = batch_variance * (m / max(m - 1, 1))
            return y, mean + problem.momentum * (batch_mean - mean), variance + problem.momentum * (unbiased - variance)

        def backward(x, dy, scale, bias):  # its gradient computes the statistics once more
            return jax.vjp(lambda *given: train(*given)[0], x, scale, bias)[1](dy)

        scale, bias, mean, variance = (numpy.asarray(v) for v in problem.vectors())
        x = numpy.asarray(problem.x)
        if problem.operation == "training":
            function, given = jax.jit(train_and_update), (x, scale, bias, mean, variance)
        elif problem.operation == "inference":
            function, given = jax.jit(lambda *given: (normalize(*given),)), (x, scale, bias, mean, variance)
        else:
            function, given = jax.jit(backward), (x, numpy.asarray(problem.dy), scale, bias)
        result = [None]

        def run():
            result[0] = jax.block_until_ready(function(*given))

        return run, lambda: np.asarray(result[0][0])


class MindSpore:
    def __init__(self, threads):
        import os

        os.environ.setdefault("GLOG_v", "3")  # errors only
        import mindspore
        from mindspore.ops.operations import _grad_ops

        try:
            from mindspore.graph.api import _pynative_executor
        except ImportError:  # its place before 2.9
            from mindspore.common.api import _pynative_executor

        self.mindspore, self.gradients, self.wait = mindspore, _grad_ops, _pynative_executor.sync
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
        mindspore.set_device("CPU")
        mindspore.runtime.dispatch_threads_num(threads)
        self.name = "MindSpore " + mindspore.__version__

    def calls(self, problem):
        if problem.is_channels_last or len(problem.shape) not in (2, 4):
            return None
        ms = self.mindspore
        x, dy = ms.Tensor.from_numpy(problem.x), ms.Tensor.from_numpy(problem.dy)
        scale, bias, mean, variance = (ms.Parameter(ms.Tensor(v)) for v in problem.vectors())
        if problem.operation == "backward":
            operator = self.gradients.BatchNormGrad(is_training=True, epsilon=problem.epsilon)
            given = (dy, x, scale, mean, variance, variance)
        else:
            operator = ms.ops.BatchNorm(is_training=problem.operation == "training", epsilon=problem.epsilon,
                                        momentum=problem.momentum)
            given = (x, scale, bias, mean, variance)
        result = [None]

        def run():
            result[0] = operator(*given)
            self.wait()

        return run, lambda: result[0][0].asnumpy()


ALL = (PyTorch, OnnxRuntime, Jax, MindSpore)
