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
  local name=$1 compiler=$2 project=$3
  shift 3
  echo "== $name, $compiler"
  cmake -S "tests/consumers/$project" -B "$build/$name-$compiler" -G Ninja -D CMAKE_CXX_COMPILER="$compiler" \
    -D CMAKE_BUILD_TYPE=Release -D PROGRAM="$program" "$@" > "$build/log" || { cat "$build/log" && return 1; }
  cmake --build "$build/$name-$compiler" > "$build/log" || { cat "$build/log" && return 1; }
  "$build/$name-$compiler/program"
}

install() {
  cmake -S . -B "$build/install" -G Ninja -D CMAKE_INSTALL_PREFIX="$1" -D BATCHNORM_BUILD_TESTS=OFF \
    -D BATCHNORM_BUILD_EXAMPLES=OFF -D BATCHNORM_BUILD_BENCH=OFF > "$build/log"
  cmake --install "$build/install" > "$build/log"
}

install "$build/prefix"
for compiler in g++ clang++; do
  consume installed "$compiler" installed -D CMAKE_PREFIX_PATH="$build/prefix"
  consume checkpoint-installed "$compiler" checkpoint -D CMAKE_PREFIX_PATH="$build/prefix"
done

mv "$build/prefix" "$build/moved"
if grep -rF "$source" "$build/moved"; then
  echo "the installed package names the place where it was built" >&2
  exit 1
fi
for compiler in g++ clang++; do
  consume moved "$compiler" installed -D CMAKE_PREFIX_PATH="$build/moved"
  consume subdirectory "$compiler" subdirectory -D BATCHNORM_SOURCE="$source"
  consume checkpoint-subdirectory "$compiler" checkpoint -D BATCHNORM_SOURCE="$source"

  echo "== headers alone, $compiler"
  "$compiler" -std=c++20 -O2 -I include -isystem /usr/include/eigen3 "$program" -pthread -o "$build/program-$compiler"
  "$build/program-$compiler"
done
