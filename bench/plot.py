#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the rows of batchnorm_bench and rivals.py, with gnuplot.

    bench/plot.py --out FOLDER [--shapes FILE...] [--sizes FILE...] [--threads FILE...]

--shapes   ratio to the copy for each shape, of the library and its rivals: shapes_OPERATION_FORMAT_TYPE_THREADS.png. Files are
           laid over each other: rivals of one run join the rows of another.
--sizes    ratio against the size of x: sizes_TYPE.png of the library, sizes_OPERATION_FORMAT_TYPE_THREADS.png with rivals
--threads  ratio against the number of threads: threads_TYPE.png

A bar reaches from the 10th to the 90th percentile of a time. An asterisk marks a shape where the library or a rival varied by
more than 30 % of its median.
"""

import argparse
import itertools
import json
import math
import pathlib
import subprocess
import sys

BYTES = {"float": 4, "double": 8, "half": 2, "bfloat16": 2}
OURS = "batchnorm"
# Colours that stay apart for the colour-blind too, and a point type each; the first that begins like the name is taken.
LOOKS = (
    (OURS, "#d62728", 7), ("naive", "#8c8c8c", 1), ("Eigen", "#8c564b", 2), ("PyTorch", "#ff7f0e", 5), ("ONNX", "#9467bd", 9),
    ("JAX", "#e377c2", 11), ("MindSpore", "#17becf", 13), ("blocked", "#2ca02c", 4), ("oneDNN", "#1f4e9c", 8),
)
SPARE_LOOKS = (("#bcbd22", 10), ("#000000", 12), ("#66a61e", 6))
LAYOUTS = {"NCHW": (1, 7), "NHWC": (2, 6)}  # dash and point
LINES = ("#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#000000")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where to put the pictures")
    for kind in ("shapes", "sizes", "threads"):
        parser.add_argument("--" + kind, nargs="+", type=pathlib.Path, default=[], metavar="FILE")
    return parser.parse_args()


def read(files):
    """The machine of the first file and the rows of all, one for each case."""
    machine, rows = {}, {}
    for file in files:
        whole = json.loads(file.read_text())
        machine = machine or whole["machine"]
        for row in whole["rows"]:
            row["shape"] = tuple(row["shape"])
            key = row["shape"], row["operation"], row["format"], row["type"], row["threads"]
            if key in rows:
                for part in ("rivals", "rival_ranges"):
                    rows[key][part] = {**rows[key].get(part, {}), **row.get(part, {})}
            else:
                rows[key] = row
    return machine, list(rows.values())


def grouped(rows, *names):
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups.items()


def look_of(name, unknown):
    for part, colour, point in LOOKS:
        if name.startswith(part) or (part == "blocked" and part in name):
            return colour, point
    return SPARE_LOOKS[unknown % len(SPARE_LOOKS)]


def names_of(rows):
    """The library and all rivals, in the order in which they appear."""
    names = {OURS: None}
    for row in rows:
        names.update(dict.fromkeys(row["rivals"]))
    return list(names)


def ratio_of(row, name):
    return row["ratio_to_copy"] if name == OURS else row["rivals"].get(name)


def range_of(row, name):
    """From the 10th to the 90th percentile; files from before these were kept have none."""
    ratio = ratio_of(row, name)
    return (row.get("range") if name == OURS else row.get("rival_ranges", {}).get(name)) or [ratio, ratio]


def varies(row, name):
    low, high = range_of(row, name)
    spread = (high - low) / ratio_of(row, name)
    return max(spread, row["spread"] if name == OURS else 0) > 0.3


def explained(rows):
    """What bars and asterisks say, where rows have them."""
    bars = "; bars: 10 to 90 %" if any(row.get("range") for row in rows) else ""
    return bars + "; *: 10 to 90 % are apart by more than 30 %"


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def block(name, points):
    """Inline data; gnuplot's columns are the members of each point."""
    return f"${name} << END\n" + "\n".join(" ".join(map(str, point)) for point in points) + "\nEND\n"


def threads_text(threads):
    return "1 thread" if threads == 1 else f"{threads} threads"


def under(machine):
    return "; ".join(str(machine[key]) for key in ("cpu", "library", "revision", "compiler", "date") if machine.get(key))


def ratio_ticks(axis, rows_ratios):
    """A logarithmic axis from below to above all ratios, with a 1, 2, 5 and what is between where it is short."""
    low, high = min(0.9, *rows_ratios) * 0.92, max(1.6, *rows_ratios) * 1.1
    steps = (1, 1.5, 2, 3, 4, 5, 7) if high / low < 100 else (1, 2, 5)
    ticks = [step * 10.0 ** power for power in range(-3, 5) for step in steps]
    labels = ", ".join(f"'{tick:g}' {tick:g}" for tick in ticks if low <= tick <= high)
    return f"set logscale {axis}\nset {axis}range [{low:g}:{high:g}]\nset {axis}tics ({labels})\nunset m{axis}tics\n"


def start(file, width, height, title, machine):
    return (f"set terminal pngcairo size {width}, {height} font ',12' background '#ffffff'\n"
            f"set output {quoted(str(file))}\nset encoding utf8\nset border linecolor '#808080'\n"
            "set grid linetype 1 linecolor '#e0e0e0'\nset tics nomirror textcolor '#000000'\n"
            f"titles = {quoted(title)}\nfooter = {quoted(under(machine))}\n")


def draw(script, file):
    subprocess.run(["gnuplot"], input=script, text=True, check=True)
    print(file)


def draw_shapes(machine, rows, out):
    for (operation, layout, kind, threads), group in grouped(rows, "operation", "format", "type", "threads"):
        names = names_of(group)
        file = out / f"shapes_{operation}_{layout}_{kind}_{threads}.png"
        script = start(file, 1150, 170 + 26 * len(group) + 6 * len(names), "", machine)
        script += ratio_ticks("x", [end for row in group for name in names if ratio_of(row, name) for end in range_of(row, name)])
        marks = ["* " if any(ratio_of(row, name) and varies(row, name) for name in names) else "" for row in group]
        ticks = ", ".join(f"'{mark}{', '.join(map(str, row['shape']))}' {i}" for i, (mark, row) in enumerate(zip(marks, group)))
        script += (f"set title \"{operation.replace('_', ' + ')}, {layout}, {kind}, {threads_text(threads)}: "
                   "time as a multiple of a copy's\\n{/*0.8 \".footer.\"}\"\n")
        script += (f"set yrange [{len(group) - 0.4}:-0.6]\nset ytics ({ticks})\nset ylabel 'N, C, spatial extents'\n"
                   f"set xlabel 'ratio to a non-temporal copy of x, same threads (logarithmic; left is faster){explained(group)}'\n"
                   "set key outside right top Left reverse samplen 1 spacing 1.25\n"
                   "set arrow from 1, graph 0 to 1, graph 1 nohead linewidth 1.5 linecolor '#000000' dashtype 2\n")
        plots = []
        for i, name in enumerate(names):
            points = [(ratio, y, *range_of(row, name)) for y, row in enumerate(group) if (ratio := ratio_of(row, name))]
            script += block(f"data{i}", points)
            colour, point = look_of(name, i)
            size = 2 if name == OURS else 1.1  # it lies below the others, so that a tie shows both
            plots.append(f"$data{i} using 1:2 with points pointtype {point} pointsize {size} linewidth 1.6 "
                         f"linecolor '{colour}' title {quoted(name)}")
            if any(low < high for _, _, low, high in points):
                plots.append(f"$data{i} using 1:2:3:4 with xerrorbars pointtype 0 linecolor '{colour}' notitle")
        draw(script + "plot " + ", ".join(plots) + "\n", file)


def bytes_of(row):
    return math.prod(row["shape"]) * BYTES[row["type"]]


def cache_lines(machine, rows):
    """Where x and y together fill a cache."""
    sizes = [bytes_of(row) for row in rows]
    for name, cache in machine.get("caches", {}).items():
        x = cache["bytes"] / 2
        if min(sizes) < x < max(sizes):
            yield (f"set arrow from {x}, graph 0 to {x}, graph 1 nohead dashtype 3 linecolor '#606060'\n"
                   f"set label 'x + y = {name}' at {x}, graph 1.03 center textcolor '#606060' font ',9'\n")


def size_axis(machine, rows):
    sizes = [bytes_of(row) for row in rows]
    ticks = [(f"{2 ** (p % 10)} {'KB' if p < 20 else 'MB' if p < 30 else 'GB'}", 2 ** p) for p in range(10, 37, 2)]
    labels = ", ".join(f"'{text}' {size}" for text, size in ticks)
    return (f"set logscale x 2\nset xrange [{min(sizes) * 0.8}:{max(sizes) * 1.25}]\nset xtics ({labels}) rotate by 35 right\n"
            "set xlabel 'size of x (logarithmic)'\n" + "".join(cache_lines(machine, rows)))


def line_plot(i, title, colour, dash, point=7):
    return (f"$data{i} using 1:2 with linespoints linewidth 2 pointtype {point} pointsize 0.8 dashtype {dash} "
            f"linecolor '{colour}' title {quoted(title)}")


def draw_sizes(machine, rows, out):
    for (kind,), of_kind in grouped(rows, "type"):
        file = out / f"sizes_{kind}.png"
        script = start(file, 1300, 640, "", machine)
        script += ratio_ticks("y", [row["ratio_to_copy"] for row in of_kind]) + size_axis(machine, of_kind)
        script += ("set ylabel 'ratio to a non-temporal copy of x (logarithmic)'\nset multiplot layout 1, 2 title "
                   f"\"Time as a multiple of a copy's against the size of the tensor, {kind}\\n{{/*0.75 \".footer.\"}}\"\n"
                   "set key below center horizontal samplen 2.5 maxrows 2\nset bmargin 9\n")
        for layout in LAYOUTS:
            lines = list(grouped([row for row in of_kind if row["format"] == layout], "operation", "threads"))
            plots = []
            operations = list(dict.fromkeys(operation for (operation, _), _ in lines))
            counts = sorted({threads for (_, threads), _ in lines})
            for i, ((operation, threads), line) in enumerate(lines):
                script += block(f"data{i}", sorted((bytes_of(row), row["ratio_to_copy"]) for row in line))
                plots.append(line_plot(i, f"{operation}, {threads_text(threads)}", LINES[operations.index(operation) % 8],
                                       1 + counts.index(threads) % 5, 7 if threads == 1 else 6))
            if plots:
                script += f"set title 'C = 64, {layout}' offset 0, 0.6\nplot " + ", ".join(plots) + "\n"
        draw(script + "unset multiplot\n", file)
    for (operation, layout, kind, threads), group in grouped(rows, "operation", "format", "type", "threads"):
        names = names_of(group)
        if len(names) > 1:
            draw_sizes_of_rivals(machine, group, names, out / f"sizes_{operation}_{layout}_{kind}_{threads}.png",
                                 f"{operation.replace('_', ' + ')}, {layout}, {kind}, {threads_text(threads)}")


def draw_sizes_of_rivals(machine, group, names, file, title):
    script = start(file, 1100, 620, title, machine)
    script += ratio_ticks("y", [ratio for row in group for name in names if (ratio := ratio_of(row, name))])
    script += size_axis(machine, group)
    script += ("set ylabel 'ratio to a non-temporal copy of x (logarithmic)'\n"
               "set key outside right top Left reverse samplen 2\n"
               "set title titles.\": time as a multiple of a copy's\\n{/*0.8 \".footer.\"}\" offset 0, 0.6\n")
    plots = []
    for i, name in enumerate(names):
        colour, point = look_of(name, i)
        script += block(f"data{i}", sorted((bytes_of(row), ratio) for row in group if (ratio := ratio_of(row, name))))
        plots.append(line_plot(i, name, colour, 1, point))
    draw(script + "plot " + ", ".join(plots) + "\n", file)


def draw_threads(machine, rows, out):
    for (kind,), of_kind in grouped(rows, "type"):
        counts = sorted({row["threads"] for row in of_kind})
        if len(counts) < 2:
            continue
        file = out / f"threads_{kind}.png"
        operations = list(dict.fromkeys(row["operation"] for row in of_kind))
        shapes = list(dict.fromkeys(row["shape"] for row in of_kind))
        script = start(file, 400 * len(operations) + 300, 560, "", machine)
        script += ratio_ticks("y", [row["ratio_to_copy"] for row in of_kind])
        ticks = ", ".join(map(str, counts))
        script += (f"set logscale x 2\nset xrange [{counts[0] * 0.85}:{counts[-1] * 1.18}]\nset xtics ({ticks})\n"
                   "set xlabel 'threads, of both'\nset ylabel 'ratio to a copy with as many threads (logarithmic)'\n"
                   f"set multiplot layout 1, {len(operations) + 1} title "
                   f"\"Time as a multiple of a copy's against threads, {kind}"
                   "\\n{/*0.75 \".footer.\"}\"\nunset key\n")
        for operation in operations:
            plots = []
            for i, (shape, layout) in enumerate(itertools.product(shapes, LAYOUTS)):
                points = sorted((row["threads"], row["ratio_to_copy"]) for row in of_kind
                                if (row["operation"], row["shape"], row["format"]) == (operation, shape, layout))
                if points:
                    script += block(f"data{i}", points)
                    plots.append(line_plot(i, "", LINES[i // 2 % 8], *LAYOUTS[layout]))
            script += f"set title {quoted(operation)}\nplot " + ", ".join(plots) + "\n"
        draw(script + legend(shapes) + "unset multiplot\n", file)


def legend(shapes):
    """A panel that only explains the lines of the others."""
    entries = [(", ".join(map(str, shape)), LINES[i % 8], 1, 7) for i, shape in enumerate(shapes)]
    entries += [(layout, "#000000", *look) for layout, look in LAYOUTS.items()]
    lines = (f"NaN with linespoints linewidth 2 pointsize 0.8 linecolor '{colour}' dashtype {dash} pointtype {point} "
             f"title {quoted(title)}" for title, colour, dash, point in entries)
    return ("unset border\nunset tics\nunset xlabel\nunset ylabel\nunset title\nunset logscale\nset yrange [0:1]\n"
            "set key center left Left reverse samplen 3 spacing 1.4\nplot " + ", ".join(lines) + "\n")


def main():
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for files, function in ((arguments.shapes, draw_shapes), (arguments.sizes, draw_sizes), (arguments.threads, draw_threads)):
        if files:
            function(*read(files), arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
