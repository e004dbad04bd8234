// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <functional>

#include "support/gradient_calls.hpp"

// A search for the worst error of each promise about gradients (docs/numerics.md): candidates, one to a channel, are changed at
// random, and a change stays where it makes the error a larger share of what is promised. BATCHNORM_FUZZ_MINUTES=60 spreads an
// hour over the searches; without it each has a fixed number of rounds.
namespace {

using namespace support;

constexpr std::size_t candidates = 64;

/// Rounds of a search without a budget. half and bfloat16 are near their half of an ulp at once.
template <class T>
constexpr int rounds = sizeof(T) == 2 ? 5 : 100;

/// What a candidate is made of, by its place in the search.
using Genes = std::vector<double>;

/// How long a search goes on.
class Budget {
 public:
  explicit Budget(int rounds) : rounds_(rounds) {}
  bool allows(int round) const { return minutes_ > 0 ? std::chrono::steady_clock::now() < end_ : round < rounds_; }

 private:
  static double minutes() {
    const char* text = std::getenv("BATCHNORM_FUZZ_MINUTES");
    return text == nullptr ? 0 : std::atof(text);
  }

  // Two dozen types, instruction sets and promises share it.
  int rounds_;
  double minutes_ = minutes() / 64;
  std::chrono::steady_clock::time_point end_ =
      std::chrono::steady_clock::now() + std::chrono::microseconds(static_cast<std::int64_t>(minutes_ * 60e6));
};

/// A factor between 1/4 and 4 of either sign; every other one is next to a power of two, where relative errors are largest.
double seed(Random& random) {
  const double sign = random.integer(0, 1) == 0 ? 1 : -1, power = std::ldexp(1.0, static_cast<int>(random.integer(-1, 1)));
  if (random.integer(0, 1) == 0) return sign * power * random.uniform(0.5, 2);
  return sign * power * (1 + std::ldexp(random.uniform(-1, 1), -static_cast<int>(random.integer(8, 26))));
}

/// Climbs to a large share of the promise. `shares(all)` gives that of each of the candidates.
struct Climb {
  Real share = 0;
  Genes genes;
};

Climb climb(std::size_t size, int rounds, std::uint64_t number,
            const std::function<std::vector<Real>(const std::vector<Genes>&)>& shares) {
  Random random(number);
  std::vector<Genes> all(candidates, Genes(size));
  for (Genes& genes : all) {
    for (double& gene : genes) gene = seed(random);
  }
  std::vector<Real> best = shares(all);
  std::size_t first = 0;
  const Budget budget(rounds);
  for (int round = 0; budget.allows(round); ++round) {
    std::vector<Genes> changed = all;
    for (Genes& genes : changed) {
      if (random.integer(0, 3) == 0) genes = all[first];
      for (std::int64_t changes = random.integer(1, 3); changes > 0; --changes) {
        double& gene = genes[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(size) - 1))];
        if (random.integer(0, 15) == 0) gene = seed(random);
        gene *= 1 + std::ldexp(random.uniform(-1, 1), -static_cast<int>(random.integer(1, 30)));
      }
    }
    const std::vector<Real> got = shares(changed);
    for (std::size_t i = 0; i < candidates; ++i) {
      if (!(got[i] > best[i])) continue;
      best[i] = got[i], all[i] = changed[i];
      if (best[i] > best[first]) first = i;
    }
  }
  return {best[first], all[first]};
}

/// Holds the promise, and the search to half of it: one that finds nothing shows nothing.
template <class T>
void expect_within(const Climb& found, Real least, const char* what) {
  std::string text;
  for (const double gene : found.genes) text.append(" ").append(std::to_string(gene));
  EXPECT_LE(found.share, 1) << what << " of" << text;
  EXPECT_GE(found.share, least) << what << ": the search finds too little";
  testing::Test::RecordProperty(std::string(what) + "_" + std::string(to_string(batchnorm::active_isa())),
                                std::to_string(found.share));
  if (std::getenv("BATCHNORM_FUZZ_MINUTES") != nullptr) {
    std::printf("%-10s %-12s %-24s %6.4Lf of the promise\n", std::string(batchnorm::element_name<T>()).c_str(),
                std::string(to_string(batchnorm::active_isa())).c_str(), what, found.share);
  }
}

template <class T>
class GradientPromiseSearch : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(GradientPromiseSearch, ElementTypes);

/// The channels' values of one gene, as a type holds them.
template <class V>
std::vector<V> column(const std::vector<Genes>& all, std::size_t gene) {
  std::vector<V> values;
  for (const Genes& genes : all) values.push_back(element<V>(genes[gene]));
  return values;
}

/// Variances are positive and not beside epsilon.
template <class P>
std::vector<P> variance_column(const std::vector<Genes>& all, std::size_t gene) {
  std::vector<P> values = column<P>(all, gene);
  for (P& value : values) value = element<P>(std::abs(static_cast<double>(real(value))));
  return values;
}

// One value per channel, and sums as large as they like: nothing of the sums' own errors.
TYPED_TEST(GradientPromiseSearch, FindsNoDxInTrainingThatBreaksIt) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  const Shape shape{1, static_cast<std::int64_t>(candidates)};
  constexpr double epsilon = 1e-5;
  for_each_isa([&](Isa isa) {
    const Climb found = climb(7, 4 * rounds<T>, 1, [&](const std::vector<Genes>& all) {
      const auto scale = column<P>(all, 0), variance = variance_column<P>(all, 1), mean = column<P>(all, 2);
      const auto x = column<T>(all, 3), dy = column<T>(all, 4);
      batchnorm::GradientSums sums(static_cast<std::int64_t>(candidates));
      sums.count = 1, sums.dy = column<double>(all, 5), sums.dy_x = column<double>(all, 6);
      std::vector<T> dx(candidates);
      batchnorm::input_gradient<T, P>(Format::NCHW,
                                      {.dy = {dy.data(), shape},
                                       .x = {x.data(), shape},
                                       .scale = scale,
                                       .mean = batchnorm::TensorView<const P>(mean),
                                       .variance = variance},
                                      sums, epsilon, {{dx.data(), shape}});
      std::vector<Real> shares;
      for (std::size_t c = 0; c < candidates; ++c) {
        const Real square = real(variance[c]) + static_cast<Real>(epsilon), a = real(scale[c]) / std::sqrt(square);
        const Real of_x = a * (real(x[c]) - real(mean[c])) * static_cast<Real>(sums.dy_x[c]) / square;
        const Real of_dz = a * real(dy[c]), of_mean = a * static_cast<Real>(sums.dy[c]);
        const Gradient want{of_dz - of_mean - of_x, largest({of_dz, of_mean, of_x}), std::abs(of_mean) + std::abs(of_x)};
        shares.push_back(error(dx[c], want.value) / allowed_gradient_error<T>(want, dx_ulps<T>(isa, true)));
      }
      return shares;
    });
    // double is allowed the errors of sums, which are exact here; half and bfloat16 are always near half an ulp.
    expect_within<T>(found, sizeof(T) == 8 ? 0.01L : 0.6L, "dx, training");
  });
}

TYPED_TEST(GradientPromiseSearch, FindsNoDxInInferenceThatBreaksIt) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  const Shape shape{1, static_cast<std::int64_t>(candidates)};
  const batchnorm::Options options{.is_training = false};
  for_each_isa([&](Isa isa) {
    const Climb found = climb(3, rounds<T>, 2, [&](const std::vector<Genes>& all) {
      const auto scale = column<P>(all, 0), variance = variance_column<P>(all, 1);
      const auto dy = column<T>(all, 2);
      std::vector<T> dx(candidates);
      batchnorm::batch_norm_backward<T, P>(Format::NCHW, options, {dy.data(), shape}, {dy.data(), shape}, scale, variance,
                                           variance, {{dx.data(), shape}});
      std::vector<Real> shares;
      for (std::size_t c = 0; c < candidates; ++c) {
        const Real want = real(scale[c]) / std::sqrt(real(variance[c]) + static_cast<Real>(options.epsilon)) * real(dy[c]);
        shares.push_back(error(dx[c], want) / (ulp_at<T>(std::abs(want)) * dx_ulps<T>(isa, false)));
      }
      return shares;
    });
    expect_within<T>(found, 0.8L, "dx, inference");
  });
}

/// Values per channel, and the bits of no element that passes.
constexpr std::int64_t leaky_values = 4;
const std::vector<std::uint8_t> none_passes(candidates* leaky_values / 8);

/// The shares of dx, all of it through the negative piece of a leaky ReLU whose slope is a candidate's gene as well.
template <class T>
std::vector<Real> leaky_shares(const std::vector<Genes>& all, Isa isa, bool is_training, double dy_factor, double slope) {
  using P = batchnorm::parameter_t<T>;
  constexpr std::int64_t m = leaky_values;
  const Extents e{m, static_cast<std::int64_t>(candidates), 1};
  GradientCall<T, P> call{Shape{m, e.c}, Format::NCHW, {.is_training = is_training}};
  call.scale = column<P>(all, 0), call.variance = variance_column<P>(all, 1), call.mean = column<P>(all, 2);
  for (std::size_t i = 0; i < m; ++i) {
    for (const Genes& genes : all) {
      call.x.push_back(element<T>(genes[3 + i])), call.dy.push_back(element<T>(dy_factor * genes[3 + m + i]));
    }
  }
  std::vector<T> dx(call.x.size());
  batchnorm::batch_norm_backward<T, P>(call.format, call.options, call.dy_view(), call.x_view(), view(call.scale), call.mean,
                                       call.variance, {{dx.data(), call.shape}}, ThroughLeakyMask{none_passes, {slope}});
  const Real factor = sizeof(T) == 8 ? static_cast<Real>(slope) : static_cast<Real>(static_cast<float>(slope));
  std::vector<Real> shares;
  for (std::int64_t c = 0; c < e.c; ++c) {
    const Channel channel = call.channel(c);
    Values dz = channel_values<T>(call.dy, e, c);
    for (Real& value : dz) value *= factor;
    const auto want = backward(channel, dz, channel_values<T>(call.x, e, c)).dx;
    Real share = 0;
    for (std::int64_t i = 0; i < m; ++i) {
      const Gradient& at = want[static_cast<std::size_t>(i)];
      const Real allowed = allowed_gradient_error<T>(at, leaky_dx_ulps<T>(isa, is_training)) +
                           std::abs(channel.scale * channel.r()) * leaky_dx_underflow<T>;
      share = std::max(share, error(dx[e.index(i, c, 0)], at.value) / allowed);
    }
    shares.push_back(share);
  }
  return shares;
}

TYPED_TEST(GradientPromiseSearch, FindsNoDxThroughALeakyReluThatBreaksIt) {
  using T = TypeParam;
  for (const bool is_training : {true, false}) {
    for_each_isa([&](Isa isa) {
      const Climb found = climb(11, rounds<T>, 3,
                                [&](const std::vector<Genes>& all) { return leaky_shares<T>(all, isa, is_training, 1, 0.3); });
      const Real least = sizeof(T) == 8 && is_training ? 0.01L : 0.5L;
      expect_within<T>(found, least, is_training ? "dx, leaky, training" : "dx, leaky, inference");
    });
  }
}

// slope * dy is below the normal numbers, dx is not: what dz loses there counts a times.
TYPED_TEST(GradientPromiseSearch, FindsNoDxOfASubnormalDzThatBreaksIt) {
  using T = TypeParam;
  constexpr int lowest = sizeof(T) == 8 ? -1022 : -126;
  if constexpr (precision<T>().lowest != lowest) return;  // half: float holds what is below its normal numbers
  for (const bool is_training : {true, false}) {
    if (sizeof(T) == 8 && is_training) continue;  // its sums lose as much as dz does
    for_each_isa([&](Isa isa) {
      const Climb found = climb(11, rounds<T> / 2, 4, [&](std::vector<Genes> all) {
        for (Genes& genes : all) genes[0] *= 0x1p20;  // a lifts dx into the normal numbers
        return leaky_shares<T>(all, isa, is_training, std::ldexp(1.0, lowest + 2), 0x1.3p-9);
      });
      expect_within<T>(found, 0.2L, is_training ? "dx, subnormal, training" : "dx, subnormal, inference");
    });
  }
}

TYPED_TEST(GradientPromiseSearch, FindsNoDoubleGradientThatBreaksIt) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  constexpr std::int64_t m = 3;
  const Extents e{m, static_cast<std::int64_t>(candidates), 1};
  for (const bool is_training : {true, false}) {
    for_each_isa([&](Isa isa) {
      for (const bool of_dx : {true, false}) {
        const Climb found = climb(5 + 3 * m, rounds<T>, 5, [&](const std::vector<Genes>& all) {
          DoubleGradientCall<T, P> call{{Shape{m, e.c}, Format::NCHW, {.is_training = is_training}}};
          call.of.scale = column<P>(all, 0), call.of.variance = variance_column<P>(all, 1), call.of.mean = column<P>(all, 2);
          call.ddscale = column<P>(all, 3), call.ddbias = column<P>(all, 4);
          call.ddx.emplace();
          for (std::size_t i = 0; i < m; ++i) {
            for (const Genes& genes : all) {
              call.of.x.push_back(element<T>(genes[5 + i])), call.of.dy.push_back(element<T>(genes[5 + m + i]));
              call.ddx->push_back(element<T>(genes[5 + 2 * m + i]));
            }
          }
          const auto got = run(call);
          const auto want = expected(call);
          std::vector<Real> shares;
          for (std::int64_t c = 0; c < e.c; ++c) {
            const auto& channel = want[static_cast<std::size_t>(c)];
            Real share = 0;
            for (std::int64_t i = 0; i < m; ++i) {
              const auto at = static_cast<std::size_t>(i);
              const Gradient& gradient = of_dx ? channel.dx[at] : channel.ddy[at];
              share = std::max(share, error((of_dx ? got.dx : got.ddy)[e.index(i, c, 0)], gradient.value) /
                                          allowed_gradient_error<T>(
                                              gradient, of_dx ? double_dx_ulps<T>(isa, is_training) : ddy_ulps<T>(isa)));
            }
            shares.push_back(share);
          }
          return shares;
        });
        const Real least = sizeof(T) == 8 ? 0.005L : 0.3L;
        expect_within<T>(found, least,
                         of_dx ? (is_training ? "double dx, training" : "double dx, inference")
                               : (is_training ? "ddy, training" : "ddy, inference"));
      }
    });
  }
}

// Sums: a first value far above the others, each of which is rounded the same way when it is added.
TYPED_TEST(GradientPromiseSearch, FindsNoSumThatBreaksItWhereEveryAdditionRoundsUpwards) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const std::int64_t m : {64, 1024, 2100}) {
    for (const Format format : formats) {
      for_each_isa([&](Isa isa) {
        for (const std::int64_t between : {1, 8, 32, 1024}) {  // the chains' first values, in some order of the lanes
          GradientCall<T, P> call{shape_of(format, 3, Sizes{1, 5, m}), format};
          const Extents e = call.extents();
          call.x.assign(static_cast<std::size_t>(m * e.c), element<T>(1));
          call.mean.assign(static_cast<std::size_t>(e.c), element<P>(0));
          call.variance.assign(static_cast<std::size_t>(e.c), element<P>(1));
          call.dy.resize(call.x.size());
          const double small = std::ldexp(1.0, -precision<T>().digits) * 1.001;
          for (std::int64_t i = 0; i < m; ++i) {
            for (std::int64_t c = 0; c < e.c; ++c) {
              call.dy[e.index(0, c, i)] = element<T>(i % 1024 < between ? 1 + 0.25 * static_cast<double>(c) : small);
            }
          }
          const auto seen = errors(call, run(call), expected(call), isa);
          expect_kept(seen.dscale, "dscale");
          expect_kept(seen.dbias, "dbias");
        }
      });
    }
  }
}

}  // namespace
