// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <iostream>
#include <string>
#include <type_traits>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/batchnorm.hpp>

namespace support {

using batchnorm::Format;
using batchnorm::Isa;
using batchnorm::Shape;

/// Numbers that are the same on every machine (splitmix64).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }

  /// In [low, high), on a grid of 2^-53 of the range.
  double uniform(double low, double high) { return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53; }

  /// In [low, high], both included.
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(high - low + 1));
  }

 private:
  std::uint64_t state_;
};

template <class T>
T element(double value) {
  if constexpr (std::is_same_v<T, double>) return value;
  return static_cast<T>(static_cast<float>(value));
}

/// `size` values of generate().
template <class T, class Generate>
std::vector<T> filled(std::int64_t size, Generate generate) {
  std::vector<T> values(static_cast<std::size_t>(size));
  for (T& value : values) value = element<T>(generate());
  return values;
}

template <class T>
std::vector<T> uniform(std::int64_t size, double low, double high, std::uint64_t seed) {
  Random random(seed);
  return filled<T>(size, [&] { return random.uniform(low, high); });
}

/// Images, channels and values per plane.
struct Sizes {
  std::int64_t n, c, s;
};

/// A shape of that rank with n images, c channels and s values per plane (rank 2: s must be 1).
inline Shape shape_of(Format format, int rank, std::int64_t n, std::int64_t c, std::int64_t s) {
  std::vector<std::int64_t> spatial(static_cast<std::size_t>(rank - 2), 1);
  std::int64_t rest = s;
  for (std::size_t axis = 0; axis + 1 < spatial.size(); ++axis) {
    for (const std::int64_t divisor : {2, 3, 5, 7}) {
      if (spatial[axis] == 1 && rest > divisor && rest % divisor == 0) spatial[axis] = divisor, rest /= divisor;
    }
  }
  if (!spatial.empty()) spatial.back() = rest;
  std::vector<std::int64_t> all{n};
  if (format == Format::NCHW) all.push_back(c);
  all.insert(all.end(), spatial.begin(), spatial.end());
  if (format == Format::NHWC) all.push_back(c);
  return Shape(all);
}

inline Shape shape_of(Format format, int rank, const Sizes& sizes) { return shape_of(format, rank, sizes.n, sizes.c, sizes.s); }

inline constexpr Format formats[] = {Format::NCHW, Format::NHWC};

/// Names the instruction sets that exist but not here, once per program. Not in GoogleTest's words for a skipped test: CTest
/// would then take the whole test for skipped, and not see it fail.
inline void report_absent_isas() {
  static const bool reported = [] {
    const auto available = batchnorm::available_isas();
    for (const Isa isa : {Isa::baseline, Isa::x86_64_v3, Isa::x86_64_v4}) {
      if (std::find(available.begin(), available.end(), isa) == available.end()) {
        std::cout << "[  ABSENT  ] instruction set " << batchnorm::to_string(isa) << ": not available here\n";
      }
    }
    return true;
  }();
  static_cast<void>(reported);
}

/// Restores the choice of an instruction set as it was before, whether forced or left to the library.
class IsaScope {
 public:
  IsaScope() : before_(batchnorm::detail::chosen_isa.load()) {}
  IsaScope(const IsaScope&) = delete;
  IsaScope& operator=(const IsaScope&) = delete;
  ~IsaScope() { batchnorm::detail::chosen_isa.store(before_); }

 private:
  int before_;
};

/// body(isa) with each available instruction set forced.
template <class Body>
void for_each_isa(Body&& body) {
  report_absent_isas();
  const IsaScope restore;
  for (const Isa isa : batchnorm::available_isas()) {
    SCOPED_TRACE(std::string(batchnorm::to_string(isa)));
    batchnorm::force_isa(isa);
    body(isa);
    if (testing::Test::HasFatalFailure()) return;
  }
}

/// One of the combinations of element and parameter type that the library knows.
template <class Element, class Parameter>
struct Types {
  using T = Element;
  using P = Parameter;
};

using EveryTypes = testing::Types<Types<float, float>, Types<float, batchnorm::half>, Types<batchnorm::half, float>,
                                  Types<batchnorm::half, batchnorm::half>, Types<batchnorm::bfloat16, float>,
                                  Types<batchnorm::bfloat16, batchnorm::bfloat16>, Types<double, double>>;

/// Every element type and every parameter type once, for what does not depend on how they are combined.
using EveryElement = testing::Types<Types<float, float>, Types<batchnorm::half, batchnorm::half>,
                                    Types<batchnorm::bfloat16, batchnorm::bfloat16>, Types<double, double>>;

/// "half_with_float"
template <class Both>
std::string name_of() {
  return std::string(batchnorm::element_name<typename Both::T>()) + "_with_" +
         std::string(batchnorm::element_name<typename Both::P>());
}

struct TypesNames {
  template <class Both>
  static std::string GetName(int) {
    return name_of<Both>();
  }
};

}  // namespace support
