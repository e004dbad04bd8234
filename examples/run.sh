#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/debian_packages.sh

usage() {
  cat << 'END'
Usage: examples/run.sh [--full] [example...]

Builds examples in build/examples and runs them there; without a name, train_mnist.

  train_mnist       trains two networks on Fashion-MNIST with and without batch normalization, draws how they learn, and folds
                    the normalization into the trained weights; less than 3 minutes
  normalize_images  normalises the images of Fashion-MNIST, checks the result and paints some of them
  mpi_training      trains by 2 and by 4 processes with synchronised statistics: the same network as by one
  --full            train_mnist with five times as many steps
  --build-folder=DIR
                    builds in this configured folder instead
  --help            this text

Needs Debian's packages; as root it installs those that are missing, otherwise it says which.
The programs have options of their own: build/examples/bin/train_mnist --help.
END
}

full=() examples=() build=
for argument; do
  case $argument in
    --full) full=(--full) ;;
    --build-folder=?*) build=${argument#*=} ;;
    train_mnist | normalize_images | mpi_training) examples+=("$argument") ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && exit 2 ;;
  esac
done
if ((${#examples[@]} == 0)); then
  examples=(train_mnist)
fi

packages=(cmake ninja-build g++ libeigen3-dev libcli11-dev zlib1g-dev dataset-fashion-mnist)
for example in "${examples[@]}"; do
  case $example in
    train_mnist) packages+=(gnuplot-nox) ;;
    normalize_images) packages+=(libpng-dev) ;;
    mpi_training) packages+=(libopenmpi-dev openmpi-bin) ;;
  esac
done
require_packages "${packages[@]}"

mkdir -p build/examples
if [[ -z $build ]]; then
  build=build/examples
  log=build/examples/configure.log
  cmake --preset release -B build/examples -D BATCHNORM_BUILD_TESTS=OFF -D BATCHNORM_BUILD_BENCH=OFF \
    -D BATCHNORM_EXAMPLES_NATIVE=ON > $log 2>&1 || {
    cat $log >&2
    exit 1
  }
fi
# Several processes on one machine: one thread each, and none spins while it waits. Open MPI lets root start them when told so,
# and without a remote shell.
share_machine() {
  env BATCHNORM_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm=isolated \
    OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_vader_single_copy_mechanism=none "$@"
}
cmake --build "$build" --target "${examples[@]}"
for example in "${examples[@]}"; do
  echo
  case $example in
    train_mnist) "$build/bin/train_mnist" --out "$PWD/build/examples" "${full[@]}" ;;
    normalize_images) "$build/bin/normalize_images" --out "$PWD/build/examples" ;;
    mpi_training)
      for ranks in 2 4; do
        share_machine mpirun -n $ranks "$build/bin/mpi_training"
      done
      ;;
  esac
done
