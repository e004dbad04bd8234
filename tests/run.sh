#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/debian_packages.sh

usage() {
  cat << 'END'
Usage: tests/run.sh [option...]

Builds the tests in build/tests and runs them on every instruction set of this processor. Needs Debian's packages; as root
it installs those that are missing, otherwise it says which.

  --compilers           with GCC and with Clang instead of the default compiler (half an hour more)
  --headers             compiles each header alone
  --sanitizers          also under the address and undefined-behaviour sanitizers, the thread tests under the thread sanitizer
  --consumers           also builds programs in the ways in which others come to the library: installed, moved, from packages, by
                        pkg-config, with other flags (tests/consumers/run.sh lists and runs some of them)
  --examples            also runs the examples
  --bugs                also puts bugs into the headers, some of a list, each of which the differential fuzzer must find;
                        tests/seeded_bugs/cpu.sh tries them all
  --cuda                also compiles batchnorm::cuda where there is nvcc and checks its code, and seeds bugs into its kernels
                        that the tests must find (minutes); no device is needed
  --mpi                 also batch normalization over MPI, on 1 to 7 ranks of this machine
  --frameworks          installs PyTorch and MindSpore from PyPI in build/tests/frameworks (gigabytes) and holds the extension of
                        the one and the operator for the other against their own
  --fuzz MINUTES        also searches for failures for so many minutes: half of them the differential fuzzer, with seeds that it has
                        not had, half the tests named *Fuzz* and *Search*; and it prints what reproduces a failure
  --all                 all of these but --compilers, --frameworks and --fuzz, and less of three: the sanitizers are Clang's and run
                        without x86-64-v4 and without the bodies of CUDA kernels, the address sanitizer with the fuzzer and the
                        tests of files and failed allocations alone; CUDA's code is that of three architectures instead of
                        seven; the tests with PyTorch and MindSpore run where python3 finds them
  --warnings-as-errors  a compiler's warning fails the build
  --help                this text
END
}

compilers=false headers=false bugs=false sanitizers=false consumers=false examples=false cuda=false mpi=false frameworks=false all=false warnings_as_errors=OFF
fuzz_minutes=0
while (($# > 0)); do
  option=$1
  shift
  case $option in
    --compilers) compilers=true ;;
    --headers) headers=true ;;
    --sanitizers) sanitizers=true ;;
    --consumers) consumers=true ;;
    --examples) examples=true ;;
    --bugs) bugs=true ;;
    --cuda) cuda=true ;;
    --mpi) mpi=true ;;
    --frameworks) frameworks=true ;;
    --fuzz)
      fuzz_minutes=${1:-}
      if ! [[ $fuzz_minutes =~ ^[1-9][0-9]*$ ]]; then
        echo "tests/run.sh: --fuzz takes a whole number of minutes above 0, given is '$fuzz_minutes'" >&2
        exit 2
      fi
      shift
      ;;
    --all) all=true headers=true bugs=true sanitizers=true consumers=true examples=true cuda=true mpi=true ;;
    --warnings-as-errors) warnings_as_errors=ON ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && exit 2 ;;
  esac
done

packages=(cmake ninja-build g++ libeigen3-dev libgtest-dev libbenchmark-dev libcli11-dev zlib1g-dev libpng-dev libonnx-testdata libopencv-core-dev libdlpack-dev
          doxygen)
if $compilers || $sanitizers || $consumers; then
  packages+=(clang libclang-rt-14-dev)
fi
if $consumers; then
  packages+=(pkg-config)
fi
if $mpi; then
  packages+=(libopenmpi-dev openmpi-bin)
fi
if $frameworks; then
  packages+=(python3-venv)
fi
require_packages "${packages[@]}"

jobs=$(nproc)
logs=build/tests/logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0 failures=()
spent=()  # a line for each part of what was done

# What it takes, in minutes of a processor (Xeon, 2.5 GHz).
work=78
if $compilers; then work=$((work + 80)); fi
if $headers && ! $sanitizers; then work=$((work + 8)); fi
if $sanitizers && $all; then work=$((work + 46)); elif $sanitizers; then work=$((work + 180)); fi
if $consumers; then work=$((work + 13)); fi
if $examples; then work=$((work + 8)); fi
if $cuda; then work=$((work + 12)); fi
if $bugs; then work=$((work + 3)); fi
echo "about $(((work + jobs - 1) / jobs + fuzz_minutes)) minutes with $jobs processors; less for what ccache has kept"

# Where ccache is installed, what was compiled before from the same text is not compiled again, in whichever folder.
if command -v ccache > /dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
fi

# A sanitizer of Clang 14 cannot run where the kernel spreads addresses too widely.
without_aslr=()
if setarch -R true 2> /dev/null; then
  without_aslr=(setarch -R)
fi

# watched NAME COMMAND...: a terminal shows the command's output as it comes, otherwise only a failure shows the end of it.
watched() {
  local log=$logs/$1.log
  shift
  if [[ -t 1 ]]; then
    "$@"
  elif ! "$@" > "$log" 2>&1; then
    tail -n 200 "$log"
    return 1
  fi
}

# step NAME COMMAND...: a command that counts no tests is one.
step() {
  local name=$1 start=$SECONDS status=0
  shift
  passed_now=0 failed_now=0 skipped_now=0
  echo "== $name"
  "$@" || status=1
  if ((passed_now + failed_now + skipped_now == 0)); then
    passed_now=$((1 - status)) failed_now=$status
  fi
  passed=$((passed + passed_now)) failed=$((failed + failed_now)) skipped=$((skipped + skipped_now))
  echo "   $passed_now passed, $skipped_now skipped, $failed_now failed, $((SECONDS - start)) s"
  spent+=("$((SECONDS - start)) s  $name")
  if ((status != 0)); then
    failures+=("$name")
  fi
}

# At -O2 the kernels, which are unrolled by hand, compile in two thirds of the time that -O3 takes; the benchmarks' build has that.
configure_options=(-D "CMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG")
no_nvcc() {
  echo "   skipped: no nvcc"
  skipped_now=1
}
if $cuda && [[ -n $(cmake -P cmake/Nvcc.cmake) ]]; then
  cuda_options=(-D BATCHNORM_CUDA=ON)
  if $all; then  # the oldest devices, the first with clusters, the newest and PTX
    cuda_options+=(-D "CMAKE_CUDA_ARCHITECTURES=75-real;90-real;120")
  fi
  configure_options+=("${cuda_options[@]}")
else
  cuda_options=(-D BATCHNORM_CUDA=OFF)
  configure_options+=("${cuda_options[@]}")
  if $cuda; then
    step "CUDA" no_nvcc
  fi
fi
# Where this processor does not run them, the kernels of x86-64-v4 are left out of the sanitized builds: a third less to compile.
# So they are in the gate, whose time is short; --sanitizers alone has them.
sanitizer_options=()
if $all || ! grep -qw avx512dq /proc/cpuinfo; then
  sanitizer_options=(-D CMAKE_CXX_FLAGS=-DBATCHNORM_WITHOUT_AVX512)
fi

# build PRESET TARGET...
build() {
  local preset=$1 start=$SECONDS
  shift
  watched "$preset-configure" cmake --preset "$preset" -B "build/tests/$preset" \
    -D BATCHNORM_WARNINGS_AS_ERRORS=$warnings_as_errors "${configure_options[@]}" &&
    watched "$preset-build" "${without_aslr[@]}" cmake --build "build/tests/$preset" --parallel "$jobs" --target "$@" &&
    echo "   built in $((SECONDS - start)) s" && spent+=("$((SECONDS - start)) s  build of $preset")
}

# run_tests PRESET CTEST_OPTION...
run_tests() {
  local preset=$1 status=0 progress=()
  shift
  local log=$PWD/$logs/$preset-ctest.log
  if [[ -t 1 ]]; then
    progress=(--progress)
  fi
  CLICOLOR=0 watched "$preset-tests" "${without_aslr[@]}" ctest --test-dir "build/tests/$preset" --parallel "$jobs" \
    --no-tests=error --output-on-failure --output-log "$log" "${progress[@]}" "$@" || status=1
  if [[ $(grep '% tests passed' "$log") =~ ([0-9]+)\ tests\ failed\ out\ of\ ([0-9]+) ]]; then
    failed_now=${BASH_REMATCH[1]}
    skipped_now=$(grep -c '(Skipped)$' "$log" || true)
    passed_now=$((BASH_REMATCH[2] - failed_now - skipped_now))
  else
    status=1
  fi
  return $status
}

usual_tests() {
  local targets=(all)
  if $headers && ! $sanitizers; then
    targets+=(all_verify_interface_header_sets)
  fi
  # Seeding bugs takes minutes.
  local left_out=none
  $bugs || left_out+='|bugs'
  $cuda || left_out+='|cuda_bugs'
  build "$1" "${targets[@]}" && run_tests "$1" --label-exclude "^($left_out)\$"
}
# The programs that test code that runs. The emulated self-test takes minutes so, its bodies' tests do not. The gate has of them the
# fuzzer, whose random calls go through all kernels, and the tests of failed allocations and of malformed files: the others take
# an hour on a slow machine, compiled and run.
sanitized_tests() {
  local targets=(batchnorm_test_programs batchnorm_cuda_emulator_tests) labels='values|threads|ranks|fuzz|cuda|programs'
  if $all; then
    targets=(batchnorm_fuzz batchnorm_allocation_tests batchnorm_file_tests) labels='values|fuzz'
  fi
  build "$1" "${targets[@]}" &&
    run_tests "$1" --label-regex "^($labels)\$" --exclude-regex '^cuda_(emulated_)?selftest|^cuda_compiled'
}
# Of the bodies of CUDA kernels, those of one type, and between ranks the short tests; the gate leaves them out, since the emulator
# finds races itself (race_test.cpp). Headers are compiled alone here, since Clang parses them in half the time.
sanitized_thread_tests() {
  local targets=(batchnorm_thread_tests) labels=threads
  if ! $all; then
    targets+=(batchnorm_cuda_emulator_tests) labels='threads|cuda'
  fi
  if $headers; then
    targets+=(all_verify_interface_header_sets)
  fi
  build "$1" "${targets[@]}" &&
    run_tests "$1" --label-regex "$labels" --exclude-regex '^Device.*<(double|Eigen::.*)>|^DeviceRanks\.(For|Back)wardKeeps|^cuda_'
}

# python_with NAME PACKAGE...: sets python to that of an environment that has these packages of PyPI.
python_with() {
  local folder=$PWD/build/tests/frameworks/$1
  shift
  python=$folder/bin/python
  [[ -x $python ]] || python3 -m venv "$folder" && "$python" -m pip install --quiet "$@"
}
# framework_test PYTHON FILE: a skipped one says why.
framework_test() {
  local status=0 log=$logs/${2##*/}.log
  if ! command -v "$1" > /dev/null; then
    echo "   skipped: not installed (python3)"
    skipped_now=1
    return 0
  fi
  "$@" > "$log" 2>&1 || status=$?
  if ((status == 77)); then
    echo "   $(tail -n 1 "$log")"
    skipped_now=1
    return 0
  fi
  tail -n $((status == 0 ? 1 : 200)) "$log"
  return $status
}
pytorch() {
  local python=python3
  if $frameworks; then
    watched pytorch-install python_with pytorch torch numpy expecttest ninja setuptools &&
      watched pytorch-build "$python" -m pip install --no-build-isolation --force-reinstall --no-deps ./examples/pytorch ||
      return 1
  fi
  framework_test "$python" examples/pytorch/test_batchnorm_torch.py
}
mindspore() {
  local python=python3
  if $frameworks; then
    watched mindspore-install python_with mindspore mindspore 'numpy<2' || return 1
  fi
  BATCHNORM_MINDSPORE_LIBRARY=$PWD/build/tests/${builds%% *}/lib/libbatchnorm_mindspore.so GLOG_v=3 \
    framework_test "$python" examples/mindspore/test_batchnorm_mindspore.py
}

# fuzz BUILD: seeds by the clock, so that no two runs try the same cases; a failure names its own.
searches='*Fuzz*:*Search*'
fuzz() {
  local bin=build/tests/$1/bin minutes status=0
  watched fuzz "$bin/batchnorm_fuzz" --seconds $((fuzz_minutes * 30)) --first $(($(date +%s) * 1000000)) || status=1
  [[ -t 1 ]] || tail -n 1 "$logs/fuzz.log"
  minutes=$(search_minutes "$bin")
  for program in $(search_programs "$bin"); do
    BATCHNORM_FUZZ_MINUTES=$minutes watched "searches-${program##*/}" "$program" --gtest_filter="$searches" || status=1
  done
  return $status
}
# search_programs BIN: the programs that have such tests.
search_programs() {
  for program in "$1"/batchnorm*_tests; do
    if [[ -n $(list_searches "$program") ]]; then echo "$program"; fi
  done
}
# list_searches PROGRAM: its suites that search. One of several types is one.
list_searches() {
  "$1" --gtest_filter="$searches" --gtest_list_tests | sed -n 's:^\([A-Za-z_0-9]*\)[./].*:\1:p' | sort -u
}
# search_minutes BIN: what each of these suites gets of half of the minutes, a fraction.
search_minutes() {
  local suites=0
  for program in $(search_programs "$1"); do
    suites=$((suites + $(list_searches "$program" | wc -l)))
  done
  awk -v minutes="$fuzz_minutes" -v suites="$suites" 'BEGIN { print minutes / 2 / (suites > 0 ? suites : 1) }'
}

builds=release
if $compilers; then
  builds="gcc-release clang-release"
  for preset in $builds; do
    step "tests, $preset" usual_tests "$preset"
  done
else
  step "tests" usual_tests release
fi
if $sanitizers; then
  configure_options=("${sanitizer_options[@]}")
  step "address and undefined-behaviour sanitizers" sanitized_tests clang-sanitize-address-undefined
  # Which threads do what does not depend on the width of vectors: less than half to compile.
  configure_options=(-D CMAKE_CXX_FLAGS=-DBATCHNORM_BASELINE_ONLY "${cuda_options[@]}")
  step "thread sanitizer" sanitized_thread_tests clang-sanitize-thread
fi
if $consumers; then
  step "consumers" watched consumers tests/consumers/run.sh
fi
if $examples; then
  names=(train_mnist normalize_images)
  if $mpi; then
    names+=(mpi_training)
  fi
  step "examples" watched examples examples/run.sh --build-folder="build/tests/${builds%% *}" "${names[@]}"
fi
if ((fuzz_minutes > 0)); then
  step "fuzzers, $fuzz_minutes minutes" fuzz "${builds%% *}"
fi
if $frameworks || $all; then
  step "PyTorch" pytorch
  step "MindSpore" mindspore
fi

echo
echo "where the time went, $SECONDS s (a build is part of the step after it):"
printf '  %s\n' "${spent[@]}"
instruction_sets=build/tests/${builds%% *}/bin/instruction_sets
if [[ -x $instruction_sets ]]; then
  "$instruction_sets"
fi
echo "$((100 * passed / (passed + failed)))% tests passed, $failed tests failed out of $((passed + failed)), $skipped skipped"
if ((${#failures[@]} > 0)); then
  printf 'failed: %s\n' "${failures[@]}"
  exit 1
fi
