# SPDX-License-Identifier: MIT
"""Random shapes and strides, straight to the operators: results lie in memory as PyTorch's own do, and are right."""

import random
import unittest

import batchnorm_torch
import numpy as np
import support
import torch

CASES = 2000
EPSILON = 1e-2

backward = torch.ops.aten.native_batch_norm_backward


def random_tensor(extents, element, dice):
    """Values on any strides: permuted, cut out of a larger tensor, every second one, expanded."""
    rank = len(extents)
    order = list(range(rank))
    kind = dice.random()
    if kind < 0.3:
        dice.shuffle(order)
    elif kind < 0.6 and rank >= 4:
        order = [0, *range(2, rank), 1]
    larger = [extent * dice.choice((1, 1, 2)) for extent in extents]
    tensor = torch.randn([larger[axis] for axis in order]).to(element).permute([order.index(axis) for axis in range(rank)])
    for axis, extent in enumerate(extents):
        if tensor.shape[axis] != extent:
            start = dice.randint(0, extent)
            cut = slice(start, start + extent) if dice.random() < 0.5 else slice(None, None, 2)
            tensor = tensor[(*[slice(None)] * axis, cut)]
    if dice.random() < 0.05:
        axis = dice.randrange(rank)
        tensor = tensor.narrow(axis, 0, 1).expand(extents)
    return tensor if dice.random() < 0.5 else tensor.clone()


def description(results):
    return [None if result is None else (result.dtype, result.shape, result.stride()) for result in results]


class Case:

    def __init__(self, dice):
        extents = [dice.choice((1, 2, 3, 4)) for _ in range(dice.choice((2, 3, 4, 5)))]
        self.element, self.parameter = dice.choice(list(support.TYPES.values()))
        self.x, self.dy = (random_tensor(extents, self.element, dice) for _ in range(2))
        self.values = self.x.numel() // extents[1]
        self.training = self.values > 1 and dice.random() < 0.6
        tracking = not self.training or dice.random() < 0.8
        self.weight, self.bias = (self.vector(dice.random() < 0.8) for _ in range(2))
        self.mean, self.variance = (self.vector(tracking) for _ in range(2))
        if all(tensor is None for tensor in (self.weight, self.bias, self.mean)):
            self.parameter = self.element  # that of the saved statistics then
        self.wanted = [dice.random() < 0.8 for _ in range(3)]

    def vector(self, present):
        return (torch.rand(self.x.shape[1]) + 0.5).to(self.parameter) if present else None

    def run(self):
        mean, variance = (None if tensor is None else tensor.clone() for tensor in (self.mean, self.variance))
        y = torch.native_batch_norm(self.x, self.weight, self.bias, mean, variance, self.training, 0.1, EPSILON)
        dx = backward(self.dy, self.x, self.weight, mean, variance, y[1], y[2], self.training, EPSILON, self.wanted)
        return y, dx

    def formula(self):
        given = [None if tensor is None else support.exact(tensor)
                 for tensor in (self.x, self.dy, self.weight, self.bias, self.mean, self.variance)]
        return support.Formula(*given, self.training, EPSILON)


class Layouts(unittest.TestCase):

    def test_results_lie_in_memory_as_those_of_pytorch(self):
        dice = random.Random(5)
        torch.manual_seed(5)
        for number in range(CASES):
            case = Case(dice)
            with self.subTest(number=number, shape=tuple(case.x.shape), x=case.x.stride(), dy=case.dy.stride()):
                batchnorm_torch.reset_calls()
                y, gradients = case.run()
                self.assertEqual(batchnorm_torch.calls(), (1, 0, 1, 0))
                with batchnorm_torch.using(False):
                    their_y, their_gradients = case.run()
                self.assertEqual(description(y), description(their_y))
                self.assertEqual(description(gradients), description(their_gradients))
                # PyTorch's values are no measure: it reads dy in the order of x where extents of 1 let both orders fit.
                self.check_values(case, y, gradients)

    def check_values(self, case, y, gradients):
        formula = case.formula()
        tolerances = support.tolerances(formula, case.element, case.parameter)
        for name, result in zip(("y", "dx", "dweight", "dbias"), (y[0], *gradients)):
            if result is not None:
                error = np.abs(support.exact(result) - getattr(formula, name))
                self.assertTrue(np.all(error <= tolerances[name]), f"{name}: {np.max(error / tolerances[name])} tolerances")
        if case.training:
            saved = np.abs(support.exact(y[2]) - formula.inverse_deviation)
            unit = torch.finfo(case.parameter).eps + torch.finfo(torch.double).eps * 70
            self.assertTrue(np.all(saved <= unit * formula.inverse_deviation))


if __name__ == "__main__":
    unittest.main()
