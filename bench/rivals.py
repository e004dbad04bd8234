#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times this library, MindSpore, ONNX Runtime, JAX and PyTorch in one process, on the same buffers.

    cmake --build build/bench --target batchnorm_c batchnorm_bench_copy
    bench/rivals.py --libraries build/bench/lib --json FILE

Needs NumPy, and what is to be compared: pip install torch onnxruntime onnx jax mindspore; what is missing is left out. The rows
are those of batchnorm_bench, and so is the JSON. All candidates take turns with the copy; after each, the process sleeps until
its threads no longer spin. The process is bound to as many processors as it is to use threads, and malloc keeps what is freed,
so that nobody pays for page faults. The time of a call includes Python's share, some microseconds.
"""

import argparse
import ctypes
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

OPERATIONS = ("training", "inference", "backward")
RESNET_50 = ("32,64,112,112", "32,64,56,56", "32,256,56,56", "32,128,28,28", "32,1024,14,14", "32,2048,7,7", "1,64,112,112",
             "1,2048,7,7")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--libraries", required=True, metavar="FOLDER",
                        help="has libbatchnorm_c.so and libbatchnorm_bench_copy.so")
    parser.add_argument("--shape", action="append", metavar="N,C,...", help="default: shapes of ResNet-50")
    parser.add_argument("--operation", action="append", choices=OPERATIONS)
    parser.add_argument("--format", action="append", choices=("NCHW", "NHWC"))
    parser.add_argument("--threads", action="append", type=int)
    parser.add_argument("--json", metavar="FILE", help="writes the rows to a file")
    return parser.parse_args()


def run_each_thread_count(arguments):
    """Some frameworks settle on their threads when they are loaded: each count has a process of its own."""
    counts, whole = arguments.threads, {"machine": None, "rows": []}
    options = ["--libraries", arguments.libraries]
    for name in ("shape", "operation", "format"):
        for value in getattr(arguments, name) or ():
            options += ["--" + name, value]
    status = 0
    for threads in counts:
        with tempfile.TemporaryDirectory() as folder:
            part = pathlib.Path(folder) / "part.json"
            command = [sys.executable, __file__, *options, "--threads", str(threads), "--json", str(part)]
            status = subprocess.run(command).returncode or status
            if part.exists():
                read = json.loads(part.read_text())
                whole["machine"] = read["machine"]
                whole["rows"] += read["rows"]
    if arguments.json:
        write_json(arguments.json, whole)
    return status


def write_json(file, whole):
    rows = ",\n  ".join(json.dumps(row) for row in whole["rows"])
    pathlib.Path(file).write_text(f'{{"machine": {json.dumps(whole["machine"])},\n "rows": [\n  {rows}]}}\n')


class Problem:
    """Buffers of one row, on borders of 64 bytes and in the order of the format."""

    epsilon, momentum = 1e-5, 0.1

    def __init__(self, operation, tensor_format, shape):
        self.operation, self.shape, self.is_channels_last = operation, shape, tensor_format == "NHWC"
        ordered = (shape[0], *shape[2:], shape[1]) if self.is_channels_last else shape
        random = np.random.default_rng(1)
        self.x, self.dy, self.y = (aligned(ordered) for _ in range(3))
        random.standard_normal(out=self.x, dtype=np.float32)
        random.standard_normal(out=self.dy, dtype=np.float32)
        self.scale, self.bias, self.mean, self.variance = (aligned((shape[1],)) for _ in range(4))
        self.scale[:], self.bias[:] = random.uniform(0.5, 1.5, shape[1]), random.uniform(-1, 1, shape[1])
        axis = tuple(a for a in range(len(shape)) if a != (len(shape) - 1 if self.is_channels_last else 1))
        self.mean[:], self.variance[:] = self.x.mean(axis, np.float64), self.x.var(axis, np.float64)

    def vectors(self):
        """Scale, bias and statistics for one candidate: in training each updates its own."""
        copies = tuple(aligned((self.shape[1],)) for _ in range(4))
        for copy, given in zip(copies, (self.scale, self.bias, self.mean, self.variance)):
            copy[:] = given
        return copies


def aligned(shape):
    count = int(np.prod(shape))
    raw = np.zeros(4 * count + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin:begin + 4 * count].view(np.float32).reshape(shape)


class Vector(ctypes.Structure):
    """One of batchnorm_c.h."""
    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_int64)]


class Tensor(ctypes.Structure):
    """One of batchnorm_c.h, dense."""
    _fields_ = Vector._fields_ + [("offset", ctypes.c_int64), ("strides", ctypes.c_void_p), ("strides_length", ctypes.c_int64)]


def arguments_structure(**arrays):
    """One of the structures of batchnorm_c.h that hold a call's arguments."""
    fields = ([("struct_size", ctypes.c_size_t)] +
              [(name, ctypes.c_int32) for name in ("type", "parameter_type", "format", "rank")] + [("shape", ctypes.c_void_p)] +
              list(arrays.items()))
    return type("Arguments", (ctypes.Structure,), {"_fields_": fields, "arrays": arrays})


class Library:
    """This library, through its C interface; and the copy."""

    class Options(ctypes.Structure):
        _fields_ = ([("struct_size", ctypes.c_size_t)] +
                    [(name, ctypes.c_int32) for name in ("is_training", "running_variance", "not_finite", "reserved")] +
                    [("epsilon", ctypes.c_double), ("momentum", ctypes.c_double), ("batch_number", ctypes.c_int64),
                     ("team", ctypes.c_void_p)])

    Forward = arguments_structure(x=Tensor, scale=Vector, bias=Vector, mean=Vector, variance=Vector, output_x=Tensor,
                                  batch_mean=Vector, batch_variance=Vector, reserve_space_1=Vector, reserve_space_2=Vector)
    Backward = arguments_structure(dy=Tensor, x=Tensor, scale=Vector, mean=Vector, variance=Vector, dx=Tensor, dscale=Vector,
                                   dbias=Vector)

    def __init__(self, folder, threads):
        self.functions, self.copies = (ctypes.CDLL(os.path.join(os.path.abspath(folder), name))
                                       for name in ("libbatchnorm_c.so", "libbatchnorm_bench_copy.so"))
        for name in ("last_error", "version"):
            getattr(self.functions, "batchnorm_" + name).restype = ctypes.c_char_p
        self.team, isa = ctypes.c_void_p(), ctypes.c_char_p()
        self.check(self.functions.batchnorm_create_thread_team(threads, ctypes.byref(self.team)))
        self.check(self.functions.batchnorm_active_isa(ctypes.byref(isa)))
        self.isa = isa.value.decode()
        self.name = "batchnorm " + self.functions.batchnorm_version().decode()
        self.copies.batchnorm_bench_open.restype = ctypes.c_void_p
        self.copying_team = ctypes.c_void_p(self.copies.batchnorm_bench_open(threads))

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.functions.batchnorm_last_error().decode())

    def calls(self, problem):
        scale, bias, mean, variance = problem.vectors()
        written = [np.zeros_like(mean) for _ in range(2)]
        shape = np.array(problem.y.shape, np.int64)
        is_backward = problem.operation == "backward"
        options = self.Options(struct_size=ctypes.sizeof(self.Options), is_training=problem.operation != "inference",
                               epsilon=problem.epsilon, momentum=problem.momentum, team=self.team)
        arrays = {"x": problem.x, "scale": scale, "mean": mean, "variance": variance}
        if is_backward:
            structure, function = self.Backward, self.functions.batchnorm_backward
            arrays.update(dy=problem.dy, dx=problem.y, dscale=written[0], dbias=written[1])
        else:
            structure, function = self.Forward, self.functions.batchnorm_forward
            arrays.update(bias=bias, output_x=problem.y, batch_mean=written[0], batch_variance=written[1])
        arguments = structure(struct_size=ctypes.sizeof(structure), type=1, format=int(problem.is_channels_last),
                              rank=len(shape), shape=shape.ctypes.data,
                              **{name: structure.arrays[name](array.ctypes.data, array.size) for name, array in arrays.items()})
        pointers = ctypes.byref(options), ctypes.byref(arguments)

        def run(kept=(problem, options, arguments, arrays, shape)):  # the call knows their addresses only
            self.check(function(*pointers))

        return run, lambda: problem.y

    def copy(self, problem):
        to, source, size = (ctypes.c_void_p(problem.y.ctypes.data), ctypes.c_void_p(problem.x.ctypes.data),
                            ctypes.c_int64(problem.x.nbytes))
        return lambda: self.copies.batchnorm_bench_copy(self.copying_team, to, source, size)


class Candidate:
    def __init__(self, name, run):
        self.name, self.run, self.times, self.total = name, run, [], 0.0
        self.seconds_to_sleep = seconds_of_spinning(run)

    def turn(self):
        self.run()  # wakes its threads
        total = 0.0
        for i in range(5):
            begin = time.perf_counter()
            self.run()
            self.times.append(time.perf_counter() - begin)
            total += self.times[-1]
            if total > 0.1:
                break
        self.total += total
        time.sleep(self.seconds_to_sleep)

    def median(self):
        return statistics.median(self.times)

    def range(self, unit):
        """The 10th and the 90th percentile, as multiples of a time."""
        tenths = statistics.quantiles(self.times, n=10)
        return [tenths[0] / unit, tenths[8] / unit]

    def spread(self):
        low, high = self.range(self.median())
        return high - low


def seconds_of_spinning(run):
    """How long threads use the processor after a call, measured by what the process has used while it slept."""
    run()
    sleep, longest = 0.05, 0.0
    while sleep < 4:
        for _ in range(2):
            run()
            before = time.process_time()
            time.sleep(sleep)
            longest = max(longest, time.process_time() - before)
        if longest < 0.5 * sleep:
            break
        sleep *= 4
    return 1.25 * longest


def measure(problem, library, frameworks):
    """Copy, library and rivals by their medians; and the names of those whose result differs from the library's."""
    run, result = library.calls(problem)
    run()
    expected = result().copy()
    candidates = [Candidate("copy", library.copy(problem)), Candidate(library.name, run)]
    differing = []
    for framework in frameworks:
        try:
            calls = framework.calls(problem)
            if calls is None:
                continue
            candidates.append(Candidate(framework.name, calls[0]))
            calls[0]()
            error = np.abs(calls[1]() - expected).max()
        except Exception as problem_of_it:  # a framework that fails costs its column
            print(f"{framework.name}: {str(problem_of_it).splitlines()[0]}", file=sys.stderr)
            continue
        if not error <= 1e-3 * np.abs(expected).max():
            differing.append(framework.name)
    begin = time.perf_counter()
    while True:
        for candidate in candidates:
            candidate.turn()
        enough = all(len(c.times) >= 11 and (c.total > 0.3 or len(c.times) >= 100) for c in candidates)
        if enough or (time.perf_counter() - begin > 15 and all(len(c.times) >= 3 for c in candidates)):
            return candidates, differing


def row_of(problem, tensor_format, library, threads, candidates, differing):
    copy, own, *rivals = candidates
    tensors = 3 if problem.operation == "backward" else 2
    ratio = own.median() / copy.median()
    return {
        "shape": list(problem.shape), "operation": problem.operation, "format": tensor_format, "type": "float",
        "isa": library.isa, "threads": threads, "ratio_to_copy": ratio, "ratio_per_byte": ratio * 2 / tensors,
        "median_us": own.median() * 1e6, "copy_us": copy.median() * 1e6, "spread": own.spread(),
        "range": own.range(copy.median()),
        "GB_per_s": tensors * problem.x.nbytes * 1e-9 / own.median(),
        "rivals": {rival.name: rival.median() / copy.median() for rival in rivals},
        "rival_ranges": {rival.name: rival.range(copy.median()) for rival in rivals}, "rival_implementations": {},
        "rivals_that_differ": differing,
    }


def machine(library, frameworks):
    cpu = "unknown"
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            cpu = line.split(": ", 1)[1].strip()
            break
    revision = subprocess.run(["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
                              capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return {"cpu": cpu, "cores": os.cpu_count(), "library": library.name, "revision": revision, "isas": [library.isa],
            "rivals": [framework.name for framework in frameworks], "python": sys.version.split()[0],
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}


def load(frameworks, threads):
    for framework in frameworks:
        try:
            yield framework(threads)
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            print(f"left out {framework.__name__}: {str(error).splitlines()[0]}", file=sys.stderr)


def run(arguments, threads):
    library = Library(arguments.libraries, threads)
    frameworks = list(load(all_frameworks, threads))
    rows = []
    for text in arguments.shape or RESNET_50:
        shape = tuple(int(extent) for extent in text.split(","))
        for operation in arguments.operation or OPERATIONS:
            for tensor_format in arguments.format or ("NCHW", "NHWC"):
                problem = Problem(operation, tensor_format, shape)
                candidates, differing = measure(problem, library, frameworks)
                row = row_of(problem, tensor_format, library, threads, candidates, differing)
                rows.append(row)
                print(f'{text:<20} {operation:<10} {tensor_format} {threads} threads {row["median_us"]:12.1f} us  '
                      f'{row["ratio_to_copy"]:6.2f}  ' + "  ".join(f"{n} {r:.2f}" for n, r in row["rivals"].items()) +
                      "".join(f"  {name} DIFFERS" for name in differing), flush=True)
    if arguments.json:
        write_json(arguments.json, {"machine": machine(library, frameworks), "rows": rows})


if __name__ == "__main__":
    given = parse_arguments()
    if not given.threads:
        given.threads = [1, 2] if os.cpu_count() > 1 else [1]
    if len(given.threads) > 1:
        sys.exit(run_each_thread_count(given))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:given.threads[0]])
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc: M_MMAP_MAX 0, M_TRIM_THRESHOLD 1 GB, M_ARENA_MAX 1
        libc.mallopt(-4, 0), libc.mallopt(-1, 1 << 30), libc.mallopt(-8, 1)
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "rivals"))
    import numpy as np

    from frameworks import ALL as all_frameworks

    run(given, given.threads[0])
