#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The single header says what the headers say that it is made of: single_header_test.sh COMPILER WORK_FOLDER INCLUDE_OPTION...
# Both are preprocessed, and compared but for white space.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
compiler=$1 work=$2
shift 2
mkdir -p "$work"
names=(batchnorm dlpack mdspan eigen)
"$root/cmake/single_header.sh" "${names[@]}" > "$work/single.hpp"
printf '#include <batchnorm/%s.hpp>\n' "${names[@]}" > "$work/headers.cpp"
echo '#include "single.hpp"' > "$work/single.cpp"
for unit in headers single; do
  "$compiler" -std=c++20 -E -P "$@" -I "$root/include" "$work/$unit.cpp" | tr -s '[:space:]' '\n' > "$work/$unit.words"
done
if grep -q 'include <batchnorm/' "$work/single.hpp"; then
  echo "the single header includes others of ours"
  exit 1
fi
cmp "$work/headers.words" "$work/single.words"
echo "$(wc -l < "$work/single.words") words, the same"
