# SPDX-License-Identifier: MIT
# What searches for seeded bugs share; sourced. A list of bugs: each has a name, the file that it is in and the variant of the test
# that finds it, the text that is replaced (-), which occurs there exactly once, and what replaces it (+). The caller sets
#   list       the list
#   headers    the folder that the files of the list are in
#   inside     where that folder is, seen from the include path
#   work       a folder for what is made
# and defines
#   build FOLDER VARIANT...   builds FOLDER/driver, with the headers in FOLDER before those of the library
#   run FOLDER VARIANT...     runs it: it fails if it finds something
# The caller then calls check_without_bugs and search.
jobs=$(nproc)
seconds=120  # a driver takes a few; a bug may make it run for ever

fail() {
  echo "$1" >&2
  exit 1
}

read_list() {
  names=() files=() variants=() texts=() replacements=()
  local line file variant
  while IFS= read -r line || [[ -n $line ]]; do
    case $line in
      "bug "*) names+=("${line#bug }") texts+=("") replacements+=("") ;;
      "in "*) read -r _ file variant <<< "$line" && files+=("$file") variants+=("$variant") ;;
      - | "- "*) line=${line#-} texts[-1]+=${texts[-1]:+$'\n'}${line# } ;;
      + | "+ "*) line=${line#+} replacements[-1]+=${replacements[-1]:+$'\n'}${line# } ;;
      "" | "#"*) ;;
      *) fail "${list##*/}: $line" ;;
    esac
  done < "$list"
  ((${#names[@]} == ${#files[@]})) || fail "${list##*/}: a bug has no file, or two"
  # Of all of them, also where a few are tried: code changes, and the list with it.
  local i content rest
  for i in "${!names[@]}"; do
    content=$(< "$headers/${files[i]}")
    rest=${content#*"${texts[i]}"}
    if [[ -z ${texts[i]} || $rest == "$content" || $rest == *"${texts[i]}"* ]]; then
      fail "${list##*/}: the text of '${names[i]}' does not occur exactly once in ${files[i]}"
    fi
  done
}

# seed NUMBER: applies the bug, builds and runs. The verdict goes to its folder.
seed() {
  local i=$1 folder=$work/$1 content rest status=0
  local file=${files[i]} text=${texts[i]}
  mkdir -p "$(dirname "$folder/$inside/$file")"
  content=$(cat "$headers/$file" && echo .) || return
  rest=${content#*"$text"}
  if [[ -z $text || $rest == "$content" || $rest == *"$text"* ]]; then
    echo "its text does not occur exactly once in $file" > "$folder/verdict"
    return
  fi
  printf '%s' "${content%%"$text"*}${replacements[i]}${rest%.}" > "$folder/$inside/$file"
  # shellcheck disable=SC2086  # a variant is words
  if ! build "$folder" ${variants[i]} > "$folder/log" 2>&1; then
    echo "does not compile:"$'\n'"$(head -n 5 "$folder/log")" > "$folder/verdict"
    return
  fi
  # shellcheck disable=SC2086
  { run "$folder" ${variants[i]} > "$folder/log" 2>&1 || status=$?; } 2> /dev/null
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

# without_bugs VARIANT
without_bugs() {
  local folder=$work/${1// /-}
  mkdir -p "$folder"
  # shellcheck disable=SC2086
  build "$folder" $1 > "$folder/log" 2>&1 && run "$folder" $1 > "$folder/log" 2>&1 && touch "$folder/passed"
  true
}

# check_without_bugs VARIANT...: the driver must pass.
check_without_bugs() {
  local variant
  in_parallel without_bugs "$@"
  for variant; do
    [[ -e $work/${variant// /-}/passed ]] || fail "without a bug, the driver fails ($variant): $(head -n 5 "$work/${variant// /-}/log")"
  done
}

# search NUMBER...: seeds these bugs. Succeeds where each is found.
search() {
  local i verdict found=0
  in_parallel seed "$@"
  for i; do
    verdict=$(cat "$work/$i/verdict" 2> /dev/null || echo "no verdict")
    echo "${names[i]} (${files[i]}, ${variants[i]}): $verdict"
    [[ $verdict == found:* ]] && found=$((found + 1))
  done
  echo "$found of $# seeded bugs found, of ${#names[@]} in the list"
  ((found > 0 && found == $#))
}
