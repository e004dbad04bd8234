#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
set -euo pipefail
export LC_ALL=C CCACHE_DISABLE=1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
programs=$root/bench/compile_cost

usage() {
  cat << 'END'
Usage: bench/compile_cost.sh [option...]

Measures what the library costs to compile: the processor time of the programs in bench/compile_cost, in units of the time of
#include <Eigen/Core>, by the same compiler in the same run, and the code that one training call adds to a program.

  --compiler COMPILER  g++ or clang++, also with a path; may be repeated. Default: both, where they are installed
  --repetitions N      compiles each program N times, in turns, and takes the median; default 3
  --include OPTION     where Eigen is, as an option of the compiler; may be repeated. Default: -isystem/usr/include/eigen3
  --output FILE        also writes the table there, separated by tabs
  --check              exits with status 1 if a row is more than a quarter above the larger of "must" and "today", also after
                       two repetitions more: the machine may be busy; or if GCC expands an operation on vectors lane by lane
  --help               this text

The table: "must" is the goal, "today" the level to hold until the goal is reached; "exceeded" marks a value above "must". Lower
"today", in the table of this script, whenever a program has become cheaper to compile.
END
}

# Each row: name, program, options, quantity (units of time, or KB of code), must, today with GCC, today with Clang.
rows=(
  'umbrella header|umbrella||units|1.6|2.4|2.2'
  'one training call|training||units|3.5|7.5|5.4'
  'training, inference, backward|passes||units|8|14|10.3'
  'the same, kernels compiled apart|passes|-DBATCHNORM_COMPILED=3|units|2.2|2.6|2.1'
  'code of one training call|training||KB|110|165|173'
)

compilers=() repetitions=3 includes=() output='' checks=false
while (($# > 0)); do
  case $1 in
    --compiler | --repetitions | --include | --output)
      if (($# < 2)); then
        usage >&2 && exit 2
      fi
      case $1 in
        --compiler) compilers+=("$2") ;;
        --repetitions) repetitions=$2 ;;
        --include) includes+=("$2") ;;
        --output) output=$2 ;;
      esac
      shift
      ;;
    --check) checks=true ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done
if [[ ! $repetitions =~ ^[1-9][0-9]*$ ]]; then
  usage >&2 && exit 2
fi
if ((${#compilers[@]} == 0)); then
  for compiler in g++ clang++; do
    if command -v "$compiler" > /dev/null; then
      compilers+=("$compiler")
    fi
  done
fi
if ((${#compilers[@]} == 0)); then
  echo 'compile_cost.sh: neither g++ nor clang++ is installed; --compiler names another' >&2
  exit 2
fi
if ((${#includes[@]} == 0)); then
  includes=(-isystem/usr/include/eigen3)
fi

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

# is_clang COMPILER
is_clang() { "$1" --version | grep -q clang; }

# compile COMPILER PROGRAM OPTIONS: compiles it to $work/PROGRAM.o and prints the milliseconds of processor time that it took.
# What GCC expands lane by lane is slow, and much code: $work/lane_by_lane says where.
compile() {
  local TIMEFORMAT='%3U %3S' user system warnings=''
  if ! is_clang "$1"; then
    warnings=-Wvector-operation-performance
  fi
  # shellcheck disable=SC2086  # options are words
  { time "$1" -std=c++20 -O2 $warnings $3 "${includes[@]}" -I "$root/include" -c "$programs/$2.cpp" -o "$work/$2.o" 2>&3; } \
    3> "$work/messages" 2> "$work/time" || {
    cat "$work/messages" >&2
    return 1
  }
  if grep -q vector-operation-performance "$work/messages"; then
    cp "$work/messages" "$work/lane_by_lane"
  fi
  read -r user system < "$work/time"
  echo $((10#${user/./} + 10#${system/./}))
}

# code_size PROGRAM: bytes of code and constants in the object that was compiled last.
code_size() {
  size "$work/$1.o" | awk 'NR == 2 { print $1 }'
}

# median NUMBER...
median() {
  printf '%s\n' "$@" | sort -n | awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'
}

# Times in milliseconds, a line for each compiler and program; sizes in bytes. The unit is compiled before every row: all others
# are divided by it, so it has the most samples.
declare -A times sizes
# measure REPETITIONS
measure() {
  local repetition compiler row name program options quantity
  for ((repetition = 1; repetition <= $1; ++repetition)); do
    for compiler in "${compilers[@]}"; do
      for row in "${rows[@]}"; do
        IFS='|' read -r name program options quantity _ <<< "$row"
        if [[ $quantity == KB ]]; then
          continue
        fi
        times[$compiler,unit]+=" $(compile "$compiler" eigen '')"
        times[$compiler,$name]+=" $(compile "$compiler" "$program" "$options")"
        if [[ -z $options ]]; then
          sizes[$compiler,$program]=$(code_size "$program")
        fi
      done
    done
  done
}

table() {
  printf 'compiler\trow\tvalue\tmust\ttoday\tunit\t\n'
  local compiler row name program options quantity must of_gcc of_clang today value unit verdict
  status=0
  for compiler in "${compilers[@]}"; do
    # shellcheck disable=SC2086  # the times are words
    unit=$(median ${times[$compiler,unit]})
    printf '%s\tinclude <Eigen/Core>\t%s\t\t\tms\t\n' "$compiler" "$unit"
    for row in "${rows[@]}"; do
      IFS='|' read -r name program options quantity must of_gcc of_clang <<< "$row"
      today=$of_gcc
      if is_clang "$compiler"; then
        today=$of_clang
      fi
      if [[ $quantity == KB ]]; then
        value=$(awk -v bytes="${sizes[$compiler,$program]}" 'BEGIN { printf "%.0f", bytes / 1024 }')
      else
        # shellcheck disable=SC2086
        value=$(awk -v time="$(median ${times[$compiler,$name]})" -v unit="$unit" 'BEGIN { printf "%.2f", time / unit }')
      fi
      verdict=$(awk -v value="$value" -v must="$must" -v today="$today" 'BEGIN {
        limit = 1.25 * (today > must ? today : must)
        if (value > limit) printf "exceeded, above the limit of %.2f", limit; else if (value > must) print "exceeded"
      }')
      if [[ $verdict == *limit* ]]; then
        status=1
      fi
      printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$compiler" "$name" "$value" "$must" "$today" "$quantity" "$verdict"
    done
  done
}

measure "$repetitions"
table > "$work/table"
if $checks && ((status != 0)); then
  measure 2
  table > "$work/table"
fi
if [[ -n $output ]]; then
  cp "$work/table" "$output"
fi
column -t -s $'\t' "$work/table" 2> /dev/null || cat "$work/table"
if $checks; then
  if [[ -e $work/lane_by_lane ]]; then
    echo 'GCC expands these operations on vectors lane by lane:'
    head -n 50 "$work/lane_by_lane"
    status=1
  fi
  exit $status
fi
