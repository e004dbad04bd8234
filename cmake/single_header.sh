#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Prints the library as one header:
#   cmake/single_header.sh > batchnorm.hpp
# With arguments, of other public headers, which it takes in with all of ours that they include:
#   cmake/single_header.sh batchnorm checkpoint eigen > batchnorm.hpp
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if (($# == 0)); then
  set -- batchnorm dlpack mdspan
fi

echo "// batchnorm as one header, made by cmake/single_header.sh of: $*."
echo "//"
sed 's|^|// |; s| $||' LICENSE
echo "// SPDX-License-Identifier: MIT"
echo "#pragma once"
for name; do
  echo "include/batchnorm/$name.hpp"
done | awk '
  # A header takes the place of the first line that includes it. Under a condition that line would not stand for all others.
  function expand(path, line, name, depth, status) {
    if (path in seen) return
    seen[path] = 1
    while ((status = (getline line < path)) > 0) {
      if (line ~ /^ *#(if|ifdef|ifndef)/) ++depth
      if (line ~ /^ *#endif/) --depth
      if (line ~ /^#include <batchnorm\/compiled\//) continue  # one header has no library of compiled kernels
      if (line ~ /^ *#include <batchnorm\//) {
        if (depth > 0) fail(path ": included under a condition: " line)
        name = line
        sub(/^[^<]*</, "", name)
        sub(/>.*$/, "", name)
        expand("include/" name)
      } else if (line != "#pragma once" && line !~ /^\/\/ SPDX-License-Identifier/) {
        print line
      }
    }
    if (status < 0) fail(path ": cannot be read")
    close(path)
  }
  function fail(message) {
    print message > "/dev/stderr"
    exit 1
  }
  { expand($0) }'
