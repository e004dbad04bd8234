# SPDX-License-Identifier: MIT
"""Programs that are not changed: compiled, exported, in mixed precision, copied, stored, in several threads and processes."""

import copy
import io
import os
import pathlib
import subprocess
import sys
import threading
import unittest
import warnings

import batchnorm_torch
import support
import torch
from torch import nn


class Block(nn.Module):

    def __init__(self, dtype=torch.float):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1, bias=False, dtype=dtype)
        self.norm = nn.BatchNorm2d(8, dtype=dtype)

    def forward(self, x):
        return torch.relu(self.norm(self.convolution(x)))


def new_block(**options):
    torch.manual_seed(5)
    return Block(**options)


def images(dtype=torch.float):
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(6)).to(dtype)


def step(network, x, dtype=None):
    """One training step: what it computes, and what it leaves in the buffers."""
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        y = network(x)
    y.float().pow(2).mean().backward()
    named = dict(network.named_parameters())
    return [y.detach(), *(p.grad for p in named.values()), *(b.clone() for b in network.buffers())]


def outputs_of(network, x):
    with torch.no_grad():
        return network.eval()(x)


def new_compiled(network, backend):
    torch.compiler.reset()
    return torch.compile(network, backend=backend)


class Programs(unittest.TestCase):

    def agree(self, call, rtol=1e-5, atol=1e-5):
        ours, theirs, calls = support.with_and_without(call)
        if theirs[0] == "raised":
            self.skipTest(f"PyTorch alone: {theirs[2][:200]}")
        self.assertEqual(ours[0], "returned", ours)
        torch.testing.assert_close(ours[1], theirs[1], rtol=rtol, atol=atol)
        return calls

    def test_compiled_by_inductor(self):
        # It compiles batch normalization itself: the kernels have nothing to do, and change nothing.
        def call():
            network = new_block()
            compiled = new_compiled(network, "inductor")
            compiled(images()).pow(2).mean().backward()
            return [*(p.grad for p in network.parameters()), *network.buffers(), outputs_of(compiled, images())]

        self.agree(call)

    def test_traced_by_the_compiler_and_run_eagerly(self):
        for backend in ("eager", "aot_eager"):
            with self.subTest(backend=backend):
                def call():
                    network = new_block()
                    compiled = new_compiled(network, backend)
                    compiled(images()).pow(2).mean().backward()
                    return [*(p.grad for p in network.parameters()), *network.buffers(), outputs_of(compiled, images())]

                calls = self.agree(call)
                self.assertEqual((calls.forward_taken, calls.forward_passed_on), (2, 0))
                self.assertEqual((calls.backward_taken, calls.backward_passed_on), (1, 0))

    def test_exported(self):
        def call():
            exported = torch.export.export(new_block().eval(), (images(),))
            return exported.module()(images()), exported.run_decompositions().module()(images())

        calls = self.agree(call)
        self.assertEqual((calls.forward_taken, calls.forward_passed_on), (2, 0))

    def test_traced_by_torchscript(self):
        def call():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is deprecated
                return torch.jit.trace(new_block().eval(), images())(images())

        self.assertGreater(self.agree(call).forward_taken, 0)

    def test_mixed_precision(self):
        for dtype in (torch.bfloat16, torch.half):
            with self.subTest(dtype=dtype):
                calls = self.agree(lambda: step(new_block(), images(), dtype), rtol=0.02, atol=0.02)
                self.assertEqual(calls, (1, 0, 1, 0))

    def test_all_in_half_precision(self):
        for dtype in (torch.bfloat16, torch.half):
            with self.subTest(dtype=dtype):
                calls = self.agree(lambda: step(new_block(dtype=dtype), images(dtype)), rtol=0.02, atol=0.02)
                self.assertEqual(calls, (1, 0, 1, 0))

    def test_copies_and_checkpoints(self):
        network = new_block()
        step(network, images())
        copied, stored = copy.deepcopy(network), io.BytesIO()
        torch.save(network.state_dict(), stored)
        stored.seek(0)
        loaded = Block()
        loaded.load_state_dict(torch.load(stored))
        y = outputs_of(network, images())
        for other in (copied, loaded):
            self.assertTrue(torch.equal(outputs_of(other, images()), y))
        with batchnorm_torch.using(False):
            torch.testing.assert_close(outputs_of(loaded, images()), y)

    def test_an_import_that_says_nothing(self):
        # The dispatcher warns of kernels that are replaced, if asked to; whoever replaces ours is still warned of.
        program = """
import sys, torch
torch.set_warn_always(True)
import batchnorm_torch
print("imported", file=sys.stderr, flush=True)
library = torch.library.Library("aten", "IMPL")
library.impl("native_batch_norm", lambda *arguments: None, "CPU", allow_override=True)
"""
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                             env=os.environ | {"TORCH_CPP_LOG_LEVEL": "INFO"})
        self.assertEqual(run.returncode, 0, run.stderr)
        before, _, after = run.stderr.partition("imported\n")
        self.assertNotIn("Overriding", before)
        self.assertIn("Overriding a previously registered kernel", after)

    def test_an_instruction_set_that_does_not_exist(self):
        run = subprocess.run([sys.executable, "-c", "import batchnorm_torch"], capture_output=True, text=True,
                             stdin=subprocess.DEVNULL, env=os.environ | {"BATCHNORM_ISA": "foo"})
        self.assertIn("BATCHNORM_ISA is 'foo', available here are", run.stderr)


class NormalizedImages(torch.utils.data.Dataset):
    """Batch normalization inside a worker of a DataLoader."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        before = batchnorm_torch.calls().forward_taken
        y = nn.functional.batch_norm(images() + index, None, None, training=True)
        return y, batchnorm_torch.calls().forward_taken - before


def seconds_of_threads():
    """Processor time of each thread of this process, in seconds."""
    times = {}
    for folder in pathlib.Path("/proc/self/task").iterdir():
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        times[folder.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return times


class Threads(unittest.TestCase):

    def setUp(self):
        self.addCleanup(torch.set_num_threads, torch.get_num_threads())

    def test_results_do_not_depend_on_the_number_of_threads(self):
        x = torch.randn(16, 8, 64, 64)
        results = {}
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results[threads] = step(nn.BatchNorm2d(8), x.requires_grad_()) + [x.grad.clone()]
            x.grad = None
        for threads in (2, 3):
            for one, several in zip(results[1], results[threads]):
                self.assertTrue(torch.equal(one, several))

    def test_the_threads_are_those_of_pytorch(self):
        x = torch.randn(32, 64, 56, 56)
        torch.set_num_threads(2)
        with batchnorm_torch.using(False):
            nn.BatchNorm2d(64)(x)
        threads = seconds_of_threads()
        worked = self.work_of_others(x, 2)
        self.assertEqual(seconds_of_threads().keys(), threads.keys())
        self.assertGreater(worked, 0.05)
        self.assertLess(self.work_of_others(x, 1), 0.05)

    def work_of_others(self, x, threads):
        torch.set_num_threads(threads)
        module = nn.BatchNorm2d(64)
        before, own = seconds_of_threads(), str(threading.get_native_id())
        with torch.no_grad():
            while seconds_of_threads()[own] < before[own] + 0.3:
                module(x)
        return sum(seconds - before[thread] for thread, seconds in seconds_of_threads().items() if thread != own)

    def test_several_threads_at_once(self):
        x = torch.randn(8, 16, 16, 16)
        expected = step(nn.BatchNorm2d(16), x)
        results = []

        def work():
            for _ in range(20):
                results.append(step(nn.BatchNorm2d(16), x))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(results), 80)
        for result in results:
            self.assertTrue(all(map(torch.equal, result, expected)))

    def test_workers_of_a_data_loader(self):
        torch.set_num_threads(2)
        nn.BatchNorm2d(64)(torch.randn(32, 64, 56, 56))  # the parent's threads exist
        expected = [NormalizedImages()[index][0] for index in range(8)]
        loader = torch.utils.data.DataLoader(NormalizedImages(), batch_size=None, num_workers=2, multiprocessing_context="fork")
        for (y, taken), whole in zip(loader, expected, strict=True):
            self.assertTrue(torch.equal(y, whole))
            self.assertEqual(taken, 1)


if __name__ == "__main__":
    unittest.main()
