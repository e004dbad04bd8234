#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""batchnorm_mindspore against MindSpore's own operator, MindSpore's golden cases, and the formula where MindSpore is wrong.

    BATCHNORM_MINDSPORE_LIBRARY=build/lib/libbatchnorm_mindspore.so examples/mindspore/test_batchnorm_mindspore.py

Prints, for each part, how many cases are equal, and what MindSpore gives where it is wrong. Exit status 1 if a case is not
equal, 77 and "skipped: not installed" where MindSpore or the library is missing.
"""

import itertools
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("GLOG_v", "4")
try:
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor, ops

    import batchnorm_mindspore as ours
except (ImportError, OSError) as error:
    print(f"skipped: not installed ({error})")
    sys.exit(77)

import wrong_in_the_original
from cases import (NAMES, Call, Part, array, compared, double_gradients, double_gradients_of_statistics, gradients,
                   network_step)

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "golden"
# For its own gradient the original keeps the statistics of float16 parameters in float32. Ours come from the reserve spaces,
# which are float16: off by 2^-11, and so is each of the few terms that they enter.
ROUNDED_STATISTICS = 5 * 2.0**-11

MODES = {"PyNative": ms.PYNATIVE_MODE, "graph": ms.GRAPH_MODE}


def kinds():
    """Shapes, types and modes of training where the original is right: NCHW, ranks 2 to 4, more than one value."""
    types = (np.float32, np.float16)
    for shape in ((7, 5), (4, 3, 9), (3, 6, 5, 4), (2, 17, 7, 7)):
        for x_type, parameter_type in itertools.product(types, types):
            for is_training in (True, False):
                name = f"{shape} {np.dtype(x_type)} with {np.dtype(parameter_type)}"
                name += " training" if is_training else " inference"
                yield name, Call(shape, 1, x_type, parameter_type), is_training


def against_the_original(mode):
    forward = Part(f"forward against ops.BatchNorm, {mode} mode")
    once = Part(f"gradient against ops.BatchNorm, {mode} mode")
    twice = Part(f"double gradient against ops.BatchNorm, {mode} mode")
    for name, call, is_training in kinds():
        mine, original = ours.BatchNorm(is_training), ops.BatchNorm(is_training)
        # What the original writes: y; in training the reserve spaces, and the running statistics of float32.
        right = [0]
        if is_training:
            right += [3, 4]
        if call.scale.dtype == np.float32 or not is_training:
            right += [5, 6]
        got, want = call.run(mine), call.run(original)
        got_statistics = got[3:5]
        forward.case(name, compared([NAMES[i] for i in right], [got[i] for i in right], [want[i] for i in right]))
        relative = ROUNDED_STATISTICS if call.scale.dtype == np.float16 else None
        once.case(name, compared(("dx", "dscale", "dbias"), gradients(mine, call), gradients(original, call), relative))
        got = double_gradients(mine, call)
        twice.case(name, compared(("dx", "dscale", "ddy"), got, double_gradients_of_statistics(
            call, is_training, *got_statistics)))
        if mode == "graph":
            want = double_gradients(original, call)
            twice.case(name + ", automatic", compared(("dx", "dscale", "ddy"), got, want, relative))
    for part in (forward, once, twice):
        part.close()
    part = Part(f"networks with Parameters, value_and_grad, {mode} mode")
    for is_training in (True, False):
        call = Call((6, 5, 4, 3))
        part.case("training" if is_training else "inference",
                  compared(("y", "mean before", "mean after", "loss", "dgamma", "dbeta", "mean", "variance"),
                           network_step(ours.BatchNorm(is_training), call),
                           network_step(ops.BatchNorm(is_training), call), 5e-6))
    part.close()


# ---- golden cases


def read_golden(folder):
    case = {"inputs": {}, "attributes": {}, "expected": {}, "training": False}
    for line in (folder / "case.txt").read_text().splitlines():
        kind, name, *rest = line.split(" ")
        if kind == "command":
            case["command"] = name
        elif kind == "input":
            case["inputs"][name] = np.load(folder / rest[0])
        elif kind == "attribute":
            case["attributes"][name] = rest[0]
        elif kind == "flag" and name == "training":
            case["training"] = True
        elif kind == "expected":
            case["expected"][name] = (np.load(folder / rest[0]), float(rest[1]), float(rest[2]))
    return case


def run_golden(case):
    """The case's arrays by name."""
    given = {name: Tensor(value) for name, value in case["inputs"].items()}
    attributes = {"is_training": case["training"], "epsilon": float(case["attributes"]["epsilon"]),
                  "data_format": case["attributes"]["format"]}
    if case["command"] == "backward":
        operator, inputs, outputs = ours.BatchNormGrad(**attributes), ("dy", "x", "scale", "mean", "variance"), (
            "dx", "dscale", "dbias")
    elif case["command"] == "double-backward":
        operator, inputs, outputs = ours.BatchNormGradGrad(**attributes), (
            "x", "dy", "scale", "mean", "variance", "ddx", "ddscale", "ddbias"), ("dx", "ddy", "dscale")
    else:
        operator, inputs, outputs = ours.BatchNorm(momentum=float(case["attributes"].get("momentum", 0.1)), **attributes), (
            "x", "scale", "bias", "mean", "variance"), NAMES[:5]
    result = dict(zip(outputs, operator(*(given[name] for name in inputs))))
    if case["command"] == "forward":
        result.update(mean=given["mean"], variance=given["variance"])
    return {name: array(value) for name, value in result.items()}


def golden(mode):
    part = Part(f"golden cases of MindSpore, {mode} mode")
    for folder in sorted(GOLDEN.glob("mindspore_*")):
        case = read_golden(folder)
        result = run_golden(case)
        problems = []
        for name, (want, relative, absolute) in case["expected"].items():
            got = result[name]
            with np.errstate(invalid="ignore"):
                right = (got == want) | (np.isnan(got) & np.isnan(want)) | (
                    np.abs(got.astype(np.float64) - want.astype(np.float64)) <= absolute + relative * np.abs(
                        want.astype(np.float64)))
            if got.dtype != want.dtype or got.shape != want.shape or not right.all():
                problems.append(f"{name} is {got.dtype} {got.ravel()[:4]}, expected {want.dtype} {want.ravel()[:4]}")
        part.case(folder.name, problems)
    if part.total == 0:
        part.case(str(GOLDEN), ["there are none"])
    part.close()


def main():
    print(f"MindSpore {ms.__version__}")
    with tempfile.TemporaryDirectory() as folder:  # MindSpore leaves files where it works
        os.chdir(folder)
        for name, mode in MODES.items():
            ms.set_context(mode=mode)
            against_the_original(name)
            golden(name)
            wrong_in_the_original.run(name)
        os.chdir("/")
    equal, total = (sum(getattr(part, what) for part in Part.parts) for what in ("equal", "total"))
    print(f"all: {equal} of {total} equal")
    return 0 if equal == total else 1


if __name__ == "__main__":
    sys.exit(main())
