#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests the installed package batchnorm_torch against PyTorch's own batch normalization:

    python3 examples/pytorch/test_batchnorm_torch.py [name...]

runs the tests of tests/, or those of the files or classes or methods named: test_edges, test_edges.Edges.test_no_channels.
The exit status is 0 if all pass, 1 if one fails, 77 if torch, numpy or batchnorm_torch is not installed.
"""

import importlib.util
import pathlib
import sys
import unittest

SKIPPED = 77
TESTS = pathlib.Path(__file__).resolve().parent / "tests"


def main(names):
    for package in ("torch", "numpy", "batchnorm_torch"):
        if importlib.util.find_spec(package) is None:
            print(f"skipped: not installed ({package})")
            return SKIPPED
    sys.path.insert(0, str(TESTS))
    sys.dont_write_bytecode = True
    loader = unittest.TestLoader()
    suite = loader.loadTestsFromNames(names) if names else loader.discover(str(TESTS))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    bad = {getattr(test, "test_case", test).id() for test, _ in (*result.failures, *result.errors)}
    print(f"{result.testsRun - len(bad) - len(result.skipped)} passed, {len(result.skipped)} skipped, {len(bad)} failed")
    return 0 if result.wasSuccessful() and result.testsRun > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
