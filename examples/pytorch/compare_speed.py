#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times PyTorch's batch normalization on the CPU with and without batchnorm_torch, in one process, by turns.

    python3 examples/pytorch/compare_speed.py [--threads 1,2] [--type float] [--json FILE]

First torch.nn.BatchNorm2d alone, at the shapes of ResNet-50: training forward, forward and backward, and inference. Then a
whole training step of ResNet-18: forward, loss, backward, stochastic gradient descent. Both in both memory formats. Each time
is the median of the turns; the ratio is the time without the extension over the time with it, and above 1 the extension wins.
Its range is that of the middle half of the turns' own ratios.
"""

import argparse
import json
import platform
import statistics
import sys
import time

import batchnorm_torch
import torch

from resnet import ResNet18

SHAPES = ("32,64,112,112", "32,64,56,56", "32,256,56,56", "32,128,28,28", "32,1024,14,14", "32,2048,7,7", "1,64,112,112",
          "1,2048,7,7")
FORMATS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
TYPES = {"float": torch.float, "double": torch.double, "half": torch.half, "bfloat16": torch.bfloat16}


def numbers(text):
    return [int(number) for number in text.split(",")]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", metavar="N,C,H,W", help="instead of those of ResNet-50; may be repeated")
    parser.add_argument("--type", action="append", choices=TYPES,
                        help="of x; the parameters are float, or double beside double; default float")
    parser.add_argument("--format", action="append", choices=FORMATS, help="default: both")
    parser.add_argument("--threads", type=numbers, default=[1, 2], metavar="N,...", help="default 1,2")
    parser.add_argument("--turns", type=int, default=15, help="measurements of a module with and without, default %(default)s")
    parser.add_argument("--steps", type=int, default=5, help="of ResNet-18 with and without, default %(default)s, 0: none")
    parser.add_argument("--batch", type=int, default=16, help="images in a step of ResNet-18, default %(default)s")
    parser.add_argument("--image", type=int, default=224, help="their height and width, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="writes the rows to a file")
    return parser.parse_args()


class Forward:
    """One training forward pass of a module, and what autograd keeps for the gradient."""
    name, training = "forward", True

    def __init__(self, shape, dtype, memory_format):
        def tensor():
            return torch.randn(shape).to(dtype).contiguous(memory_format=memory_format)

        self.module = torch.nn.BatchNorm2d(shape[1], dtype=torch.double if dtype == torch.double else torch.float)
        self.module.train(self.training)
        self.x, self.dy = tensor().requires_grad_(self.training), tensor()

    def __call__(self):
        return self.module(self.x)


class ForwardBackward(Forward):
    """The same, and the gradients by x, weight and bias."""
    name = "forward+backward"

    def __call__(self):
        torch.autograd.grad(self.module(self.x), (self.x, *self.module.parameters()), self.dy)


class Inference(Forward):
    name, training = "inference", False

    def __call__(self):
        with torch.inference_mode():
            return self.module(self.x)


class TrainingStep:
    """ResNet-18 from the images to the updated weights; in half or bfloat16 by autocast."""
    name = "ResNet-18 training step"

    def __init__(self, shape, dtype, memory_format):
        self.dtype, base = dtype, torch.double if dtype == torch.double else torch.float
        self.network = ResNet18().to(base).to(memory_format=memory_format)
        self.images = torch.randn(shape, dtype=base).contiguous(memory_format=memory_format)
        self.labels = torch.randint(1000, shape[:1])
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9)

    def __call__(self):
        self.optimizer.zero_grad()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype in (torch.half, torch.bfloat16)):
            loss = torch.nn.functional.cross_entropy(self.network(self.images), self.labels)
        loss.backward()
        self.optimizer.step()


def seconds(call, enabled, repetitions):
    """Of one call; what a call computes is freed within its time."""
    with batchnorm_torch.using(enabled):
        start = time.perf_counter()
        for _ in range(repetitions):
            call()
        return (time.perf_counter() - start) / repetitions


def measure(call, turns):
    """Seconds with and without, turn by turn; which goes first changes from turn to turn."""
    batchnorm_torch.reset_calls()
    warm = {enabled: seconds(call, enabled, 1) for enabled in (True, False)}
    if 0 in (batchnorm_torch.calls().forward_taken, batchnorm_torch.calls().forward_passed_on):
        raise SystemExit("the extension did not take these calls")
    repetitions = max(1, int(0.02 / max(warm.values())))  # the clock and the switch must not count
    times = {True: [], False: []}
    for turn in range(turns):
        for enabled in (turn % 2 == 0, turn % 2 == 1):
            times[enabled].append(seconds(call, enabled, repetitions))
    return times[True], times[False]


def row_of(work, shape, dtype_name, format_name, threads, turns):
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    ours, theirs = measure(work(shape, TYPES[dtype_name], FORMATS[format_name]), turns)
    ratios = sorted(their / our for our, their in zip(ours, theirs))
    return {"operation": work.name, "shape": list(shape), "type": dtype_name, "format": format_name, "threads": threads,
            "turns": turns, "milliseconds_with": 1e3 * statistics.median(ours),
            "milliseconds_without": 1e3 * statistics.median(theirs),
            "ratio": statistics.median(theirs) / statistics.median(ours),
            "ratio_lower": ratios[turns // 4], "ratio_upper": ratios[-1 - turns // 4]}


def show(row):
    shape = ", ".join(map(str, row["shape"]))
    print(f"| {row['operation']} | {shape} | {row['type']} | {row['format']} | {row['threads']} "
          f"| {row['milliseconds_without']:.3f} | {row['milliseconds_with']:.3f} | {row['ratio']:.2f} "
          f"| {row['ratio_lower']:.2f} to {row['ratio_upper']:.2f} |", flush=True)


def machine():
    with open("/proc/cpuinfo") as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"processor": models[0] if models else platform.machine(), "processors": len(models), "torch": torch.__version__,
            "python": platform.python_version(), "instruction_set": batchnorm_torch.instruction_set()}


def main():
    arguments = parse_arguments()
    about, rows = machine(), []
    print("; ".join(f"{name} {value}" for name, value in about.items()))
    print("\n| operation | N, C, H, W | type | format | threads | PyTorch, ms | batchnorm, ms | ratio | middle half |")
    print("|---|---|---|---|---|---|---|---|---|")
    works = [(work, numbers(shape), arguments.turns) for shape in arguments.shape or SHAPES
             for work in (Forward, ForwardBackward, Inference)]
    if arguments.steps > 0:
        works.append((TrainingStep, [arguments.batch, 3, arguments.image, arguments.image], arguments.steps))
    for work, shape, turns in works:
        for dtype_name in arguments.type or ["float"]:
            for format_name in arguments.format or FORMATS:
                for threads in arguments.threads:
                    rows.append(row_of(work, shape, dtype_name, format_name, threads, turns))
                    show(rows[-1])
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump({"machine": about, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    sys.exit(main())
