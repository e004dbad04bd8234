#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds and runs programs in the ways in which others come to the library, offline: each scenario with the compilers named
# beside it. Without arguments all of them; with some, those whose names begin with one of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export source=$PWD
export build=$source/build/tests/consumers
export program=$build/program.cpp
wanted=("$@")

is_wanted() {
  local prefix
  ((${#wanted[@]} == 0)) && return
  for prefix in "${wanted[@]}"; do
    [[ $1 == "$prefix"* ]] && return
  done
  return 1
}

# ---- what scenarios are made of

# consume PROJECT COMPILER CMAKE_OPTION...: builds and runs one of the projects beside this script, without optimization: what
# is tried is how a program finds the library. For the same reason it has the kernels of one instruction set, unless it links
# those of the library.
consume() {
  local project=$1 compiler=$2 definition=-DBATCHNORM_BASELINE_ONLY
  shift 2
  [[ $project == compiled ]] && definition=
  cmake -S "tests/consumers/$project" -B "$folder" -G Ninja -D CMAKE_CXX_COMPILER="$compiler" -D CMAKE_BUILD_TYPE=Debug \
    -D CMAKE_CXX_FLAGS="$definition" -D PROGRAM="$program" "$@" &&
    cmake --build "$folder" && "$folder/program"
}

# compile COMPILER STANDARD ARGUMENT...: builds and runs what the arguments say, without CMake.
compile() {
  local compiler=$1 standard=$2
  shift 2
  mkdir -p "$folder" && "$compiler" "-std=$standard" -O2 -Wall -Wextra "$@" -pthread -o "$folder/program" && "$folder/program"
}

# install PREFIX CMAKE_OPTION...
install() {
  local prefix=$1
  shift
  cmake -S . -B "$prefix-build" -G Ninja -D CMAKE_INSTALL_PREFIX="$prefix" -D CMAKE_BUILD_TYPE=Release \
    -D BATCHNORM_BUILD_TESTS=OFF -D BATCHNORM_BUILD_EXAMPLES=OFF -D BATCHNORM_BUILD_BENCH=OFF "$@" &&
    cmake --build "$prefix-build" && cmake --install "$prefix-build"
}

# Nothing that is installed may name the place where it was built.
check_moved() {
  ! grep -rF "$source" "$1"
}

headers=(-I include -isystem /usr/include/eigen3)
flags=tests/consumers/flags
source tests/consumers/compiled.sh

# ---- the scenarios: scenario COMPILER; PTX alone for CUDA, so that kernels are linked, but not run

headers_alone() { compile "$1" c++20 "${headers[@]}" "$program"; }
cpp_23() {
  local standard=c++23
  [[ $1 == clang++ ]] && standard=c++2b
  compile "$1" $standard "${headers[@]}" -Werror "$program"
}
single_header() {
  compile "$1" c++20 -I "$build/single" -isystem /usr/include/eigen3 "$program"
}
pkg_config() {
  local options
  options=$(PKG_CONFIG_PATH=$build/moved/share/pkgconfig pkg-config --cflags --libs batchnorm) &&
    [[ $(PKG_CONFIG_PATH=$build/moved/share/pkgconfig pkg-config --modversion batchnorm) == "$version" ]] &&
    compile "$1" c++20 "$program" $options
}
installed() { consume installed "$1" -D CMAKE_PREFIX_PATH="$build/prefix"; }
moved() { consume installed "$1" -D CMAKE_PREFIX_PATH="$build/moved"; }
archive() { consume installed "$1" -D CMAKE_PREFIX_PATH="$build/archive/batchnorm-$version"; }
debian_package() { consume installed "$1" -D CMAKE_PREFIX_PATH="$build/debian/usr"; }
subdirectory() { consume subdirectory "$1" -D BATCHNORM_SOURCE="$source"; }
fetched() { consume fetched "$1" -D BATCHNORM_SOURCE="$source"; }
# Where only Eigen 5 is found: this machine's Eigen headers with package files that claim to be Eigen 5.
eigen_5() {
  local hidden
  hidden=$(sed -n 's/^Eigen3_DIR:PATH=//p' "$build/prefix-build/CMakeCache.txt")
  cmake -S tests/consumers/eigen_5 -B "$folder-eigen" -D CMAKE_INSTALL_PREFIX="$folder-prefix" &&
    cmake --install "$folder-eigen" &&
    consume "$2" "$1" "${@:3}" -D CMAKE_PREFIX_PATH="$build/prefix;$folder-prefix" -D CMAKE_IGNORE_PATH="$hidden" &&
    grep -q "Eigen3_DIR:PATH=$folder-prefix" "$folder/CMakeCache.txt"
}
eigen_5_installed() { eigen_5 "$1" installed; }
eigen_5_subdirectory() { eigen_5 "$1" subdirectory -D BATCHNORM_SOURCE="$source"; }
checkpoint_installed() { consume checkpoint "$1" -D CMAKE_PREFIX_PATH="$build/prefix"; }
checkpoint_subdirectory() { consume checkpoint "$1" -D BATCHNORM_SOURCE="$source"; }
adapters_installed() { consume adapters "$1" -D CMAKE_PREFIX_PATH="$build/prefix"; }
mpi_installed() { consume mpi "$1" -D CMAKE_PREFIX_PATH="$build/prefix"; }
mpi_subdirectory() { consume mpi "$1" -D BATCHNORM_SOURCE="$source"; }
mixed_processors() {
  # Linked in both orders, and without optimization, so that no inline function is inlined but those that must be.
  mkdir -p "$folder" && cd $flags &&
    "$1" -std=c++20 -O0 -I "$source/include" -isystem /usr/include/eigen3 -c mixed_first.cpp -o "$folder/first.o" &&
    "$1" -std=c++20 -O0 -march=x86-64-v3 -I "$source/include" -isystem /usr/include/eigen3 -c mixed_second.cpp \
      -o "$folder/second.o" &&
    "$1" "$folder/first.o" "$folder/second.o" -pthread -o "$folder/program" && "$folder/program" &&
    "$1" "$folder/second.o" "$folder/first.o" -pthread -o "$folder/program" && "$folder/program"
}
no_exceptions() { compile "$1" c++20 -fno-exceptions -fno-rtti "${headers[@]}" -Werror $flags/without_exceptions.cpp; }
files_without_exceptions() {
  compile "$1" c++20 -fno-exceptions -fno-rtti "${headers[@]}" -Werror $flags/files_without_exceptions.cpp -lz
}
checkpoint_warnings() {
  compile "$1" c++20 -O3 -isystem include -isystem /usr/include/eigen3 -Werror $flags/checkpoint_alone.cpp -lz
}
fast_math() { compile "$1" c++20 -ffast-math "${headers[@]}" $flags/fast_math.cpp; }
cu_file() {
  mkdir -p "$folder" && cp "$program" "$folder/program.cu" &&
    "$nvcc" -std=c++20 -O1 -I include -I /usr/include/eigen3 "$folder/program.cu" -Xcompiler=-pthread -o "$folder/program" &&
    "$folder/program"
}
cuda_moved() { consume cuda "$1" -D batchnorm_DIR="$build/cuda-moved/share/cmake/batchnorm"; }
cuda_subdirectory() {
  consume cuda "$1" -D BATCHNORM_SOURCE="$source" -D BATCHNORM_CUDA=ON -D CMAKE_CUDA_ARCHITECTURES=75-virtual
}
nccl_moved() { consume nccl "$1" -D batchnorm_DIR="$build/cuda-moved/share/cmake/batchnorm"; }

both="g++ clang++"
table=(
  "headers_alone $both" "cpp_23 $both" "single_header $both" "installed $both" "moved clang++" "archive g++"
  "debian_package clang++" "pkg_config g++" "subdirectory g++" "fetched clang++"
  "eigen_5_installed g++" "eigen_5_subdirectory clang++" "checkpoint_installed $both" "checkpoint_subdirectory clang++"
  "checkpoint_warnings $both" "compiled_installed $both" "compiled_shared $both" "compiled_subdirectory g++"
  "compiled_pkg_config g++" "adapters_installed $both" "mixed_processors $both" "no_exceptions $both"
  "files_without_exceptions $both" "fast_math $both"
)
skipped=()
if command -v mpicxx > /dev/null; then
  table+=("mpi_installed $both" "mpi_subdirectory clang++")
else
  skipped+=("MPI: not installed")
fi
nvcc=$(cmake -P cmake/Nvcc.cmake)
export nvcc
if [[ -z $nvcc ]]; then
  skipped+=("CUDA: no nvcc")
else
  table+=("cu_file nvcc" "cuda_moved $both" "cuda_subdirectory g++")
  if [[ -n $(cmake -P cmake/FindNCCL.cmake) ]]; then
    table+=("nccl_moved $both")
  else
    skipped+=("NCCL: not found (name its folder in NCCL_ROOT)")
  fi
fi
if [[ $(uname -m) != x86_64 ]]; then
  skipped+=("mixed_processors: x86-64 only")
  table=("${table[@]/#mixed_processors*/}")
fi

# ---- what they find: an installed package, one that was moved, what cpack makes, the single header

rm -rf "$build"
mkdir -p "$build/logs"
version=$(sed -n 's/^#define BATCHNORM_VERSION_[A-Z]* //p' include/batchnorm/version.hpp | paste -sd.)
export version
# A program over MPI that mpirun has not started: Open MPI needs no remote shell for it when told so.
export OMPI_MCA_plm=isolated
prepare() {
  cmake -D readme="$source/README.md" -D readme_program="$program" -P tests/consumers/extract_program.cmake
  mkdir -p "$build/single/batchnorm"
  cmake/single_header.sh > "$build/single/batchnorm/batchnorm.hpp"
  install "$build/prefix"
  cp -r "$build/prefix" "$build/moved"
  check_moved "$build/moved"
  (cd "$build/prefix-build" && cpack)
  mkdir "$build/archive" "$build/debian"
  tar -xf "$build/prefix-build/batchnorm-$version.tar.gz" -C "$build/archive"
  dpkg-deb --extract "$build/prefix-build/libbatchnorm-dev_${version}_all.deb" "$build/debian"
  check_moved "$build/debian"
  [[ ! -e $build/debian/usr/lib ]]  # nothing that depends on the architecture
  if is_wanted compiled_installed || is_wanted compiled_shared || is_wanted compiled_subdirectory || is_wanted compiled_pkg_config; then
    prepare_compiled
  fi
  if [[ -n $nvcc ]]; then
    install "$build/cuda" -D BATCHNORM_CUDA=ON -D CMAKE_CUDA_ARCHITECTURES=75-virtual
    (cd "$build/cuda-build" && cpack -G DEB)
    # What is compiled has a package of its own.
    dpkg-deb --contents "$build/cuda-build/libbatchnorm-cuda-dev_${version}"_*.deb > "$build/logs/cuda-package"
    grep -q 'lib/.*libbatchnorm_cuda.a' "$build/logs/cuda-package"
    if grep 'share/cmake' "$build/logs/cuda-package"; then return 1; fi
    mv "$build/cuda" "$build/cuda-moved"
    check_moved "$build/cuda-moved"
  fi
}
set +e
(set -e && prepare) > "$build/logs/prepare" 2>&1
status=$?
set -e
if ((status != 0)); then
  cat "$build/logs/prepare"
  echo "   failed: what the scenarios need could not be made"
  exit 1
fi

# ---- running them, as many side by side as there are processors, since most programs are one file

run() {
  local name=$1 compiler=$2 start=$SECONDS
  local log=$build/logs/$name-$compiler
  folder=$build/$name-$compiler
  if "$name" "$compiler" > "$log" 2>&1; then
    echo "   passed: $name, $compiler, $((SECONDS - start)) s"
  else
    tail -n 100 "$log"
    echo "   failed: $name, $compiler"
    return 1
  fi
}

running=0 total=0 failed=0
for row in "${table[@]}"; do
  read -r name compilers <<< "$row"
  [[ -n $name ]] && is_wanted "$name" || continue
  for compiler in $compilers; do
    if ((running == $(nproc))); then
      wait -n || failed=$((failed + 1))
      running=$((running - 1))
    fi
    run "$name" "$compiler" &
    running=$((running + 1)) total=$((total + 1))
  done
done
for ((; running > 0; --running)); do
  wait -n || failed=$((failed + 1))
done
for reason in "${skipped[@]}"; do
  echo "   skipped: $reason"
done
echo "   $((total - failed)) of $total scenarios passed"
((failed == 0 && total > 0))
