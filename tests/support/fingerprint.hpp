// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "fingerprint_problem.hpp"

// Fingerprint tests hash the results of many calls bit by bit and compare the hashes with those recorded in
// data/fingerprint/hashes.txt. They guard changes that must not change a single bit of any result.
//
// A line of the file stands for one group of calls on one instruction set. A failure names the group; the environment variable
// BATCHNORM_FINGERPRINT finds the call, and records new hashes:
//
//   BATCHNORM_FINGERPRINT=print    prints a line for each call: group, instruction set, hash, description. Print before and
//                                  after a change and compare the outputs with diff. Nothing is compared with the file.
//   BATCHNORM_FINGERPRINT=record   writes the hashes of the groups that run into the file. Run the program itself; CTest starts
//                                  a process for each test, and they would overwrite each other's lines:
//
//       BATCHNORM_FINGERPRINT=record bin/batchnorm_tests --gtest_filter='*Fingerprint*'
//
// Record only when results are meant to change, and say why in the commit. Record on a processor that has all instruction sets,
// first with GCC at -O2, then with Clang. On instruction sets with FMA, GCC contracts products and sums to one instruction
// where it optimizes; Clang, and GCC at -O0, do so only where the code says fma. In the few groups where that matters, results
// without contraction have lines of their own, "x86-64-v3,uncontracted". Delete the lines of groups that no longer exist by
// hand.
//
// Every call is repeated with other executors and tunings, which must not change its hash.
namespace support::fingerprint {

/// A hash of values in which every bit counts, except in NaNs: all NaNs of a type hash alike.
class Hash {
 public:
  template <class T>
  void add(std::span<const T> values);
  template <class T>
  void add(const std::vector<T>& values) {
    add(std::span<const T>(values));
  }
  void add(std::int64_t value) { add_word(static_cast<std::uint64_t>(value)); }
  void add(const batchnorm::Moments& moments) { add(moments.count), add(moments.mean), add(moments.mean_low), add(moments.m2); }
  void add(const batchnorm::GradientSums& sums) { add(sums.count), add(sums.dy), add(sums.dy_x); }

  std::uint64_t value() const { return state_; }

 private:
  void add_word(std::uint64_t word) {
    state_ = (state_ ^ word) * 0x9e3779b97f4a7c15U;
    state_ ^= state_ >> 32;  // spreads the highest bit, which the multiplication leaves in place: two flips of it would cancel
  }

  std::uint64_t state_ = 0xcbf29ce484222325U;
};

/// Makes a call with these options and adds its results to the hash. It gets called several times and starts from the same
/// inputs each time.
using MakeCall = std::function<void(const batchnorm::CallOptions&, Hash&)>;

/// The calls of one group and the hashes of their results.
class Group {
 public:
  explicit Group(std::string name);

  /// Decides what the calls are; the name of the group is the seed, so that groups do not depend on each other. Draw in
  /// statements of their own or in braces: compilers differ in the order in which they evaluate arguments.
  Random& random() { return random_; }
  /// True with a chance of 1 in `count`.
  bool one_in(std::int64_t count) { return random_.integer(1, count) == 1; }

  /// Makes the call on every available instruction set, with the default executor and tuning and then with others.
  void call(const std::string& text, const MakeCall& make);

  /// Compares the hashes with the recorded ones, or does what BATCHNORM_FINGERPRINT says.
  void finish() const;

 private:
  void expect_same_with_others(const std::string& text, const MakeCall& make, std::uint64_t expected);

  std::string name_;
  Random random_;
  std::size_t calls_ = 0;
  bool is_determinate_ = true;
  std::vector<Isa> isas_;
  std::vector<Hash> hashes_;  // one for each of isas_
  batchnorm::SerialExecutor one_;
  batchnorm::ThreadTeam two_{2}, three_{3}, five_{5};
};

/// The element types, for suites with parameters of the usual type.
using Elements = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;

struct ElementNames {
  template <class T>
  static std::string GetName(int) {
    return std::string(batchnorm::element_name<T>());
  }
};

/// Whether this build has the arithmetic that was recorded: x86-64, no flags for further instruction sets, no -ffast-math.
bool is_recorded_build();

/// Runs the group of that name: body(group, problem) for small problems and a large one in each memory order.
template <class T, class P, class Body>
void check_group(const std::string& name, std::initializer_list<Memory> orders, const Body& body) {
  constexpr int small_problems = 8;
  if (!is_recorded_build()) GTEST_SKIP() << "hashes are recorded for x86-64 without flags that change its arithmetic";
  Group group(name);
  for (const Memory memory : orders) {
    for (int i = 0; i <= small_problems; ++i) {
      const bool is_large = i == small_problems;
      const auto problem = random_problem<T, P>(group.random(), memory, is_large);
      body(group, problem);
    }
  }
  group.finish();
}

/// Runs one group with both memory orders, "operation/half_with_float/both/variant".
template <class T, class P, class Body>
void check_mixed_group(const std::string& operation, const std::string& variant, const Body& body) {
  check_group<T, P>(operation + "/" + name_of<Types<T, P>>() + "/both/" + variant, {Memory::planes, Memory::rows}, body);
}

/// Runs one group for each memory order, "operation/half_with_float/planes/variant" and ".../rows/...". With a second type of
/// parameters, which walks do not depend on, one group has both.
template <class T, class P, class Body>
void check_groups(const std::string& operation, const std::string& variant, const Body& body) {
  if constexpr (!std::is_same_v<P, batchnorm::parameter_t<T>>) return check_mixed_group<T, P>(operation, variant, body);
  for (const auto& [memory, order] : {std::pair(Memory::planes, "planes"), {Memory::rows, "rows"}}) {
    check_group<T, P>(operation + "/" + name_of<Types<T, P>>() + "/" + order + "/" + variant, {memory}, body);
  }
}

}  // namespace support::fingerprint
