// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "support/calls.hpp"

// Searches for data that break the promise of docs/numerics.md: random starts of hostile kinds, from which it climbs to larger
// errors. The seed is fixed; the search takes about a second, or as many minutes as BATCHNORM_FUZZ_MINUTES says, shared among
// the types.
namespace {

using namespace support;

/// What the errors are measured of.
enum class Quantity { mean, variance, y };
constexpr Quantity quantities[] = {Quantity::mean, Quantity::variance, Quantity::y};

const Worst& of(const Errors& errors, Quantity quantity) {
  return quantity == Quantity::mean ? errors.mean : quantity == Quantity::variance ? errors.variance : errors.y;
}

/// Values of one channel by few numbers, which are what the search changes: runs of both signs, large values in front, an
/// offset, last bits.
struct Genome {
  std::int64_t run = 1;    ///< values of one sign in a row
  std::int64_t large = 1;  ///< the first so many
  double large_size = 1;   ///< are this large,
  double size = 1;         ///< the others this,
  double spread = 0;       ///< more or less by this share,
  double offset = 0;       ///< about this,
  double bits = 0;         ///< with so many ulps more in every value of positive sign,
  std::int64_t every = 2;  ///< and once more in every so many values
  std::uint64_t seed = 1;

  static Genome random(Random& from) {
    Genome g;
    g.run = std::int64_t{1} << from.integer(0, 12);
    g.large = from.integer(0, 1) == 0 ? 0 : std::int64_t{1} << from.integer(0, 7);
    g.large_size = std::ldexp(from.uniform(1, 2), static_cast<int>(from.integer(0, 27)));
    g.size = std::ldexp(from.uniform(1, 2), static_cast<int>(from.integer(-2, 2)));
    g.spread = from.integer(0, 1) == 0 ? 0 : std::ldexp(1.0, -static_cast<int>(from.integer(0, 52)));
    g.offset = from.integer(0, 2) == 0 ? std::ldexp(from.uniform(-2, 2), static_cast<int>(from.integer(-10, 24))) : 0;
    g.bits = static_cast<double>(from.integer(-4, 4)) * std::ldexp(1.0, static_cast<int>(from.integer(0, 12)));
    g.every = from.integer(1, 5);
    g.seed = from.bits();
    return g;
  }
  Genome changed(Random& from) const {
    Genome g = *this;
    const Genome other = random(from);
    switch (from.integer(0, 9)) {
      case 0: g.run = other.run; break;
      case 1: g.large = other.large; break;
      case 2: g.large_size *= from.uniform(0.5, 2); break;
      case 3: g.size *= from.uniform(0.5, 2); break;
      case 4: g.spread = other.spread; break;
      case 5: g.offset = other.offset; break;
      case 6: g.bits = other.bits; break;
      case 7: g.every = other.every; break;
      case 8: g.size *= from.uniform(0.999, 1.001); break;
      default: g.seed = other.seed; break;
    }
    return g;
  }

  template <class T>
  std::vector<T> values(std::int64_t m) const {
    Random noise(seed);
    std::vector<T> result;
    const double limit = std::ldexp(1.0, sizeof(T) == 8 ? 400 : precision<T>().highest - 2);
    for (std::int64_t i = 0; i < m; ++i) {
      double value = (i < large ? large_size : size) * (1 + spread * noise.uniform(-1, 1));
      const auto ulp = static_cast<double>(ulp_at<T>(value));
      if (i / run % 2 == 0) value += bits * ulp;
      if (i % every == 0) value += bits * ulp;
      const double signed_value = offset + (i / run % 2 == 0 ? value : -value);
      result.push_back(element<T>(std::clamp(signed_value, -limit, limit)));
    }
    return result;
  }
};

/// Shapes that differ in how they are summed: long planes, columns of small ones, rows side by side, wide rows.
struct Place {
  Format format;
  Sizes sizes;
};
constexpr Place places[] = {{Format::NCHW, {1, 1, 1024}}, {Format::NCHW, {2, 1, 1021}}, {Format::NCHW, {128, 3, 9}},
                            {Format::NCHW, {33, 1, 48}},  {Format::NHWC, {1, 2, 4096}}, {Format::NHWC, {1, 3, 1500}},
                            {Format::NHWC, {1, 17, 256}}};

template <class T>
Call<T, batchnorm::parameter_t<T>> call_with(const Place& place, const Genome& genome) {
  using P = batchnorm::parameter_t<T>;
  Call<T, P> call{shape_of(place.format, 3, place.sizes), place.format, {.is_training = true}};
  const Extents e = call.extents();
  const std::int64_t m = e.n * e.s;
  const auto values = genome.values<T>(m);
  call.options.epsilon = 1e-5;
  call.x.resize(static_cast<std::size_t>(m * e.c));
  for (std::int64_t i = 0; i < m; ++i) {
    // The channels take the values in different orders.
    for (std::int64_t c = 0; c < e.c; ++c) {
      call.x[e.index(i / e.s, c, i % e.s)] = values[static_cast<std::size_t>(c % 2 == 0 ? i : m - 1 - i)];
    }
  }
  return call;
}

/// The worst that was found of each quantity and instruction set.
struct Found {
  Worst worst[3][4];

  void note(Isa isa, const Errors& errors) {
    for (const Quantity q : quantities) {
      worst[static_cast<int>(q)][static_cast<int>(isa) % 4].merge(of(errors, q));
    }
  }
};

template <class T>
Errors errors_of(const Place& place, const Genome& genome, Isa isa) {
  const auto call = call_with<T>(place, genome);
  batchnorm::force_isa(isa);
  return errors(call, run(call), expected(call), isa);
}

/// Climbs from a random start until `steps` changes have brought nothing.
template <class T>
void climb(Random& random, const Place& place, Isa isa, Quantity quantity, int steps, Found& found) {
  Genome best = Genome::random(random);
  Errors errors = errors_of<T>(place, best, isa);
  found.note(isa, errors);
  Real share = of(errors, quantity).share;
  for (int in_vain = 0; in_vain < steps;) {
    const Genome next = best.changed(random);
    errors = errors_of<T>(place, next, isa);
    found.note(isa, errors);
    if (of(errors, quantity).share > share) {
      share = of(errors, quantity).share, best = next, in_vain = 0;
    } else {
      ++in_vain;
    }
  }
}

template <class T>
class PromiseSearch : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(PromiseSearch, ElementTypes);

TYPED_TEST(PromiseSearch, FindsNothingThatBreaksThePromise) {
  using Clock = std::chrono::steady_clock;
  const char* minutes = std::getenv("BATCHNORM_FUZZ_MINUTES");
  const auto share_of_time = std::chrono::duration<double>(minutes == nullptr ? 0 : std::atof(minutes) * 60 / 4);
  const auto start = Clock::now();
  const IsaScope restore;
  Random random(20);
  Found found;
  const auto isas = batchnorm::available_isas();
  do {
    for (const Place& place : places) {
      for (const Quantity quantity : quantities) {
        const Isa isa = isas[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(isas.size()) - 1))];
        climb<TypeParam>(random, place, isa, quantity, minutes == nullptr ? 3 : 40, found);
      }
    }
  } while (Clock::now() - start < share_of_time);
  constexpr const char* names[] = {"mean", "variance", "y"};
  for (const Quantity q : quantities) {
    for (const Isa isa : isas) {
      const Worst& worst = found.worst[static_cast<int>(q)][static_cast<int>(isa) % 4];
      SCOPED_TRACE(std::string(batchnorm::to_string(isa)));
      expect_kept(worst, names[static_cast<int>(q)]);
      std::printf("%-9s %-10s %-9s %7.4Lf ulp, %6.3Lf of the promise\n",
                  std::string(batchnorm::element_name<TypeParam>()).c_str(), std::string(batchnorm::to_string(isa)).c_str(),
                  names[static_cast<int>(q)], worst.ulps, worst.share);
    }
  }
}

}  // namespace
