#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# compiled_code_test.sh DIRECTORY: what keep.sh left there of each kernel and architecture, against the promises of the sources:
#
#   * registers and stack stay within budgets.txt, and blocks of as many threads as the kernel allows find their registers, as
#     many blocks as __launch_bounds__ wants on a multiprocessor;
#   * kernels that read a tensor read it in vectors of 16 bytes, those that write one write such vectors;
#   * where doubles are slow, no loop that reads such vectors has a double, unless the elements are doubles. A loop is what lies
#     between a label and a branch back to it.
#
# Vectors, loops and doubles are looked for in PTX, registers and stack in ptxas' report. Prints a line for each family of
# kernels.
set -euo pipefail
directory=$1
budgets=$(dirname "${BASH_SOURCE[0]}")/budgets.txt

# shellcheck disable=SC2016
program='
  function fail(text) {
    print "FAILED: " text
    failed = 1
  }
  # "SumPlanes<float,MomentStatistic<float>>" of "... kernel<batchnorm::cuda::SumPlanes<...> >(...".
  function kernel_of(line) {
    sub(/.*kernel</, "", line)
    sub(/>\(.*/, "", line)
    gsub(/batchnorm::cuda::| /, "", line)
    return line
  }
  function family_of(kernel) { sub(/<.*/, "", kernel); return kernel }
  function is_of_doubles(kernel) { return kernel ~ /^[A-Za-z]+<double[,>]/ }
  function larger(a, b) { return a > b ? a : b }

  FILENAME == budgets {
    sub(/#.*/, "")
    if (NF == 3) { most_registers[$1] = $2; most_stack[$1] = $3 }
    next
  }

  # The report of a kernel: its name and architecture, then numbers.
  /^ptxas info +: Compiling entry function/ {
    kernel = kernel_of($0)
    split($0, quoted, "\047")
    key = quoted[4] " " kernel
    reported[quoted[4]] = 1
  }
  /^ptxas info +: Function properties for/ && kernel_of($0) != kernel { fail("the report is in disorder at " key ": " $0) }
  /bytes stack frame/ {
    stack[key] = $1
    spills[key] = larger($5, $9)
  }
  /^ptxas info +: Used [0-9]+ registers/ { registers[key] = $5 }

  # PTX.
  /^\.target/ {
    architecture = $2
    sub(/,.*/, "", architecture)
    architectures = architectures " " architecture
  }
  /^(\.visible )?\.entry/ {
    key = architecture " " kernel_of($0)
    keys[key] = 1
    doubles = loads[key] = stores[key] = 0
    split("", loads_at); split("", doubles_at)
  }
  /^\.maxntid/ { threads[key] = $2 + 0 }
  /^\.minnctapersm/ { threads[key] *= larger($2 + 0, 1) }
  /^\$.*:$/ {
    label = substr($1, 1, length($1) - 1)
    loads_at[label] = loads[key]
    doubles_at[label] = doubles
  }
  /ld\.global(\.nc)?\.(v4\.[a-z]32|v2\.[a-z]64)/ { ++loads[key] }
  /st\.global\.(v4\.[a-z]32|v2\.[a-z]64)/ { ++stores[key] }
  /\.f64/ { ++doubles }
  /[ \t]bra/ {
    label = $NF
    sub(/;$/, "", label)
    if (label in loads_at && loads[key] > loads_at[label] && doubles > doubles_at[label]) doubles_in_loops[key] = 1
  }

  END {
    fast_doubles = "^sm_(60|70|80|90|100)a? "  # accelerator.cuh
    reads = "^(SumPlanes|SumRows|Sweep|ResidentPlanes|ResidentRows)$"
    writes = "^(Sweep|ResidentPlanes|ResidentRows)$"
    for (key in keys) {
      architecture = kernel = key
      sub(/ .*/, "", architecture)
      sub(/^[^ ]+ /, "", kernel)
      family = family_of(kernel)
      budget = kernel in most_registers ? kernel : family
      if (!(budget in most_registers)) { fail("budgets.txt has no line for " kernel); continue }
      if (threads[key] == 0) fail(key " has no bound of its threads")
      if (family ~ reads && loads[key] == 0) fail(key " does not load 16 bytes at once")
      if (family ~ writes && stores[key] == 0) fail(key " does not store 16 bytes at once")
      if (key !~ fast_doubles && !is_of_doubles(kernel) && key in doubles_in_loops) fail(key " has doubles in its loops")
      ++count[family]
      if (!(architecture in reported)) continue  # PTX alone
      if (!(key in registers) || !(key in stack)) { fail("ptxas did not report " key); continue }
      used = registers[key]
      if (used > most_registers[budget]) fail(key ": " used " registers, at most " most_registers[budget] " are expected")
      if (stack[key] > most_stack[budget]) fail(key ": " stack[key] " bytes of stack, " spills[key] " spilled")
      if (threads[key] * 8 * int((used + 7) / 8) > 65536) fail(key ": " threads[key] " threads at once of " used " registers")
      registers_of[family] = larger(registers_of[family] + 0, used)
      spills_of[family] = larger(spills_of[family] + 0, spills[key])
    }
    for (key in registers) if (!(key in keys)) fail("there is no PTX of " key)
    for (family in count) {
      printf "%-16s %3d kernels, at most %3d registers, %d bytes spilled\n", family, count[family], registers_of[family],
        spills_of[family] | "sort"
    }
    close("sort")
    if (architectures == "") fail("there is no code")
    print "for" architectures
    exit failed
  }'

for file in "$directory/report" "$directory"/*.ptx; do
  c++filt < "$file"
done | awk -v budgets="$budgets" "$program" "$budgets" -
