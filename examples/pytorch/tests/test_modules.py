# SPDX-License-Identifier: MIT
"""torch.nn.BatchNorm1d, 2d and 3d in every setting, type and layout, against the formula, with and without the extension."""

import itertools
import unittest

import batchnorm_torch
import numpy as np
import support
import torch

SHAPES = ((5, 6), (3, 6, 7), (3, 6, 4, 5), (2, 6, 3, 2, 4))
EPSILON = 1e-3


def settings():
    for training, affine, momentum, tracking in itertools.product(support.BOTH, support.BOTH, (0.3, None), support.BOTH):
        if tracking or momentum == 0.3:  # without running statistics momentum means nothing
            yield {"training": training, "affine": affine, "momentum": momentum, "tracking": tracking}


def new_module(shape, setting, parameter):
    random = torch.Generator().manual_seed(7)
    module = support.module_of(len(shape))(shape[1], eps=EPSILON, momentum=setting["momentum"], affine=setting["affine"],
                                           track_running_stats=setting["tracking"]).to(parameter)
    with torch.no_grad():
        for tensor in (*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())):
            tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
    return module.train(setting["training"])


def new_batches(shape, element):
    """Two batches and their dy; channels of different mean and deviation."""
    random = torch.Generator().manual_seed(8)
    channel = torch.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2))
    for step in range(2):
        x = torch.randn(shape, generator=random) * (channel + 0.5) + channel + step
        yield x.to(element), torch.randn(shape, generator=random).to(element)


def run(module, batches, layout):
    """The results of each batch: what PyTorch's user sees."""
    for x, dy in batches:
        x = dict(support.layouts(x))[layout].detach().requires_grad_()
        module.zero_grad()
        y = module(x)
        y.backward(dy)
        results = {"y": y, "dx": x.grad}
        if module.affine:
            results |= {"dweight": module.weight.grad, "dbias": module.bias.grad}
        if module.track_running_stats:
            results |= {"running_mean": module.running_mean, "running_var": module.running_var}
        yield {name: result.detach().clone() for name, result in results.items()}


def expected(module, x, dy, momentum):
    """The formula for the next batch of that module, its tolerances, and the running statistics that it leads to."""
    def vector(tensor):
        return None if tensor is None else support.exact(tensor)

    training = module.training or not module.track_running_stats
    formula = support.Formula(support.exact(x), support.exact(dy), vector(module.weight), vector(module.bias),
                              vector(module.running_mean), vector(module.running_var), training, module.eps)
    values = {name: getattr(formula, name) for name in ("y", "dx", "dweight", "dbias")}
    if module.track_running_stats:
        means = formula.running(vector(module.running_mean), vector(module.running_var), momentum if module.training else 0)
        values["running_mean"], values["running_var"] = means
    return values, support.tolerances(formula, x.dtype, module.running_mean.dtype if module.running_mean is not None else
                                      module.weight.dtype if module.affine else x.dtype)


class Modules(unittest.TestCase):

    def check(self, shape, setting, types, layout):
        element, parameter = types
        batches = list(new_batches(shape, element))
        ours = new_module(shape, setting, parameter)
        before = new_module(shape, setting, parameter)
        theirs = new_module(shape, setting, parameter)
        batchnorm_torch.reset_calls()
        steps = run(ours, batches, layout)
        for number, (x, dy) in enumerate(batches, 1):
            values, tolerances = expected(before, x, dy, setting["momentum"] or 1 / number)
            results = next(steps)
            for name, result in results.items():
                error = np.abs(support.exact(result) - values[name])
                self.assertTrue(np.all(error <= tolerances[name]), f"{name}: {np.max(error / tolerances[name])} tolerances")
            before.load_state_dict(ours.state_dict())
        self.assertEqual(batchnorm_torch.calls(), (2, 0, 2, 0))
        with batchnorm_torch.using(False):
            self.compare_with_pytorch(list(run(theirs, batches, layout)), results, tolerances)
        self.assertEqual(batchnorm_torch.calls(), (2, 2, 2, 2))
        if setting["tracking"]:
            self.assertEqual(ours.num_batches_tracked, theirs.num_batches_tracked)

    def compare_with_pytorch(self, steps, ours, tolerances):
        theirs = steps[-1]
        self.assertEqual(list(ours), list(theirs))
        for name in ours:
            self.assertEqual((ours[name].dtype, ours[name].shape), (theirs[name].dtype, theirs[name].shape), name)
            self.assertEqual(ours[name].stride(), theirs[name].stride(), name)
            error = np.abs(support.exact(ours[name]) - support.exact(theirs[name]))
            # PyTorch rounds more often: sums and products in float, sums of dy in the type of x, the statistics before y.
            coarsest = max(support.half_ulp(ours[name].dtype), support.half_ulp(ours["y"].dtype))
            allowed = 40 * tolerances[name] + 8 * coarsest * np.max(np.abs(support.exact(ours[name])))
            self.assertTrue(np.all(error <= allowed), f"{name}: {np.max(error / allowed)} of what is allowed")

    def test_every_setting_type_and_layout(self):
        for shape in SHAPES:
            names = [name for name, _ in support.layouts(torch.zeros(shape))]
            for setting, (types_name, types), layout in itertools.product(settings(), support.TYPES.items(), names):
                with self.subTest(shape=shape, **setting, types=types_name, layout=layout):
                    self.check(shape, setting, types, layout)

    def test_data_with_an_offset_is_as_exact(self):
        # The mean is 1000 deviations from 0: sums in float would lose three digits.
        x = torch.randn(16, 4, 32, 32, generator=torch.Generator().manual_seed(1)) + 1000
        weight, bias = torch.rand(4) + 0.5, torch.rand(4)
        exact = [support.exact(tensor) for tensor in (x, x, weight, bias)]
        formula = support.Formula(*exact, None, None, True, EPSILON)
        tolerance = support.tolerances(formula, torch.float, torch.float)["y"]
        for memory_format in (torch.contiguous_format, torch.channels_last):
            y = torch.nn.functional.batch_norm(x.contiguous(memory_format=memory_format), None, None, weight, bias, True, 0.1,
                                               EPSILON)
            self.assertTrue(np.all(np.abs(support.exact(y) - formula.y) <= tolerance))

    def test_a_constant_channel_gives_exactly_bias(self):
        module = torch.nn.BatchNorm2d(2)
        with torch.no_grad():
            module.bias.copy_(torch.tensor([0.1, -3]))
        for memory_format in (torch.contiguous_format, torch.channels_last):
            y = module(torch.full((3, 2, 4, 4), 10000.1).contiguous(memory_format=memory_format))
            self.assertTrue(torch.equal(y, module.bias.reshape(1, 2, 1, 1).expand(3, 2, 4, 4)))


if __name__ == "__main__":
    unittest.main()
