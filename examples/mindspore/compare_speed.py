#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times batchnorm_mindspore beside mindspore.ops.BatchNorm: the operator alone, and with its gradient.

    BATCHNORM_MINDSPORE_LIBRARY=build/lib/libbatchnorm_mindspore.so examples/mindspore/compare_speed.py --threads 1

Both run inside a Cell on the same tensors and take turns; a time is the median of at least 11 calls, each waited for. It
contains what MindSpore needs around its kernels. NHWC is ours alone.
"""

import argparse
import os
import statistics
import tempfile
import time

SHAPES = ("32,64,56,56", "32,256,28,28", "32,1024,14,14", "32,2048,7,7", "1,64,112,112", "64,512")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", metavar="N,C,...", help="default: layers of ResNet-50 and a linear one")
    parser.add_argument("--mode", action="append", choices=("PyNative", "graph"), help="default: both")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each row and candidate")
    return parser.parse_args()


class Problem:
    """One shape: the tensors of a call, in a format."""

    def __init__(self, shape, data_format):
        random = np.random.default_rng(1)
        ordered = (shape[0], *shape[2:], shape[1]) if data_format == "NHWC" else shape
        self.x, self.dy = (Tensor(random.standard_normal(ordered, dtype=np.float32)) for _ in range(2))
        self.vectors = [Tensor(random.uniform(0.5, 1.5, shape[1]).astype(np.float32)) for _ in range(4)]


def candidate(operator, operation, problem):
    """A function that runs it once, to the end."""
    network = FirstOutput(operator)
    if operation == "gradient":
        network = ops.GradOperation(get_all=True, sens_param=True)(network)
        given = (problem.x, *problem.vectors, problem.dy)
    else:
        given = (problem.x, *problem.vectors)

    def run():
        network(*given)
        ms.runtime.synchronize()

    return run


def medians(candidates, seconds):
    """In microseconds, of candidates that take turns."""
    times = [[] for _ in candidates]
    for run in candidates:
        run()  # compiles, and wakes the threads
    begin = time.perf_counter()
    while len(times[0]) < 11 or time.perf_counter() - begin < seconds * len(candidates):
        for run, record in zip(candidates, times):
            run()
            start = time.perf_counter()
            run()
            record.append(time.perf_counter() - start)
    return [statistics.median(record) * 1e6 for record in times]


def compare(mode, shape, arguments):
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    formats = ("NCHW", "NHWC") if len(shape) > 2 else ("NCHW",)
    problems = {data_format: Problem(shape, data_format) for data_format in formats}
    for operation in ("inference", "training", "gradient"):
        is_training = operation != "inference"
        candidates = [candidate(ops.BatchNorm(is_training), operation, problems["NCHW"])]
        candidates += [candidate(ours.BatchNorm(is_training, data_format=data_format), operation, problem)
                       for data_format, problem in problems.items()]
        theirs, *own = medians(candidates, arguments.seconds)
        columns = "".join(f"{data_format} {time:10.1f} us {theirs / time:6.2f} times as fast   "
                          for data_format, time in zip(formats, own))
        print(f"{','.join(map(str, shape)):<16} {mode:<9} {operation:<10} MindSpore {theirs:10.1f} us   {columns}", flush=True)


def main(arguments):
    ms.set_device("CPU")
    ms.runtime.dispatch_threads_num(arguments.threads)
    print(f"MindSpore {ms.__version__}, {arguments.threads} threads")
    for text in arguments.shape or SHAPES:
        for mode in arguments.mode or ("PyNative", "graph"):
            compare(mode, tuple(int(extent) for extent in text.split(",")), arguments)


if __name__ == "__main__":
    given = parse_arguments()
    # Both have as many processors as threads; they are told before they are loaded.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:given.threads])
    os.environ["BATCHNORM_NUM_THREADS"] = str(given.threads)
    os.environ.setdefault("GLOG_v", "4")
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, ops

    import batchnorm_mindspore as ours
    from cases import FirstOutput

    with tempfile.TemporaryDirectory() as folder:  # MindSpore leaves files where it works
        os.chdir(folder)
        main(given)
        os.chdir("/")
