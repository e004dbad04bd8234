# SPDX-License-Identifier: MIT
"""Tests of bench/tables.py, with rows made up."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import tables  # noqa: E402


def row(shape, operation, ratio, layout="NCHW", element="float", threads=1):
    return {"shape": shape, "operation": operation, "format": layout, "type": element, "isa": "baseline", "threads": threads,
            "ratio_to_copy": ratio, "ratio_per_byte": ratio, "rivals": {}}


class TablesTest(unittest.TestCase):

    def test_every_row_has_the_class_of_its_shape(self):
        for expected, shape, operation, layout, element in [
            ("inference, x of 64 KB and more", [1, 64, 16, 16], "inference", "NHWC", "float"),
            (None, [1, 63, 16, 16], "inference", "NHWC", "float"),
            (None, [16, 512], "training", "NHWC", "float"),
            ("training, x of 256 KB to 4 MB", [4, 256, 1024], "training", "NHWC", "float"),
            ("training NCHW, planes of 512 values or more, x above 4 MB", [4, 257, 1024], "training", "NCHW", "float"),
            ("training NHWC and matrices, x above 4 MB", [4, 257, 1024], "training", "NHWC", "float"),
            ("training NCHW, smaller planes, N >= 8, x above 4 MB", [8, 512, 511], "training", "NCHW", "float"),
            (None, [7, 1024, 511], "training", "NCHW", "float"),
            ("backward NCHW, smaller planes, x above 4 MB", [7, 1024, 511], "backward", "NCHW", "float"),
            ("backward NHWC and matrices, x above 4 MB", [65536, 32], "backward", "NCHW", "float"),
            ("one image with planes of 49 values, backward", [1, 2048, 7, 7], "backward", "NHWC", "float"),
            ("half and bfloat16, training", [1, 2048, 8, 8], "training", "NHWC", "half"),
        ]:
            with self.subTest(shape=shape, operation=operation):
                self.assertEqual(tables.class_of(row(shape, operation, 1, layout, element)), expected)

    def test_every_class_has_a_goal(self):
        for operation in ("inference", "training", "backward"):
            for shape in ([32, 64, 56, 56], [32, 64, 7, 7], [32, 1024, 7, 7], [1, 2048, 7, 7], [65536, 64], [2, 64, 7, 7]):
                for layout in ("NCHW", "NHWC"):
                    for element in tables.BYTES:
                        name = tables.class_of(row(shape, operation, 1, layout, element))
                        self.assertTrue(name is None or name in tables.GOALS, name)

    def test_the_table_has_medians_the_worst_row_and_the_rows_beyond_their_goal(self):
        rows = [row([32, 64, 56, 56], "inference", ratio, layout, threads=threads)
                for threads, ratios in ((1, (1.0, 1.5)), (2, (0.9, 1.1))) for layout, ratio in zip(("NCHW", "NHWC"), ratios)]
        table = tables.classes_of(rows)
        self.assertIn("| inference, x of 64 KB and more | 2 | 1.10 / 1.10 | 1.25 (1.50) | 1.00 (1.10) |", table)
        self.assertIn("Beyond 1.25 times their goal: 1 of 4 rows:", table)
        self.assertTrue(table.endswith("* 32,64,56,56 inference NHWC float, 1 thread: 1.50, goal 1.10"))

    def test_rows_of_several_threads_alone_show_their_goal(self):
        table = tables.classes_of([row([4, 257, 1024], "training", 1.2, threads=4)])
        self.assertIn("| 1 | 1.25 | 1.20 (1.20) |", table)

    def test_a_fused_form_is_compared_with_the_plain_one(self):
        table = tables.classes_of([row([32, 64, 56, 56], "training", 1.2), row([32, 64, 56, 56], "training_relu", 1.5),
                                  row([32, 64, 7, 7], "training_relu", 1.5)])
        self.assertIn("| fused forms, by the plain form | 1 | 1.10 | 1.25 (1.25) |", table)

    def test_a_later_row_of_the_same_problem_replaces_the_first(self):
        table = tables.classes_of([row([32, 64, 56, 56], "inference", 3.0), row([32, 64, 56, 56], "inference", 1.0)])
        self.assertIn("| 1 | 1.10 | 1.00 (1.00) |", table)

    def test_shapes_have_both_numbers_of_threads_side_by_side(self):
        table = tables.shapes_of([row([32, 64, 7, 7], "training", 1.5, threads=2), row([32, 64, 7, 7], "training", 2.0),
                                  row([16, 512], "backward", 3.0, "NHWC"), row([1, 2], "training", 9.0, element="half")])
        self.assertIn("| 32, 64, 7, 7 | 2.00 / 1.50 |  |  |  |  |  |", table)
        self.assertIn("| 16, 512 |  |  |  |  |  | 3.00 |", table)
        self.assertNotIn("9.00", table)

    def test_a_rival_in_the_same_layout_that_is_more_than_5_percent_faster_makes_our_number_bold(self):
        rows = [dict(row([8, size], "training", 1.06), rivals={"slow": 2.0, "fast": best, "x blocked": 0.5})
                for size, best in ((1, 1.0), (2, 1.02))]
        table = tables.rivals_of(rows)
        self.assertIn("| 8, 1 | **1.06** | 1.00 fast | 0.50 |  |  |  |", table)
        self.assertIn("| 8, 2 | 1.06 | 1.02 fast | 0.50 |  |  |  |", table)
        self.assertIn("| median | 1.06 | 1.01 | 0.50 |  |  |  |", table)

    def test_without_rivals_there_is_no_number(self):
        self.assertIn("| 8, 1 |  |  |  |  |  |  |", tables.rivals_of([row([8, 1], "training", 1.0)]))


if __name__ == "__main__":
    unittest.main()
