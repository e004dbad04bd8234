#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# cpu.sh COMPILER WORK_FOLDER [--some | WORD [OPTION...]]: each bug of cpu_bugs.txt (of those whose names contain WORD; with --some
# every sixteenth that the forward pass of float shows), put into a copy of the header that it is in, must make the differential fuzzer
# fail: by a wrong result, by a guard page, or by never ending. The options are the compiler's, where Eigen is not in
# /usr/include/eigen3. All of the list takes half an hour: tests/seeded_bugs/cpu.sh g++ /tmp/seeded_bugs
set -euo pipefail
compiler=$1 work=$2 word=${3-} options=("${@:4}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tests=$here/.. include=$here/../../include
flags=(-std=c++20 -w -O0 "-I$here/.." "${options[@]:--isystem/usr/include/eigen3}")
list=$here/cpu_bugs.txt headers=$include/batchnorm inside=batchnorm
cases=1500
source "$here/../support/seeded_bugs.sh"
seconds=400  # all cases take one minute

rm -rf "$work"
mkdir -p "$work"

# sets_of ISA: what leaves larger instruction sets out.
sets_of() {
  case $1 in
    baseline) echo -DBATCHNORM_BASELINE_ONLY ;;
    v3) echo -DBATCHNORM_WITHOUT_AVX512 ;;
  esac
}

# build FOLDER TYPES KIND [ISA]: the fuzzer's cases of that kind alone, with kernels of its own; what else it needs is compiled once.
build() {
  local folder=$1 types=$2 kind=$3 isa=${4-baseline} number=0 known
  for known in float float/half half/float half bfloat16/float bfloat16 double; do
    [[ $known == "$types" ]] && break
    number=$((number + 1))
  done
  local file=$kind
  [[ $kind == overlap ]] && file=refusal
  # shellcheck disable=SC2046
  "$compiler" "-I$folder" "${flags[@]}" "-I$include" $(sets_of "$isa") -include "$work/prefix.hpp" "-DBATCHNORM_FUZZED_TYPES=$number" \
    "-DBATCHNORM_SEEDED_KIND=$kind" "-DBATCHNORM_SEEDED_FILE=\"fuzz/$file.cpp\"" "$here/driver.cpp" "$work/$isa"/*.o \
    -lgtest -pthread -Wl,--gc-sections -o "$folder/driver"
}
run() { timeout "$seconds" "$1/driver" "$cases"; }

# The kernels that calls.cpp would instantiate are declared, and the linker drops what calls them.
compile_support() {
  local isa=${1% *} file=${1#* } isas=1
  [[ $isa == v3 ]] && isas=2
  [[ $isa == v4 ]] && isas=3
  mkdir -p "$work/$isa"
  # shellcheck disable=SC2046
  "$compiler" "${flags[@]}" -O1 "-I$include" $(sets_of "$isa") "-DBATCHNORM_COMPILED=$isas" -ffunction-sections -c "$tests/$file.cpp" \
    -o "$work/$isa/${file##*/}.o"
}

# What no bug is in, compiled once.
cat > "$work/prefix.hpp" << 'END'
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <ranges>
#include <set>
#include <string>
#include <thread>
#include <vector>
#include <Eigen/Core>
#include <gtest/gtest.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
END
"$compiler" "${flags[@]}" -x c++-header "$work/prefix.hpp" -o "$work/prefix.hpp.gch"

read_list
numbers=() used=() supports=() some=0
for i in "${!names[@]}"; do
  if [[ $word == --some ]]; then
    [[ ${variants[i]} == "float forward" ]] && ((++some % 16 == 3)) || continue
  else
    [[ ${names[i]} == *"$word"* ]] || continue
  fi
  read -r _ _ isa <<< "${variants[i]}"
  if [[ ${isa:=baseline} == v4 ]] && ! grep -qw avx512dq /proc/cpuinfo; then
    echo "skipped, this processor lacks x86-64-v4: ${names[i]}"
    continue
  fi
  numbers+=("$i")
  [[ " ${used[*]} " == *" $isa "* ]] || used+=("$isa")
done
for isa in "${used[@]}"; do supports+=("$isa fuzz/plan" "$isa support/calls" "$isa support/gradient_calls"); done
in_parallel compile_support "${supports[@]}"
mapfile -t distinct < <(for i in "${numbers[@]}"; do echo "${variants[i]}"; done | sort -u)
check_without_bugs "${distinct[@]}"
search "${numbers[@]}"
