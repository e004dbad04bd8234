#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# seeded_bugs.sh COMPILER WORK_FOLDER [--some | WORD]: each bug of seeded_bugs.txt (of those whose names contain WORD; with --some
# every eighth of them, and every third of those of barriers), put into a copy of the file that it is in, must make
# seeded_bugs_driver.cpp fail: by a wrong result, by what the emulator reports, by a guard page, or by never ending.
set -euo pipefail
compiler=$1 work=$2 word=${3-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
include=$(cd "$here/../../include" && pwd)
flags=(-std=c++20 -w "-I$include" "-I$here" "-I$here/..")
list=$here/seeded_bugs.txt headers=$include/batchnorm/cuda inside=batchnorm/cuda
source "$here/../support/seeded_bugs.sh"

rm -rf "$work"
mkdir -p "$work"

# The variants are element types.
build() {
  local type=$2
  [[ $type == half ]] && type=batchnorm::cuda::Half
  "$compiler" -O0 "-I$1" "${flags[@]}" -include "$work/prefix.hpp" "-DBATCHNORM_SEEDED_BUGS_ELEMENT=$type" \
    "$here/seeded_bugs_driver.cpp" "$work/emulator.o" -o "$1/driver"
}
run() { timeout "$seconds" "$1/driver"; }

read_list
"$compiler" -O2 "${flags[@]}" -c "$here/emulator.cpp" -o "$work/emulator.o"
# What no bug is in, compiled once.
sed -n '/^#include/{/batchnorm/!p}' "$here/seeded_bugs_driver.cpp" > "$work/prefix.hpp"
"$compiler" -O0 "${flags[@]}" -x c++-header "$work/prefix.hpp" -o "$work/prefix.hpp.gch"
check_without_bugs float double half

# wanted NUMBER
wanted() {
  if [[ $word == --some ]]; then
    (($1 % 8 == 0)) || { (($1 % 3 == 0)) && [[ ${names[$1]} == *barrier* || ${names[$1]} == *wait* ]]; }
  else
    [[ ${names[$1]} == *"$word"* ]]
  fi
}
numbers=()
for i in "${!names[@]}"; do
  if wanted "$i"; then numbers+=("$i"); fi
done
search "${numbers[@]}"
