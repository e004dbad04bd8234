# SPDX-License-Identifier: MIT
"""Gradients of gradients, transforms, and what autograd keeps between forward and backward."""

import unittest

import batchnorm_torch
import support
import torch
from torch.autograd import forward_ad
from torch.nn import functional

SHAPES = ((4, 3), (3, 2, 5), (2, 3, 2, 3), (2, 2, 2, 2, 3))


def module_like(x, training, **options):
    module = support.module_of(x.dim())(x.shape[1], dtype=x.dtype, **options).train(training)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.rand_like(parameter) + 0.5)
    return module


def same_with_and_without(test, call, taken=True):
    """The results agree to the rounding of double, and the kernels had, or had not, to do with them."""
    ours, theirs, calls = support.with_and_without(call)
    test.assertEqual((ours[0], theirs[0]), ("returned", "returned"), (ours, theirs))
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-9, atol=1e-9)
    test.assertEqual(calls.forward_taken > 0, taken)
    return ours[1]


class Autograd(unittest.TestCase):

    def setUp(self):
        torch.manual_seed(11)
        batchnorm_torch.reset_calls()

    def test_gradcheck_and_gradgradcheck(self):
        for shape in SHAPES:
            for training in support.BOTH:
                for memory_format in support.memory_formats(len(shape)):
                    with self.subTest(shape=shape, training=training, memory_format=memory_format):
                        x = torch.randn(shape, dtype=torch.double).contiguous(memory_format=memory_format).requires_grad_()
                        module = module_like(x, training, momentum=0.0)  # a function must not change between its calls
                        inputs = (x, module.weight, module.bias)

                        def call(x, *parameters):
                            return functional.batch_norm(x, module.running_mean, module.running_var, *parameters, training, 0.0)

                        self.assertTrue(torch.autograd.gradcheck(call, inputs))
                        self.assertTrue(torch.autograd.gradgradcheck(call, inputs))
        calls = batchnorm_torch.calls()
        self.assertGreater(calls.backward_taken, 1000)
        self.assertEqual((calls.forward_passed_on, calls.backward_passed_on), (0, 0))

    def test_dy_of_any_layout(self):
        for shape in SHAPES:
            x = torch.randn(shape, dtype=torch.double)
            dy = torch.randn(shape, dtype=torch.double)
            for (x_name, x_like), (dy_name, dy_like) in zip(support.layouts(x), reversed(list(support.layouts(dy)))):
                with self.subTest(shape=shape, x=x_name, dy=dy_name):
                    expected = self.gradient(x, dy)
                    torch.testing.assert_close(self.gradient(x_like, dy_like), expected, rtol=1e-12, atol=1e-12)
            # The gradient of a sum is one number, expanded.
            torch.testing.assert_close(self.gradient(x, torch.ones((), dtype=torch.double).expand(shape)),
                                       torch.zeros(shape, dtype=torch.double), rtol=0, atol=1e-12)

    def gradient(self, x, dy):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(functional.batch_norm(x, None, None, training=True), x, dy)[0]

    def test_a_module_that_is_called_twice_before_backward(self):
        # Its running statistics change in between, in place; autograd has saved them and must not mind.
        def call():
            module = torch.nn.BatchNorm2d(3, dtype=torch.double)
            x = torch.linspace(-1, 2, 96, dtype=torch.double).reshape(2, 3, 4, 4).requires_grad_()
            module(module(x) * 2 + x).pow(3).sum().backward()
            return x.grad, module.weight.grad, module.running_var

        same_with_and_without(self, call)

    def test_forward_mode(self):
        x, tangent = torch.randn(2, 4, 3, 2, 2, dtype=torch.double)
        for training in support.BOTH:
            def call():
                with forward_ad.dual_level():
                    module = module_like(x, training)
                    with torch.no_grad():
                        module.weight.fill_(1.5)
                        module.bias.fill_(0.5)
                    dual = forward_ad.unpack_dual(module(forward_ad.make_dual(x, tangent)))
                    return dual.primal.detach(), dual.tangent.detach()

            same_with_and_without(self, call)

    def test_transforms_of_functions(self):
        x = torch.randn(3, 4, 2, 5, dtype=torch.double)
        mean, variance = torch.zeros(2, dtype=torch.double), torch.ones(2, dtype=torch.double)

        def loss(x):
            return functional.batch_norm(x, mean, variance, training=False).pow(2).sum()

        def batch_loss(x):
            return functional.batch_norm(x, None, None, training=True).pow(3).sum()

        same_with_and_without(self, lambda: torch.func.vmap(loss)(x))
        same_with_and_without(self, lambda: torch.func.grad(batch_loss)(x[0]))
        same_with_and_without(self, lambda: torch.func.vmap(torch.func.grad(batch_loss))(x))
        same_with_and_without(self, lambda: torch.func.hessian(batch_loss)(x[0, :2]))
        same_with_and_without(self, lambda: torch.func.jvp(batch_loss, (x[0],), (x[1],)))

    def test_checkpointing(self):
        def call():
            module = torch.nn.BatchNorm1d(3, dtype=torch.double)
            x = torch.linspace(-1, 2, 24, dtype=torch.double).reshape(8, 3).requires_grad_()
            torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False).pow(2).sum().backward()
            return x.grad, module.running_mean

        same_with_and_without(self, call)

    def test_inference_mode(self):
        x = torch.randn(4, 3, 2, dtype=torch.double)

        def call():
            with torch.inference_mode():
                return module_like(x, True, affine=False)(x).clone()

        same_with_and_without(self, call)

    def test_counters_of_changes_in_place(self):
        # PyTorch does not count what batch normalization does to its running statistics.
        x = torch.randn(4, 3, 2, dtype=torch.half)

        def call():
            module = torch.nn.BatchNorm1d(3, dtype=torch.half)
            module(x.clone().requires_grad_()).sum().backward()
            with torch.inference_mode():
                module(x)
            return torch.tensor([module.running_mean._version, module.running_var._version])

        same_with_and_without(self, call)

    def test_parameters_that_want_no_gradient(self):
        x = torch.randn(4, 3, 2, dtype=torch.double)

        def call():
            module = torch.nn.BatchNorm1d(3, dtype=torch.double)
            module.weight.requires_grad_(False)
            (module(x)**2).sum().backward()
            return module.bias.grad, torch.tensor(module.weight.grad is None)

        same_with_and_without(self, call)


if __name__ == "__main__":
    unittest.main()
