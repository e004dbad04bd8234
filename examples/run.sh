#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/debian_packages.sh

if (($# > 0)); then
  cat << 'END'
Usage: examples/run.sh

Builds normalize_images in build/examples and runs it: it normalises the Fashion-MNIST images and paints a picture of some.
Needs Debian's packages; as root it installs those that are missing, otherwise it says which.
The program has options of its own: build/examples/bin/normalize_images --help.
END
  [[ $* == --help || $* == -h ]] && exit
  exit 2
fi

require_packages cmake ninja-build g++ libeigen3-dev libcli11-dev zlib1g-dev libpng-dev dataset-fashion-mnist

mkdir -p build/examples
log=build/examples/configure.log
cmake --preset release -B build/examples -D BATCHNORM_BUILD_TESTS=OFF -D BATCHNORM_BUILD_BENCH=OFF > $log 2>&1 || {
  cat $log >&2
  exit 1
}
cmake --build build/examples --target normalize_images
echo
build/examples/bin/normalize_images --out "$PWD/build/examples"
