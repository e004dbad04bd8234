// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "plan.hpp"

// Random tensors and vectors.
namespace fuzz {

/// About the normal distribution: the sum of four uniform numbers, within 3.5 deviations.
inline double normal(Random& random) {
  double sum = 0;
  for (int i = 0; i < 4; ++i) sum += random.uniform(-1, 1);
  return sum * 0.866;
}

/// The numbers of one channel.
class ChannelValues {
 public:
  /// `lowest` and `highest` are exponents of the smallest and of the largest power of two.
  ChannelValues(Random& random, Data data, int lowest, int highest)
      : data_(data), tiny_(std::ldexp(1.0, lowest + static_cast<int>(random.integer(-3, 2)))) {
    const double largest = std::ldexp(1.0, highest - 1);
    const double sign = random.integer(0, 1) == 0 ? 1 : -1;
    if (data == Data::offset_1e3) offset_ = sign * 1e3;
    if (data == Data::offset_1e6) offset_ = sign * std::min(1e6, largest);
    if (data == Data::constant || data == Data::two_level)
      offset_ = sign * std::min(std::exp(random.uniform(-12, 14)), largest);
    if (data == Data::two_level) second_ = offset_ * (1 + std::exp2(-static_cast<double>(random.integer(0, 40))));
    if (data == Data::outlier) offset_ = sign * std::min(1e6, largest);
    if (data == Data::scaled) tiny_ = std::ldexp(1.0, static_cast<int>(random.integer(lowest / 4, highest / 4)));
  }

  double next(Random& random, bool is_first) const {
    switch (data_) {
      case Data::constant: return offset_;
      case Data::two_level: return random.integer(0, 1) == 0 ? offset_ : second_;
      case Data::outlier: return is_first ? offset_ : normal(random);
      case Data::subnormal: return tiny_ * random.uniform(-1, 1);
      case Data::integers: return static_cast<double>(random.integer(-8, 8));
      case Data::scaled: return tiny_ * normal(random);
      default: return offset_ + normal(random);
    }
  }

 private:
  Data data_;
  double tiny_, offset_ = 0, second_ = 0;
};

/// Values of the shape of x. P is the type that their statistics must fit.
template <class T, class P = T>
std::vector<T> draw_values(Random& random, const Plan& plan, Data data) {
  constexpr int highest = std::min(precision<T>().highest, precision<P>().highest);
  const Extents e = plan.extents();
  std::vector<T> values(static_cast<std::size_t>(e.n * e.c * e.s));
  for (std::int64_t c = 0; c < e.c; ++c) {
    const ChannelValues channel(random, data, precision<T>().lowest, highest);
    const std::int64_t first = random.integer(0, 1) == 0 ? 0 : random.integer(0, std::max<std::int64_t>(e.n * e.s - 1, 0));
    for (std::int64_t j = 0; j < e.n * e.s; ++j) {
      values[e.index(j / e.s, c, j % e.s)] = element<T>(channel.next(random, j == first));
    }
  }
  return values;
}

/// A channel vector whose values lie in [low, high), or nothing.
template <class P>
std::optional<std::vector<P>> draw_vector(Random& random, std::int64_t channels, double low, double high,
                                          double absent = 0.15) {
  if (random.uniform(0, 1) < absent) return std::nullopt;
  return filled<P>(channels, [&] { return random.uniform(low, high); });
}

/// Scales are of order 1, now and then 0, small or large.
template <class P>
std::optional<std::vector<P>> draw_scale(Random& random, std::int64_t channels) {
  if (random.uniform(0, 1) < 0.15) return std::nullopt;
  return filled<P>(channels, [&] {
    const double u = random.uniform(0, 1);
    return u < 0.05 ? 0 : u < 0.1 ? random.uniform(-1e-3, 1e-3) : u < 0.15 ? random.uniform(-1e3, 1e3) : random.uniform(-2, 2);
  });
}

/// What an output holds before the call.
template <class T>
std::vector<T> blank(std::size_t size) {
  return std::vector<T>(size, element<T>(unwritten));
}

/// The same bits, or NaN in both: which NaN it is may depend on the way.
template <class T>
void require_same(const char* name, const std::vector<T>& a, const std::vector<T>& b, const char* between) {
  require(a.size() == b.size(), std::string(name) + " has another size");
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(T)) == 0) continue;
    if (std::isnan(static_cast<double>(a[i])) && std::isnan(static_cast<double>(b[i]))) continue;
    char text[160];
    std::snprintf(text, sizeof text, "%s[%zu] differs between %s: %.17g and %.17g", name, i, between, static_cast<double>(a[i]),
                  static_cast<double>(b[i]));
    throw Failure(text);
  }
}

inline constexpr const char* two_ways = "two ways to run the call";

/// That the promise is kept.
inline void require_kept(const char* name, const Worst& worst) {
  if (worst.share <= 1) return;
  char text[160];
  std::snprintf(text, sizeof text, "%s[%zu] breaks the promise: %.3Lg times what is allowed (%.3Lg ulp)", name, worst.index,
                worst.share, worst.ulps);
  throw Failure(text);
}

/// The element and parameter types, by number.
using PairsOfTypes = std::tuple<Types<float, float>, Types<float, batchnorm::half>, Types<batchnorm::half, float>,
                                Types<batchnorm::half, batchnorm::half>, Types<batchnorm::bfloat16, float>,
                                Types<batchnorm::bfloat16, batchnorm::bfloat16>, Types<double, double>>;

/// The numbers of those that are called: one, in a program that has a bug to find (seeded_bugs), or all.
#if defined(BATCHNORM_FUZZED_TYPES)
using CalledTypes = std::index_sequence<BATCHNORM_FUZZED_TYPES>;
#else
using CalledTypes = std::make_index_sequence<std::tuple_size_v<PairsOfTypes>>;
#endif

/// body(Types<T, P>()) with the element and the parameter type of that number.
template <class Body>
void with_types(int types, Body&& body) {
  [&]<std::size_t... number>(std::index_sequence<number...>) {
    ((types == int{number} ? body(std::tuple_element_t<number, PairsOfTypes>()) : void()), ...);
  }(CalledTypes());
}

}  // namespace fuzz
