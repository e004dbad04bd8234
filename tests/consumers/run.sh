#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds and runs the README's first program in the ways in which others come to the library, with GCC and with Clang.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source=$PWD
build=$source/build/tests/consumers
program=$build/program.cpp
rm -rf "$build"
mkdir -p "$build"

cmake -D readme="$source/README.md" -D readme_program="$program" -P tests/consumers/extract_program.cmake

# consume NAME COMPILER PROJECT CMAKE_OPTION...: builds and runs one of the projects beside this script.
consume() {
  local name=$1 compiler=$2 project=$3 log=$build/log-$2
  shift 3
  echo "== $name, $compiler"
  cmake -S "tests/consumers/$project" -B "$build/$name-$compiler" -G Ninja -D CMAKE_CXX_COMPILER="$compiler" \
    -D CMAKE_BUILD_TYPE=Release -D PROGRAM="$program" "$@" > "$log" || { cat "$log" && return 1; }
  cmake --build "$build/$name-$compiler" > "$log" || { cat "$log" && return 1; }
  "$build/$name-$compiler/program"
}

# with_each_compiler FUNCTION: side by side, since a program is one file and so takes one processor.
with_each_compiler() {
  local compiler pid pids=() status=0
  for compiler in g++ clang++; do
    "$1" "$compiler" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || status=1
  done
  return $status
}

# install PREFIX CMAKE_OPTION...
install() {
  local prefix=$1
  shift
  {
    cmake -S . -B "$prefix-build" -G Ninja -D CMAKE_INSTALL_PREFIX="$prefix" -D CMAKE_BUILD_TYPE=Release \
      -D BATCHNORM_BUILD_TESTS=OFF -D BATCHNORM_BUILD_EXAMPLES=OFF -D BATCHNORM_BUILD_BENCH=OFF "$@" &&
      cmake --build "$prefix-build" && cmake --install "$prefix-build"
  } > "$build/log" || { cat "$build/log" && return 1; }
}

check_moved() {
  if grep -rF "$source" "$1"; then
    echo "the installed package names the place where it was built" >&2
    return 1
  fi
}

# A program over MPI that mpirun has not started: Open MPI needs no remote shell for it when told so.
export OMPI_MCA_plm=isolated
has_mpi=true
if ! command -v mpicxx > /dev/null; then
  has_mpi=false
  echo "== MPI: skipped: not installed"
fi
consume_installed() {
  consume installed "$1" installed -D CMAKE_PREFIX_PATH="$build/prefix"
  consume checkpoint-installed "$1" checkpoint -D CMAKE_PREFIX_PATH="$build/prefix"
  if $has_mpi; then
    consume mpi-installed "$1" mpi -D CMAKE_PREFIX_PATH="$build/prefix"
  fi
}
install "$build/prefix"
with_each_compiler consume_installed

consume_moved() {
  consume moved "$1" installed -D CMAKE_PREFIX_PATH="$build/moved"
  consume subdirectory "$1" subdirectory -D BATCHNORM_SOURCE="$source"
  consume checkpoint-subdirectory "$1" checkpoint -D BATCHNORM_SOURCE="$source"
  if $has_mpi; then
    consume mpi-subdirectory "$1" mpi -D BATCHNORM_SOURCE="$source"
  fi

  echo "== headers alone, $1"
  "$1" -std=c++20 -O2 -I include -isystem /usr/include/eigen3 "$program" -pthread -o "$build/program-$1"
  "$build/program-$1"
}
mv "$build/prefix" "$build/moved"
check_moved "$build/moved"
with_each_compiler consume_moved

if [[ -z $(cmake -P cmake/Nvcc.cmake) ]]; then
  echo "== CUDA: skipped: no nvcc"
  exit
fi
# PTX alone: the kernels are linked, but not run.
architecture=(-D CMAKE_CUDA_ARCHITECTURES=75-virtual)
install "$build/cuda" -D BATCHNORM_CUDA=ON "${architecture[@]}"
mv "$build/cuda" "$build/cuda-moved"
check_moved "$build/cuda-moved"
consume_cuda() { consume cuda-moved "$1" cuda -D batchnorm_DIR="$build/cuda-moved/share/cmake/batchnorm"; }
with_each_compiler consume_cuda
consume cuda-subdirectory g++ cuda -D BATCHNORM_SOURCE="$source" -D BATCHNORM_CUDA=ON "${architecture[@]}"

if [[ -z $(cmake -P cmake/FindNCCL.cmake) ]]; then
  echo "== NCCL: skipped: not found (name its folder in NCCL_ROOT)"
  exit
fi
consume_nccl() { consume nccl-moved "$1" nccl -D batchnorm_DIR="$build/cuda-moved/share/cmake/batchnorm"; }
with_each_compiler consume_nccl
