#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tables in Markdown of the rows that batchnorm_bench has written.

    bench/tables.py [--shapes | --rivals] FILE...

By default a table of classes of calls: for each class and number of threads the median ratio to the copy over its rows, and in
brackets the worst row. Fused forms are compared with the plain form of the same problem, time per byte moved. Goals are medians, for
1 thread and for more. Below the table stand the rows beyond 1.25 times the goal of their class.

--shapes   each shape, float: ratio to the copy with 1 thread / with more
--rivals   each shape, 1 thread, float: the ratio of the library, of its best rival in the same layout (bold: that is more than 5 %
           faster), and of rivals in a blocked layout of their own

Where files have the same case, the row of the last one counts.
"""

import argparse
import collections
import json
import math
import pathlib
import statistics

KB, MB = 1 << 10, 1 << 20
BYTES = {"float": 4, "double": 8, "half": 2, "bfloat16": 2}
PLAIN = {"training_relu": "training", "training_add_relu": "training", "inference_relu": "inference",
         "backward_relu": "backward", "backward_add_relu": "backward"}
# Class: (goal for 1 thread, goal for more)
GOALS = {
    "inference, x of 64 KB and more": (1.10, 1.10),
    "training NCHW, planes of 512 values or more, x above 4 MB": (1.40, 1.25),
    "training NCHW, smaller planes, N >= 8, x above 4 MB": (1.70, 1.40),
    "training, x of 256 KB to 4 MB": (1.6, 1.4),
    "training NHWC and matrices, x above 4 MB": (1.80, 1.65),
    "backward NCHW, planes of 512 values or more, x above 4 MB": (2.0, 1.9),
    "backward NCHW, smaller planes, x above 4 MB": (2.4, 2.0),
    "backward, x of 256 KB to 4 MB": (2.6, 2.3),
    "backward NHWC and matrices, x above 4 MB": (3.0, 2.9),
    "half and bfloat16, inference": (1.15, 1.15),
    "half and bfloat16, training": (1.9, 1.9),
    "half and bfloat16, backward": (2.8, 2.8),
    "fused forms, by the plain form": (1.1, 1.1),
    "one image with planes of 49 values, training": (1.8, 1.8),
    "one image with planes of 49 values, backward": (2.6, 2.6),
}
SLACK = 1.25  # of a single row


def class_of(row):
    """The class of a row that is no fused form; None where it has none."""
    operation, shape = row["operation"], row["shape"]
    if operation not in ("inference", "training", "backward"):
        return None
    size = math.prod(shape) * BYTES[row["type"]]
    plane = math.prod(shape[2:])
    is_rows = row["format"] == "NHWC" or len(shape) == 2
    if size < (64 * KB if operation == "inference" else 256 * KB):
        return None
    if BYTES[row["type"]] == 2:
        return f"half and bfloat16, {operation}"
    if operation == "inference":
        return "inference, x of 64 KB and more"
    if shape[0] == 1 and plane == 49:
        return f"one image with planes of 49 values, {operation}"
    if size <= 4 * MB:
        return f"{operation}, x of 256 KB to 4 MB"
    if is_rows:
        return f"{operation} NHWC and matrices, x above 4 MB"
    if plane >= 512:
        return f"{operation} NCHW, planes of 512 values or more, x above 4 MB"
    if operation == "training":
        return "training NCHW, smaller planes, N >= 8, x above 4 MB" if shape[0] >= 8 else None
    return "backward NCHW, smaller planes, x above 4 MB"


def key_of(row, operation):
    return tuple(row["shape"]), operation, row["format"], row["type"], row["isa"], row["threads"]


def ratios_by_class(rows):
    """{(class, threads): [(ratio, row)]}"""
    by_key = {key_of(row, row["operation"]): row for row in rows}
    classes = collections.defaultdict(list)
    for row in by_key.values():
        plain = by_key.get(key_of(row, PLAIN.get(row["operation"])))
        if plain is not None:
            classes["fused forms, by the plain form", row["threads"]].append(
                (row["ratio_per_byte"] / plain["ratio_per_byte"], row))
        name = class_of(row)
        if name is not None:
            classes[name, row["threads"]].append((row["ratio_to_copy"], row))
    return classes


def name_of(row):
    shape = ",".join(map(str, row["shape"]))
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"{shape} {row['operation']} {row['format']} {row['type']}, {threads}"


def classes_of(rows):
    classes = ratios_by_class(rows)
    threads = sorted({count for _, count in classes})
    heads = ["1 thread" if count == 1 else f"{count} threads" for count in threads]
    lines = ["| class | rows | goal | " + " | ".join(heads) + " |", "|---" * (3 + len(heads)) + "|"]
    beyond = []
    for name, goals in GOALS.items():
        found = [classes.get((name, count), []) for count in threads]
        if not any(found):
            continue
        cells = []
        for count, ratios in zip(threads, found):
            goal = goals[0] if count == 1 else goals[1]
            median = statistics.median(ratio for ratio, _ in ratios) if ratios else None
            worst = max((ratio for ratio, _ in ratios), default=None)
            cells.append("" if median is None else f"{median:.2f} ({worst:.2f})")
            beyond += [(ratio / goal, ratio, goal, row) for ratio, row in ratios if ratio > SLACK * goal]
        goal = f"{goals[0 if threads == [1] else 1]:.2f}" if len(threads) == 1 else f"{goals[0]:.2f} / {goals[1]:.2f}"
        lines.append(f"| {name} | {max(map(len, found))} | {goal} | " + " | ".join(cells) + " |")
    total = sum(map(len, classes.values()))
    lines += ["", f"Beyond {SLACK} times their goal: {len(beyond)} of {total} rows" + (":" if beyond else "."), ""]
    for _, ratio, goal, row in sorted(beyond, key=lambda entry: -entry[0]):
        lines.append(f"* {name_of(row)}: {ratio:.2f}, goal {goal:.2f}")
    return "\n".join(lines).rstrip()


OPERATIONS = ("training", "inference", "backward")
LAYOUTS = ("NCHW", "NHWC")


def float_rows(rows):
    """{shape: {(operation, format): {threads: row}}}"""
    result = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row in rows:
        if row["type"] == "float":
            result[tuple(row["shape"])][row["operation"], row["format"]][row["threads"]] = row
    return result


def shapes_of(rows):
    cases = [(operation, layout) for operation in OPERATIONS for layout in LAYOUTS]
    lines = ["| N, C, ... | " + " | ".join(" ".join(case) for case in cases) + " |", "|---" * (1 + len(cases)) + "|"]
    for shape, found in float_rows(rows).items():
        cells = [" / ".join(f"{row['ratio_to_copy']:.2f}" for _, row in sorted(found[case].items())) for case in cases]
        lines.append(f"| {', '.join(map(str, shape))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def best_of(rivals, is_blocked):
    return min(((ratio, name) for name, ratio in rivals.items() if ("blocked" in name) == is_blocked), default=None)


def rivals_of(rows):
    heads = " | ".join(f"{layout} | same layout | blocked" for layout in LAYOUTS)
    lines = []
    for operation in OPERATIONS:
        lines += [f"| {operation} | {heads} |", "|---" * (1 + 3 * len(LAYOUTS)) + "|"]
        columns = [[] for _ in range(3 * len(LAYOUTS))]  # for the medians
        for shape, found in float_rows(rows).items():
            cells = []
            for layout in LAYOUTS:
                row = found[operation, layout].get(1)
                if row is None or not row["rivals"]:
                    cells += ["", "", ""]
                    continue
                ours = row["ratio_to_copy"]
                plain, blocked = (best_of(row["rivals"], is_blocked) for is_blocked in (False, True))
                lost = plain is not None and ours > 1.05 * plain[0]
                text = f"**{ours:.2f}**" if lost else f"{ours:.2f}"
                columns[len(cells)].append(ours)
                for place, best in ((1, plain), (2, blocked)):
                    columns[len(cells) + place] += [best[0]] if best else []
                cells += [text, f"{plain[0]:.2f} {plain[1]}" if plain else "", f"{blocked[0]:.2f}" if blocked else ""]
            lines.append(f"| {', '.join(map(str, shape))} | " + " | ".join(cells) + " |")
        medians = [f"{statistics.median(column):.2f}" if column else "" for column in columns]
        lines += ["| median | " + " | ".join(medians) + " |", ""]
    return "\n".join(lines).rstrip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--shapes", action="store_const", dest="table", const=shapes_of, default=classes_of)
    kind.add_argument("--rivals", action="store_const", dest="table", const=rivals_of)
    parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    rows = []
    for file in arguments.files:
        rows += json.loads(file.read_text())["rows"]
    print(arguments.table(rows))


if __name__ == "__main__":
    main()
