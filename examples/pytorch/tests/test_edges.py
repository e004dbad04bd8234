# SPDX-License-Identifier: MIT
"""What the kernels do not take is PyTorch's own call: the same results, or the same exception with the same message."""

import unittest

import batchnorm_torch
import support
import torch
from torch.nn import functional

NAN, INF = float("nan"), float("inf")


def vectors(channels=3, dtype=torch.float):
    """Running mean and variance, weight and bias."""
    return [torch.arange(1.0, channels + 1).to(dtype) * factor for factor in (0.25, 1, 0.5, -1)]


def batch(*extents, dtype=torch.float):
    return torch.randn(extents, generator=torch.Generator().manual_seed(3)).to(dtype)


def normalized(x, statistics, training=True, momentum=0.1, epsilon=1e-5):
    """y, the updated running statistics and all gradients."""
    given = [None if tensor is None else tensor.clone() for tensor in statistics]
    x = x.clone() if x.is_contiguous() else x  # a clone would make it dense
    leaves = [tensor.requires_grad_() for tensor in (x.detach(), *given[2:]) if tensor is not None]
    y = functional.batch_norm(leaves[0], *given, training, momentum, epsilon)
    gradients = torch.autograd.grad(y.sum() + (y * y).sum(), leaves) if y.requires_grad else ()
    return [y.detach(), *given[:2], *gradients]


class Edges(unittest.TestCase):

    def equal(self, first, second):
        if isinstance(first, torch.Tensor) and first.layout == torch.strided and first.device.type == "cpu":
            return (first.dtype, first.shape, first.stride()) == (second.dtype, second.shape, second.stride()) and torch.equal(
                torch.nan_to_num(first, nan=12345.0), torch.nan_to_num(second, nan=12345.0))
        if isinstance(first, (list, tuple)):
            return len(first) == len(second) and all(map(self.equal, first, second))
        if isinstance(first, torch.Tensor):
            return first.shape == second.shape and first.layout == second.layout
        return first == second

    def passed_on(self, call, raises=None):
        ours, theirs, calls = support.with_and_without(call)
        self.assertTrue(self.equal(ours, theirs), f"\n{ours}\n{theirs}")
        self.assertEqual((calls.forward_taken, calls.backward_taken), (0, 0))
        self.assertEqual(ours[0], "raised" if raises else "returned", ours)
        if raises:
            self.assertIn(raises, ours[2])

    def test_empty_batches(self):
        for shape in ((0, 3), (0, 3, 2, 2), (2, 3, 0), (2, 3, 0, 2), (0, 3, 2, 2, 2)):
            for training in support.BOTH:
                with self.subTest(shape=shape, training=training):
                    self.passed_on(lambda: normalized(batch(*shape), vectors(), training))

    def test_no_channels(self):
        for training in support.BOTH:
            self.passed_on(lambda: normalized(batch(2, 0, 4), vectors(0), training), raises="out of range")

    def test_one_value_per_channel(self):
        for shape in ((1, 3), (1, 3, 1, 1)):
            with self.subTest(shape=shape):
                self.passed_on(lambda: normalized(batch(*shape), vectors()), raises="Expected more than 1 value per channel")
                mean, variance, weight, bias = vectors()
                self.passed_on(lambda: (torch.native_batch_norm(batch(*shape), weight, bias, mean, variance, True, 0, 1e-5),
                                        variance.isnan().all()))

    def test_epsilon_and_momentum_out_of_range(self):
        for epsilon in (1.5, INF, NAN):
            for training in support.BOTH:
                with self.subTest(epsilon=epsilon, training=training):
                    self.passed_on(lambda: normalized(batch(4, 3), vectors(), training, epsilon=epsilon))
        self.passed_on(lambda: normalized(batch(4, 3), vectors(), epsilon=0.0), raises="eps must be positive")
        self.passed_on(lambda: normalized(batch(4, 3), vectors(), False, epsilon=0.0))
        for momentum in (-0.1, 1.1, INF, NAN):
            with self.subTest(momentum=momentum):
                self.passed_on(lambda: torch.native_batch_norm(batch(4, 3), None, None, *vectors()[:2], True, momentum, 1e-5))

    def test_types_that_do_not_fit(self):
        for element, parameter in ((torch.float, torch.double), (torch.float, torch.half), (torch.double, torch.float),
                                   (torch.half, torch.bfloat16), (torch.half, torch.double), (torch.int, torch.float),
                                   (torch.complex64, torch.complex64)):
            with self.subTest(element=element, parameter=parameter):
                x = torch.ones(4, 3).to(element)
                statistics = [vector.to(parameter) for vector in vectors()]
                self.passed_on(lambda: functional.batch_norm(x, *statistics, True), raises=" ")

    def test_parameters_of_several_types(self):
        mean, variance, weight, bias = vectors()
        self.passed_on(lambda: functional.batch_norm(batch(4, 3, dtype=torch.half), mean, variance, weight.half(), bias.half(),
                                                     True), raises="expected scalar type Half")

    def test_parameters_of_the_wrong_extent(self):
        for wrong in range(4):
            statistics = vectors()
            statistics[wrong] = torch.ones(4)
            with self.subTest(wrong=wrong):
                self.passed_on(lambda: functional.batch_norm(batch(4, 3), *statistics, True),
                               raises="should contain 3 elements")

    def test_running_statistics_that_come_alone(self):
        mean, variance, weight, bias = vectors()
        for statistics in ((mean, None), (None, variance)):
            self.passed_on(lambda: normalized(batch(4, 3), (*statistics, weight, bias)), raises="must either both be None")

    def test_inference_without_running_statistics(self):
        self.passed_on(lambda: functional.batch_norm(batch(4, 3), None, None), raises="must be defined in evaluation mode")

    def test_vectors_with_gaps(self):
        for apart in range(4):
            for training in support.BOTH:
                statistics = vectors()
                statistics[apart] = torch.stack([statistics[apart]] * 2, 1)[:, 0]
                x = batch(4, 3, 2)
                with self.subTest(apart=apart, training=training):
                    self.passed_on(lambda: torch.native_batch_norm(x, *statistics[2:], *statistics[:2], training, 0, 1e-5))

    def test_vectors_that_overlap(self):
        for parameter in (torch.float, torch.half):
            mean, variance, weight, bias = vectors(dtype=parameter)
            joined = torch.ones(5, dtype=parameter)
            x = batch(4, 3, dtype=parameter)
            overlapping = (weight, bias, mean, mean), (mean, bias, mean, variance), (weight, bias, joined[:3], joined[2:])
            for statistics in overlapping:
                with self.subTest(parameter=parameter):
                    self.passed_on(lambda: torch.native_batch_norm(x, *statistics, True, 0, 1e-5))
            joined = batch(12, dtype=parameter)
            self.passed_on(lambda: torch.native_batch_norm(joined.reshape(4, 3), None, None, joined[:3], variance, True, 0, 1e-5))

    def test_ranks_that_the_kernels_have_not(self):
        self.passed_on(lambda: functional.batch_norm(batch(2, 3, 1, 2, 2, 2), *vectors(), True))
        self.passed_on(lambda: functional.batch_norm(torch.ones(3), *vectors(), True), raises=" ")

    def test_memory_that_is_not_aligned(self):
        bytes_of = bytearray(4 * 12 + 2)
        x = torch.frombuffer(bytes_of, dtype=torch.float, offset=2, count=12).reshape(4, 3)
        self.passed_on(lambda: functional.batch_norm(x, *vectors(), True))

    def test_tensors_that_lie_elsewhere(self):
        self.passed_on(lambda: functional.batch_norm(batch(4, 3, 2, 2).to("meta"), *[v.to("meta") for v in vectors()], True))
        if torch.backends.mkldnn.is_available():
            self.passed_on(lambda: functional.batch_norm(batch(4, 3, 2, 2).to_mkldnn(), *vectors()).to_dense())

    def test_what_is_switched_off(self):
        self.assertTrue(batchnorm_torch.is_enabled())
        batchnorm_torch.disable()
        batchnorm_torch.reset_calls()
        normalized(batch(4, 3), vectors())
        self.assertFalse(batchnorm_torch.is_enabled())
        batchnorm_torch.enable()
        normalized(batch(4, 3), vectors())
        self.assertEqual(batchnorm_torch.calls(), (1, 1, 1, 1))

    def test_gradients_that_are_not_wanted(self):
        x, dy, (mean, variance, weight, _) = batch(4, 3, 5), batch(4, 3, 5), vectors()
        backward = torch.ops.aten.native_batch_norm_backward
        everything = backward(dy, x, weight, mean, variance, mean, variance, True, 1e-5, [True] * 3)
        for wanted in ([True, False, False], [False, True, False], [False, False, True], [False] * 3, [True, False, True]):
            for result, whole, is_wanted in zip(backward(dy, x, weight, mean, variance, mean, variance, True, 1e-5, wanted),
                                                everything, wanted):
                self.assertEqual(result is not None, is_wanted)
                self.assertTrue(result is None or torch.equal(result, whole))

    def test_channels_that_are_not_finite(self):
        # The other channels stay as they are, bit by bit. What is finite, is finite in PyTorch too; what is infinite there may
        # be NaN here.
        for value in (NAN, INF, -INF):
            for training in support.BOTH:
                x = batch(4, 3, 5)
                clean = normalized(x, vectors(), training)
                x[1, 1, 1] = value
                mixed = normalized(x, vectors(), training)
                for index, (before, after) in enumerate(zip(clean, mixed)):
                    axis = 1 if before.dim() > 1 else 0
                    others = torch.tensor([0, 2])
                    self.assertTrue(torch.equal(before.index_select(axis, others), after.index_select(axis, others)))
                with batchnorm_torch.using(False):
                    theirs = normalized(x, vectors(), training)
                for ours, other in zip(mixed, theirs):
                    self.assertTrue(torch.equal(ours.isfinite(), other.isfinite()), (value, training, ours, other))


if __name__ == "__main__":
    unittest.main()
