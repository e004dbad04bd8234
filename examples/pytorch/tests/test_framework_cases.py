# SPDX-License-Identifier: MIT
"""The cases that PyTorch tests its own batch normalization with (torch.testing._internal), with and without the extension."""

import unittest
import warnings

import batchnorm_torch
import support
import torch

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal import common_methods_invocations, common_modules
except ImportError as error:  # they need packages that torch itself does not
    missing = str(error)
    common_methods_invocations = common_modules = None

OPERATORS = ("nn.functional.batch_norm", "native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update")
TYPES = (torch.float, torch.double, torch.half, torch.bfloat16)


def flattened(results):
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for result in results for tensor in flattened(result)] if isinstance(results, (list, tuple)) else []


def copied(value, dtype=None):
    """A copy with new leaves, in another type on request."""
    if isinstance(value, torch.Tensor):
        to = dtype if dtype and value.is_floating_point() else value.dtype
        return value.detach().clone().to(to).requires_grad_(value.requires_grad)
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item, dtype) for item in value)
    if isinstance(value, dict):
        return {name: copied(item, dtype) for name, item in value.items()}
    return value


def with_gradients(call, inputs):
    """The results of a call, the gradients of the first one by every tensor that wants one, and the inputs afterwards."""
    results = flattened(call(inputs))
    leaves = [leaf for leaf in flattened(list(inputs)) if leaf.requires_grad]
    gradients = []
    if leaves and results[0].requires_grad:
        # dy is exact in every type.
        dy = (torch.arange(results[0].numel()) * 7 % 16 - 7).div(4).reshape(results[0].shape).to(results[0].dtype)
        gradients = torch.autograd.grad(results[0], leaves, dy, allow_unused=True)
    everything = (*results, *gradients, *flattened(list(inputs)))
    return [result.detach() for result in everything if result is not None and result.is_floating_point()]


@unittest.skipIf(common_modules is None, "torch.testing._internal cannot be imported")
class FrameworkCases(unittest.TestCase):

    def compare(self, run, dtype):
        """Ours is no farther from PyTorch's result in double than PyTorch's own, but for rounding."""
        ours, theirs, calls = support.with_and_without(lambda: run(dtype))
        self.assertEqual(ours[0], theirs[0], (ours, theirs))
        if ours[0] == "raised":
            self.assertEqual(ours, theirs)
            return calls
        with batchnorm_torch.using(False):
            exact = run(torch.double)
        self.assertEqual(len(ours[1]), len(theirs[1]))
        largest = max((result.nan_to_num(0, 0, 0).abs().max() for result in exact if result.numel()), default=0)
        for our, their, reference in zip(ours[1], theirs[1], exact):
            self.assertEqual((our.dtype, our.shape, our.stride()), (their.dtype, their.shape, their.stride()))
            if our.dtype == torch.double:
                torch.testing.assert_close(our, their, rtol=1e-11, atol=1e-11)
                continue
            self.assertTrue(torch.equal(our.isfinite(), their.isfinite()))
            our_error, their_error = ((result.double() - reference).nan_to_num(0).abs().max() if result.numel() else 0
                                      for result in (our, their))
            rounding = 4 * torch.finfo(our.dtype).eps * largest
            self.assertLessEqual(our_error, their_error + rounding)
        return calls

    def test_sample_inputs_of_operators(self):
        compared = taken = 0
        for operator in common_methods_invocations.op_db:
            if operator.name not in OPERATORS:
                continue
            for dtype in TYPES:
                for sample in operator.sample_inputs("cpu", dtype, requires_grad=True):

                    def run(dtype):
                        inputs = copied((sample.input, *sample.args), dtype)
                        options = copied(sample.kwargs, dtype)
                        return with_gradients(lambda given: operator.op(*given, **options), (*inputs, ))

                    with self.subTest(operator=operator.name, dtype=dtype, sample=compared):
                        calls = self.compare(run, dtype)
                        compared, taken = compared + 1, taken + calls.forward_taken
        print(f"{compared} sample inputs of operators, {taken} forward calls taken")
        self.assertGreater(taken, 100)

    def test_error_inputs_of_operators(self):
        for operator in common_methods_invocations.op_db:
            if operator.name in OPERATORS and operator.error_inputs_func is not None:
                for case in operator.error_inputs("cpu"):
                    sample = case.sample_input
                    ours, theirs, _ = support.with_and_without(lambda: operator.op(sample.input, *sample.args, **sample.kwargs))
                    self.assertEqual(ours[0], "raised")
                    self.assertEqual(ours, theirs)

    def test_inputs_of_modules(self):
        compared = taken = 0
        for module_info in common_modules.module_db:
            if module_info.module_cls not in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d):
                continue
            for dtype in TYPES:
                for training in support.BOTH:
                    for case in module_info.module_inputs_func(module_info, "cpu", dtype, True, training):

                        def run(dtype):
                            built, given = case.constructor_input, case.forward_input
                            module = module_info.module_cls(*built.args, **built.kwargs).to(dtype).train(training)
                            results = with_gradients(lambda inputs: module(*inputs), copied(tuple(given.args), dtype))
                            return [*results, *(buffer.clone() for buffer in module.buffers() if buffer.is_floating_point())]

                        with self.subTest(module=module_info.name, dtype=dtype, training=training, case=case.desc):
                            calls = self.compare(run, dtype)
                            compared, taken = compared + 1, taken + calls.forward_taken
        print(f"{compared} inputs of modules, {taken} forward calls taken")
        self.assertGreater(taken, 50)

    def test_error_inputs_of_modules(self):
        for module_info in common_modules.module_db:
            if module_info.module_cls in (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d):
                for case in module_info.module_error_inputs_func(module_info, "cpu", torch.float, False, True):
                    def call():
                        built = case.module_error_input.constructor_input
                        module = module_info.module_cls(*built.args, **built.kwargs)
                        return module(*case.module_error_input.forward_input.args)

                    ours, theirs, _ = support.with_and_without(call)
                    self.assertEqual(ours[0], "raised")
                    self.assertEqual(ours, theirs)


if __name__ == "__main__":
    unittest.main()
