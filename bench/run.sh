#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/debian_packages.sh

usage() {
  cat << 'END'
Usage: bench/run.sh [option...]

Builds batchnorm_bench in build/bench, times the library and its rivals against a copy, writes JSON and pictures to
bench/results, and prints a table of classes of calls (bench/tables.py):

  panel.json, shapes_*.png     shapes of known networks
  half.json                    half and bfloat16
  rivals.json                  some of the shapes beside the rivals; with --full they are in panel.json
  sizes.json, sizes_*.png      the same kind of tensor from 4 KB to 1 GB
  threads.json, threads_*.png  from 1 thread to all
  fused.json                   the fused operations

  --quick              11 shapes, 3 of them in half and bfloat16, 8 beside the rivals on one thread: 10 minutes on 2 cores; no
                       fused operations and no threads.json; the default
  --full               all shapes, all of them with rivals, rivals at each size: some hours
  --no-rivals          the library alone
  --onednn FOLDER      oneDNN from there (include/, lib/) instead of Debian's
  --torch FOLDER       libtorch from there; otherwise the one inside python3's torch or Debian's libtorch-dev, if there is one
  --python PYTHON      also runs bench/rivals.py with this interpreter, which has MindSpore, ONNX Runtime, JAX, PyTorch
  --draw               only draws what was measured before
  --help               this text

Needs Debian's packages; as root it installs those that are missing, otherwise it says which. Nothing else should run meanwhile.
END
}

full=false draws_only=false python='' rivals=(--rivals) options=()
while (($# > 0)); do
  case $1 in
    --quick) full=false ;;
    --full) full=true ;;
    --no-rivals) rivals=() ;;
    --onednn | --torch | --python)
      if (($# < 2)); then
        usage >&2 && exit 2
      fi
      case $1 in
        --onednn) options+=(-D "BATCHNORM_BENCH_ONEDNN=$2") ;;
        --torch) options+=(-D "BATCHNORM_BENCH_TORCH=$2") ;;
        --python) python=$2 ;;
      esac
      shift
      ;;
    --draw) draws_only=true ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && exit 2 ;;
  esac
  shift
done

require_packages cmake ninja-build g++ libeigen3-dev libbenchmark-dev libcli11-dev libdnnl-dev gnuplot-nox python3
results=bench/results
mkdir -p build/bench "$results"

build() {
  local log=build/bench/configure.log target
  cmake --preset release -B build/bench -D BATCHNORM_BUILD_TESTS=OFF -D BATCHNORM_BUILD_EXAMPLES=OFF "${options[@]}" \
    > $log 2>&1 || {
    cat $log >&2
    return 1
  }
  grep 'batchnorm: left out' $log || true
  for target in batchnorm_bench ${python:+batchnorm_c batchnorm_bench_copy}; do
    cmake --build build/bench --target "$target"
  done
}

# One thread, and all.
end_options=(--threads 1)
if (($(nproc) > 1)); then
  end_options+=(--threads "$(nproc)")
fi

# 1, 2, 4 ... and all.
thread_options=()
for ((count = 1; count < $(nproc); count *= 2)); do
  thread_options+=(--threads "$count")
done
thread_options+=(--threads "$(nproc)")

# Tensors of 64 channels from 4 KB, each about twice the one before: the plane grows up to 56 x 56, then N, up to 1 GB or an
# eighth of the memory that is free.
size_options=()
for plane in 4,4 7,4 7,7 14,7 14,14 28,14 28,28 56,28; do
  size_options+=(--shape "1,64,$plane")
done
free=$(($(awk '/MemAvailable/ { print $2 }' /proc/meminfo) * 1024))
for n in 1 2 4 8 16 32 64 128 256 512 1024 1340; do
  if ((n * 64 * 56 * 56 * 4 <= free / 8)); then
    size_options+=(--shape "$n,64,56,56")
  fi
done

bench=build/bench/bin/batchnorm_bench
status=0

# What is drawn: what this run has measured or, with --draw, all that is there.
measured=()

# has_results NAME...: sets `files` to those of them that are to be drawn.
has_results() {
  local name
  files=()
  for name in "$@"; do
    if [[ -s $results/$name.json ]] && { $draws_only || [[ " ${measured[*]} " == *" $name "* ]]; }; then
      files+=("$results/$name.json")
    fi
  done
  ((${#files[@]} > 0))
}

# measure NAME OPTION...: one file of results. A row that is wrong is named and costs the status, not the other rows.
measure() {
  local name=$1
  shift
  echo
  echo "== $name"
  measured+=("$name")
  "$bench" "$@" --json "$results/$name.json" || status=1
}

measure_quick() {
  measure panel --panel quick "${end_options[@]}"
  measure half --shape 32,256,56,56 --shape 32,1024,14,14 --shape 16,112,14,14 --type half --type bfloat16 --threads 1
  if ((${#rivals[@]} > 0)); then
    measure rivals --shape 32,64,56,56 --shape 32,256,56,56 --shape 32,128,28,28 --shape 32,1024,14,14 --shape 32,2048,7,7 \
      --shape 1,64,112,112 --shape 1,2048,7,7 --shape 16,512 --threads 1 "${rivals[@]}"
  fi
  measure sizes "${size_options[@]}" --threads 1
}

measure_full() {
  local panel=(--panel full "${end_options[@]}" "${rivals[@]}")
  measure panel "${panel[@]}"
  measure sizes "${size_options[@]}" "${end_options[@]}" "${rivals[@]}"
  measure threads "${thread_options[@]}" --shape 32,64,112,112 --shape 32,256,56,56 --shape 32,1024,14,14 --shape 32,2048,7,7 \
    --shape 1,64,112,112
  measure half "${panel[@]}" --type half --type bfloat16
  measure fused "${panel[@]}" --operation training_relu --operation inference_relu --operation training_add_relu \
    --operation backward_relu
}

measure_all() {
  if $full; then measure_full; else measure_quick; fi
  if [[ -n $python ]]; then
    echo
    echo "== python"
    measured+=(python)
    "$python" bench/rivals.py --libraries build/bench/lib "${end_options[@]}" --json "$results/python.json" || status=1
  fi
}

draw() {
  local arguments=() name files
  if has_results panel half fused rivals python; then
    arguments+=(--shapes "${files[@]}")
  fi
  for name in sizes threads; do
    if has_results "$name"; then
      arguments+=("--$name" "${files[@]}")
    fi
  done
  echo
  python3 bench/plot.py --out "$results" "${arguments[@]}"
}

# The classes of calls; python.json has no rows of the library.
print_table() {
  local files
  if has_results panel half fused; then
    echo
    python3 bench/tables.py "${files[@]}"
  fi
}

if ! $draws_only; then
  build
  measure_all
fi
draw
print_table
exit $status
