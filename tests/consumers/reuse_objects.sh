#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A compiler launcher: an object of batchnorm::compiled that the build in the folder $donor has made by the same command is copied,
# not compiled again. The command is the whole of it but for the object's place.
set -euo pipefail
command=() object='' depfile='' file=''
arguments=("$@")
while (($# > 0)); do
  case $1 in
    -o) object=$2 && shift ;;
    -c) file=$2 && shift ;;
    -MF) depfile=$2 && shift ;;
    -MT) shift ;;
    -MD) ;;
    *) command+=("$1") ;;
  esac
  shift
done
donated=CMakeFiles/batchnorm_compiled.dir/${file#"$source/"}.o
if [[ -n $object ]] && grep -qF "${command[*]} -o $donated -c $file\"" "$donor/compile_commands.json"; then
  echo "$object: $file" > "$depfile"
  exec cp "$donor/$donated" "$object"
fi
exec "${arguments[@]}"
