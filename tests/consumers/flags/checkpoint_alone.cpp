// SPDX-License-Identifier: MIT
// Compiled with -O3 -Wall -Werror, the library's folder as one of the system's: what a compiler infers from inlined code is
// reported all the same.
#include <cstdio>

#include <batchnorm/checkpoint.hpp>

int main(int count, char** arguments) {
  if (count < 2) return std::puts("no warnings") < 0 ? 1 : 0;
  const auto layer = batchnorm::load_npz<float>(arguments[1]);
  batchnorm::save_npz(arguments[1], layer);
  const auto other = batchnorm::load_npy_folder<float>(arguments[1]);
  batchnorm::save_npy_folder(arguments[1], other);
  return layer.batches == other.batches ? 0 : 1;
}
