#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# keep.sh DIRECTORY NVCC ARGUMENT...: compiles, and leaves in the directory PTX for each architecture and in `report` what ptxas
# says of each kernel. All else that nvcc prints is printed.
set -euo pipefail
directory=$1
shift
rm -rf "$directory"
mkdir -p "$directory"
status=0
"$@" --keep --keep-dir "$directory" -Xptxas -v > "$directory/report" 2>&1 || status=$?
find "$directory" -type f ! -name '*.ptx' ! -name report -delete
grep -vE '^ptxas info |^ +[0-9]+ bytes stack frame' "$directory/report" || true
exit $status
