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
seconds=120  # a driver takes a few; a bug may make it run for ever
jobs=2

rm -rf "$work"
mkdir -p "$work"

fail() {
  echo "$1" >&2
  exit 1
}

# build FOLDER TYPE: the driver in FOLDER, with the headers there before those of the library.
build() {
  local type=$2
  [[ $type == half ]] && type=batchnorm::cuda::Half
  "$compiler" -O0 "-I$1" "${flags[@]}" -include "$work/prefix.hpp" "-DBATCHNORM_SEEDED_BUGS_ELEMENT=$type" \
    "$here/seeded_bugs_driver.cpp" "$work/emulator.o" -o "$1/driver" > "$1/log" 2>&1
}

names=() files=() types=() texts=() replacements=()
while IFS= read -r line || [[ -n $line ]]; do
  case $line in
    "bug "*) names+=("${line#bug }") texts+=("") replacements+=("") ;;
    "in "*) read -r _ file type <<< "$line" && files+=("$file") types+=("$type") ;;
    - | "- "*) line=${line#-} texts[-1]+=${texts[-1]:+$'\n'}${line# } ;;
    + | "+ "*) line=${line#+} replacements[-1]+=${replacements[-1]:+$'\n'}${line# } ;;
    "" | "#"*) ;;
    *) fail "seeded_bugs.txt: $line" ;;
  esac
done < "$here/seeded_bugs.txt"
((${#names[@]} == ${#files[@]})) || fail "seeded_bugs.txt: a bug has no file, or two"

# seed NUMBER: applies the bug, builds and runs. The verdict goes to its folder.
seed() {
  local i=$1 folder=$work/$1 content rest status=0
  local file=${files[i]} text=${texts[i]}
  mkdir -p "$folder/batchnorm/cuda"
  content=$(cat "$include/batchnorm/cuda/$file" && echo .) || return
  rest=${content#*"$text"}
  if [[ -z $text || $rest == "$content" || $rest == *"$text"* ]]; then
    echo "its text does not occur exactly once in $file" > "$folder/verdict"
    return
  fi
  printf '%s' "${content%%"$text"*}${replacements[i]}${rest%.}" > "$folder/batchnorm/cuda/$file"
  if ! build "$folder" "${types[i]}"; then
    echo "does not compile:"$'\n'"$(head -n 5 "$folder/log")" > "$folder/verdict"
    return
  fi
  { timeout "$seconds" "$folder/driver" > "$folder/log" 2>&1 || status=$?; } 2> /dev/null
  rm "$folder/driver"
  if ((status == 0)); then
    echo "NOT FOUND" > "$folder/verdict"
  else
    echo "found: $({ ((status == 1)) && head -n 1 "$folder/log"; } || echo "ended with $status")" > "$folder/verdict"
  fi
}

# in_parallel FUNCTION ARGUMENTS...: calls it with each, some at a time.
in_parallel() {
  local function=$1 argument
  shift
  for argument; do
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n || true; done
    "$function" "$argument" &
  done
  wait
}

# without_bugs TYPE: the driver must pass.
without_bugs() {
  mkdir -p "$work/$1"
  build "$work/$1" "$1" && "$work/$1/driver" > "$work/$1/log" 2>&1 && touch "$work/$1/passed"
  true
}

"$compiler" -O2 "${flags[@]}" -c "$here/emulator.cpp" -o "$work/emulator.o"
# What no bug is in, compiled once.
sed -n '/^#include/{/batchnorm/!p}' "$here/seeded_bugs_driver.cpp" > "$work/prefix.hpp"
"$compiler" -O0 "${flags[@]}" -x c++-header "$work/prefix.hpp" -o "$work/prefix.hpp.gch"
in_parallel without_bugs float double half
for type in float double half; do
  [[ -e $work/$type/passed ]] || fail "without a bug, the driver for $type fails: $(head -n 5 "$work/$type/log")"
done

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
  if wanted "$i"; then
    numbers+=("$i")
  fi
done
in_parallel seed "${numbers[@]}"
found=0
for i in "${numbers[@]}"; do
  verdict=$(cat "$work/$i/verdict" 2> /dev/null || echo "no verdict")
  echo "${names[i]} (${files[i]}, ${types[i]}): $verdict"
  [[ $verdict == found:* ]] && found=$((found + 1))
done
echo "$found of ${#numbers[@]} seeded bugs found, of ${#names[@]} in the list"
((found > 0 && found == ${#numbers[@]}))
