// SPDX-License-Identifier: MIT

// A small program that fails on every bug of seeded_bugs.txt (seeded_bugs.sh): calls of one element type, executed by the
// emulator, compared with what a naive reference says in long double. Ends with 0, or after the first difference with 1.

#include <cmath>
#include <cstdio>
#include <exception>
#include <limits>
#include <numeric>
#include <stdexcept>

#include <batchnorm/cuda/dispatch_ranks.hpp>

#include "slow_doubles.hpp"

namespace {

using namespace batchnorm::cuda;
using support::DeviceBuffer;
using support::OnSlowDoubles;
using support::Placement;
using support::Schedule;

using T = BATCHNORM_SEEDED_BUGS_ELEMENT;
using P = Parameter<T>;
using Real = long double;
using Reals = std::vector<Real>;
using Indices = std::vector<std::size_t>;

constexpr bool is_float = std::is_same_v<T, float>, is_double = std::is_same_v<T, double>, is_half = std::is_same_v<T, Half>;
constexpr int size = chunk_size<T>;
constexpr Real infinity = std::numeric_limits<Real>::infinity(), nan = std::numeric_limits<Real>::quiet_NaN();

struct Runtime {
  support::Emulator emulator;
  Device device;
  std::int64_t sweep_blocks = 0;  ///< unless 0, of every sweep: its grid may have any size

  template <class Body>
  void launch(const Body& body, Launch launch) {
    if constexpr (requires { body.chunks(); }) {
      if (sweep_blocks > 0) launch.blocks = sweep_blocks;
    }
    if constexpr (requires { body.team; }) {
      if (launch.shared_bytes > device.shared_bytes) throw std::runtime_error("a block's shared memory does not fit");
    }
    if (launch.cooperative && launch.blocks > device.multiprocessors) throw std::runtime_error("a grid is not resident");
    if constexpr (is_float) {  // floats are summed where doubles are slow, halves where they are fast
      emulator.launch(OnSlowDoubles<Body>{body}, launch);
    } else {
      emulator.launch(body, launch);
    }
  }
  void clear(void* p, std::size_t bytes) { std::memset(p, 0, bytes); }
};

enum class Data { ordinary, outlier, constant, infinite, giants, ones, level };

/// One shape on one device.
struct Case {
  Geometry geometry;
  Device device{};
  Policy policy{};
  support::EmulatorOptions options{};
  std::int64_t sweep_blocks = 0;
  Data data = Data::ordinary;
  std::size_t in = 0, out = 0;  ///< offsets in elements
  bool guard_exact = false;     ///< tensors end where a guard page begins; the offsets follow
  bool is_training = true, writes_mask = false, adds = false, has_scale = true;
  int activation = 0, passage = 0;
  std::int64_t ranks = 0;  ///< unless 0, the call is a synchronised one of so many
  double epsilon = 1e-3, momentum = 0.25;
};

std::string text_of(const Case& c) {
  const Geometry& g = c.geometry;
  std::string text = "n " + std::to_string(g.n) + ", c " + std::to_string(g.c) + ", s " + std::to_string(g.s);
  text += g.channels_last ? ", channels last" : ", channels first";
  text += c.is_training ? ", training" : ", inference";
  text += c.device.shared_bytes > 0 ? ", resident" : ", slices of " + std::to_string(c.policy.most_slice_chunks) + " chunks";
  text += ", data " + std::to_string(static_cast<int>(c.data)) + ", offsets " + std::to_string(c.in) + " and " +
          std::to_string(c.out) + (c.guard_exact ? ", exact" : "") + (c.writes_mask ? ", mask" : "") + ", ranks " +
          std::to_string(c.ranks);
  return text + ", schedule " + std::to_string(static_cast<int>(c.options.schedule));
}

// Numbers in [-1, 1), the same on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15U + 1) {}
  double next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<double>(static_cast<std::int64_t>(state_) >> 20) * 0x1p-43;
  }

 private:
  std::uint64_t state_;
};

T element(Real v) { return narrow<T>(static_cast<Compute<T>>(v)); }
Real real(T v) { return static_cast<Real>(widen(v)); }

Real ulp(Real magnitude, int digits, int least) {
  if (!(magnitude < infinity)) return 0;
  return std::ldexp(Real(1), std::max(magnitude == 0 ? least : std::ilogb(magnitude) + 1 - digits, least));
}
Real ulp_of_element(Real magnitude) {
  return is_double ? ulp(magnitude, 53, -1074) : is_float ? ulp(magnitude, 24, -149) : ulp(magnitude, 11, -24);
}
Real ulp_of_parameter(Real magnitude) { return is_double ? ulp(magnitude, 53, -1074) : ulp(magnitude, 24, -149); }

/// What a sum may lose, as a part of the magnitude of its terms.
constexpr Real lost = is_double ? 0x1p-60L : is_float ? 0x1p-43L : 0x1p-48L;

void expect(bool condition, const char* what, std::size_t i = 0) {
  if (!condition) throw std::runtime_error(std::string(what) + " [" + std::to_string(i) + "]");
}
/// Within `error`; where NaN or infinity is wanted, exactly that.
void expect_near(Real got, Real want, Real error, const char* what, std::size_t i) {
  const bool is_near = std::isfinite(want) ? std::abs(got - want) <= error : std::isnan(want) ? std::isnan(got) : got == want;
  if (is_near) return;
  char text[160];
  std::snprintf(text, sizeof(text), "%s [%zu] is %.17Lg, expected %.17Lg, off by %.3Lg of what it may be", what, i, got, want,
                std::abs(got - want) / error);
  throw std::runtime_error(text);
}

std::size_t index(const Geometry& g, std::int64_t n, std::int64_t c, std::int64_t s) {
  return static_cast<std::size_t>((n * g.c + c) * g.s + s);
}
/// Where the values of a channel are.
Indices of_channel(const Geometry& g, std::int64_t c) {
  Indices result;
  for (std::int64_t n = 0; n < g.n; ++n) {
    for (std::int64_t s = 0; s < g.s; ++s) result.push_back(index(g, n, c, s));
  }
  return result;
}

std::vector<T> values(const Case& c) {
  const Geometry& g = c.geometry;
  Random random(static_cast<std::uint64_t>(g.elements()));
  std::vector<T> x(static_cast<std::size_t>(g.elements()));
  const Real offset = is_half ? 50 : 1e4L;
  for (std::int64_t channel = 0; channel < g.c; ++channel) {
    const Indices at = of_channel(g, channel);
    for (const std::size_t i : at) {
      const Real value = 2 * random.next();
      x[i] = element(c.data == Data::constant  ? offset
                     : c.data == Data::ones    ? 1
                     : c.data == Data::outlier ? value + offset
                                               : value + (channel % 7 - 3));
    }
    if (at.size() < 2) continue;
    if (c.data == Data::outlier && channel % 2 == 0) x[at.front()] = element(-offset);
    if (c.data == Data::infinite && channel == 2) x[at.front()] = element(infinity);
    if (c.data == Data::giants) {
      x[at.front()] = element(0x1p40L);
      x[at.back()] = element(-0x1p40L);
    }
  }
  return x;
}

template <class V>
DeviceBuffer<V> buffer_of(const std::vector<V>& v, const Placement& placement) {
  DeviceBuffer<V> buffer(v, placement);
  buffer.make_read_only();
  return buffer;
}
/// Arrays over channels end where a guard page begins.
constexpr Placement exact{.guard_exact = true};

std::vector<P> parameters(std::int64_t channels, std::uint64_t seed, double middle) {
  Random random(seed);
  std::vector<P> result;
  for (std::int64_t c = 0; c < channels; ++c) result.push_back(static_cast<P>(middle + 0.75 * random.next()));
  return result;
}

Real activated(const Case& c, Real z) { return c.activation == 0 || z > 0 ? z : c.activation == 1 ? 0 : z / 4; }

/// The mean is pivot + delta, more digits than it has itself.
struct Moments {
  Real pivot = 0, delta = 0, variance = 0, magnitude = 0;  ///< magnitude: of the values

  Real mean() const { return pivot + delta; }
  Real away(T x) const { return real(x) - pivot - delta; }
};
Moments moments_of(const Indices& at, const std::vector<T>& x) {
  if (at.empty()) return {};
  Moments m{real(x[at.back()])};
  Real sum = 0, squares = 0;
  const auto n = static_cast<Real>(at.size());
  for (const std::size_t i : at) sum += m.away(x[i]), m.magnitude = std::max(m.magnitude, std::abs(real(x[i])));
  m.delta = sum / n;
  for (const std::size_t i : at) squares += m.away(x[i]) * m.away(x[i]);
  m.variance = squares / n;
  return m;
}

/// A call for images [first, first + n) of the tensors.
template <class P>
void advance(P*& p, std::int64_t elements) {
  if (p != nullptr) p += elements;
}
ForwardCall<T> part_of(ForwardCall<T> call, std::int64_t first, std::int64_t n) {
  const std::int64_t skipped = first * call.geometry.c * call.geometry.s;
  call.geometry.n = n;
  advance(call.x, skipped), advance(call.residual, skipped), advance(call.y, skipped);
  call.channels.variance_factor = 0;  // follows from the values of all ranks
  return call;
}
BackwardCall<T> part_of(BackwardCall<T> call, std::int64_t first, std::int64_t n) {
  const std::int64_t skipped = first * call.geometry.c * call.geometry.s;
  call.geometry.n = n;
  advance(call.dy, skipped), advance(call.x, skipped), advance(call.dx, skipped), advance(call.dz, skipped);
  advance(call.passage.y, skipped);
  call.channels.values = -1;  // those of all ranks
  return call;
}
/// The running statistics are updated by the last rank alone: all ranks write to one place.
void update_once(ForwardCall<T>& call, bool is_last) {
  if (!is_last) call.channels.running_mean = call.channels.running_variance = nullptr;
}
void update_once(BackwardCall<T>&, bool) {}

/// Ranks of growing sizes, the first has no images, unless it is the only one.
template <class Call>
void run_in_parts(Runtime& runtime, const Case& c, const Call& whole) {
  const std::int64_t n = whole.geometry.n, ranks = c.ranks;
  const auto first_of = [&](std::int64_t r) { return ranks == 1 ? n * r : n * r * (r - 1) / (ranks * (ranks - 1)); };
  RankSums sums{nullptr, ranks, whole.geometry.c, rank_fields(whole)};
  const DeviceBuffer<double> gathered(static_cast<std::size_t>(ranks * sums.stride()), exact);
  sums.data = gathered.data();
  for (const bool is_complete : {false, true}) {
    for (std::int64_t r = 0; r < ranks; ++r) {
      Call part = part_of(whole, first_of(r), first_of(r + 1) - first_of(r));
      update_once(part, r + 1 == ranks);
      const DeviceBuffer<std::uint8_t> workspace(workspace_bytes<T>(part.geometry, c.device, c.policy));
      if (is_complete) {
        complete(runtime, part, sums, workspace.data(), c.device, c.policy);
      } else {
        collect(runtime, part, sums, r, workspace.data(), c.device, c.policy);
      }
    }
  }
}

void check_forward(const Case& c) {
  const Geometry& g = c.geometry;
  const auto channels = static_cast<std::size_t>(g.c);
  const std::vector<T> x_values = values(c);
  const std::size_t elements = x_values.size();
  std::vector<T> residual_values(elements);
  Random random(5);
  for (T& v : residual_values) v = element(random.next());
  const Placement in{.offset = c.in, .guard_exact = c.guard_exact}, out{.offset = c.out, .guard_exact = c.guard_exact};
  const auto x = buffer_of(x_values, in), residual = buffer_of(residual_values, in);
  const DeviceBuffer<T> y(elements, out);
  const DeviceBuffer<std::uint8_t> mask((elements + 7) / 8, exact);
  std::vector<P> scale_values = parameters(g.c, 1, 1), bias_values = parameters(g.c, 2, 0);
  std::vector<P> running_mean_values = parameters(g.c, 3, 0), running_variance_values = parameters(g.c, 4, 1);
  if (c.data == Data::ones) running_mean_values.assign(channels, 0), bias_values.assign(channels, 0);  // y is the factor
  if (c.momentum == 1) running_mean_values[0] = static_cast<P>(nan);
  const auto scale = buffer_of(scale_values, exact), bias = buffer_of(bias_values, exact);
  const DeviceBuffer<P> running_mean(running_mean_values, exact), running_variance(running_variance_values, exact);
  const DeviceBuffer<P> mean[2] = {DeviceBuffer<P>(channels, exact), DeviceBuffer<P>(channels, exact)};
  const DeviceBuffer<P> variance[2] = {DeviceBuffer<P>(channels, exact), DeviceBuffer<P>(channels, exact)};
  const DeviceBuffer<std::uint8_t> workspace(workspace_bytes<T>(g, c.device, c.policy));

  ForwardCall<T> call;
  call.geometry = g, call.x = x.data(), call.y = y.data(), call.is_training = c.is_training;
  if (c.adds) call.residual = residual.data();
  if (c.writes_mask) call.mask = mask.data();
  call.activation = {c.activation, Compute<T>(0.25)};
  const auto m = static_cast<double>(g.values());
  const double factor = m > 1 && c.momentum != 1 ? m / (m - 1) : 1;
  auto& to = call.channels;
  if (c.has_scale) to.scale = scale.data(), to.bias = bias.data();
  for (int k = 0; k < 2; ++k) to.mean[k] = mean[k].data(), to.variance[k] = variance[k].data();
  to.epsilon = c.epsilon, to.momentum = c.momentum, to.variance_factor = factor, to.keeps_if_not_finite = true;
  if (c.is_training) {
    to.running_mean = running_mean.data(), to.running_variance = running_variance.data();
  } else {
    call.mean = running_mean.data(), call.variance = running_variance.data();
  }
  Runtime runtime{support::Emulator(c.options), c.device, c.sweep_blocks};
  if (c.ranks > 0 && c.is_training) {
    call.is_unbiased = c.momentum != 1;
    run_in_parts(runtime, c, call);
  } else {
    forward(runtime, call, workspace.data(), c.device, c.policy);
  }

  for (std::size_t channel = 0; channel < channels; ++channel) {
    const Indices at = of_channel(g, static_cast<std::int64_t>(channel));
    Moments moments = moments_of(at, x_values);
    if (!c.is_training) moments = {running_mean_values[channel], 0, running_variance_values[channel], 0};
    const bool is_finite = std::isfinite(moments.variance);
    if (!is_finite) moments.variance = nan;
    const Real mean_error = 0.6L * ulp_of_parameter(std::abs(moments.mean())) + lost * moments.magnitude;
    const Real variance_error = (is_double ? 2 : 0.6L) * ulp_of_parameter(moments.variance) + lost * moments.variance;
    for (int k = 0; k < 2; ++k) {
      expect_near(mean[k].data()[channel], moments.mean(), mean_error, "mean", channel);
      expect_near(variance[k].data()[channel], moments.variance, variance_error, "variance", channel);
    }
    if (c.is_training) {
      const auto p = static_cast<Real>(is_finite && elements > 0 ? c.momentum : 0);
      const auto blend = [&](Real old, Real batch, Real magnitude, const P got, const char* what) {
        const Real want = p == 0 ? old : p == 1 ? batch : (1 - p) * old + p * batch;
        const Real error = 2 * ulp_of_parameter((p == 1 ? 0 : std::abs(old)) + magnitude) + lost * magnitude;
        expect_near(got, want, p == 0 ? 0 : error, what, channel);
      };
      blend(running_mean_values[channel], moments.mean(), moments.magnitude, running_mean.data()[channel], "running mean");
      blend(running_variance_values[channel], moments.variance * static_cast<Real>(factor), moments.variance,
            running_variance.data()[channel], "running variance");
    }
    const Real own_scale = c.has_scale ? scale_values[channel] : 1, own_bias = c.has_scale ? bias_values[channel] : 0;
    const Real a = own_scale / std::sqrt(moments.variance + static_cast<Real>(c.epsilon));
    for (const std::size_t i : at) {
      const Real away = moments.away(x_values[i]), product = away == 0 ? 0 : away * a;
      const Real z = product + own_bias + (c.adds ? real(residual_values[i]) : 0);
      const Real magnitude = std::max({std::abs(product), std::abs(own_bias), c.adds ? Real(1) : Real(0)});
      const Real error = (is_half ? 1.1L : 4) * ulp_of_element(magnitude);
      const Real got = real(y.data()[i]);
      expect_near(got, is_finite ? activated(c, z) : nan, error, "y", i);
      if (c.data == Data::ones) expect_near(got, z, 0.51L * ulp_of_element(z), "factor", i);
      if (c.data == Data::constant) expect(got == real(element(z)), "y", i);
      if (c.writes_mask) expect((mask.data()[i / 8] >> (i % 8) & 1) == (got <= 0 ? 0 : 1), "mask", i);
    }
  }
}

void check_backward(const Case& c) {
  const Geometry& g = c.geometry;
  const auto channels = static_cast<std::size_t>(g.c);
  const std::vector<T> x_values = values(c);
  const std::size_t elements = x_values.size();
  std::vector<T> dy_values(elements), y_values(elements);
  std::vector<std::uint8_t> bits((elements + 7) / 8);
  Random random(6);
  for (std::size_t i = 0; i < elements; ++i) {
    dy_values[i] = element(random.next() + 0.5);
    y_values[i] = element(random.next() < -0.75 ? 0 : random.next());
    if (real(y_values[i]) > 0) bits[i / 8] = static_cast<std::uint8_t>(bits[i / 8] | 1U << i % 8);
  }
  // The mean of dy is what a float cannot hold.
  if (c.data == Data::level) {
    std::fill(dy_values.begin(), dy_values.end(), element(1));
    for (std::int64_t channel = 0; channel < g.c; ++channel) {
      dy_values[of_channel(g, channel).back()] = element(1 + 8 * ulp_of_element(1));
    }
  }
  // The sum of dy cancels, slice by slice.
  if (c.data == Data::giants && elements > 0) {
    for (std::int64_t channel = 0; channel < g.c; ++channel) {
      const Indices at = of_channel(g, channel);
      dy_values[at.front()] = element(0x1p60L), dy_values[at.back()] = element(-0x1p60L);
    }
  }
  const Placement in{.offset = c.in, .guard_exact = c.guard_exact}, out{.offset = c.out, .guard_exact = c.guard_exact};
  const auto dy = buffer_of(dy_values, in), x = buffer_of(x_values, in), y = buffer_of(y_values, in);
  const auto mask = buffer_of(bits, exact);
  const DeviceBuffer<T> dx(elements, out), dz(elements, out);
  std::vector<P> mean_values, variance_values;
  for (std::int64_t channel = 0; channel < g.c; ++channel) {
    const Moments moments = moments_of(of_channel(g, channel), x_values);
    mean_values.push_back(static_cast<P>(moments.mean())), variance_values.push_back(static_cast<P>(moments.variance));
  }
  const std::vector<P> scale_values = parameters(g.c, 1, 1);
  const auto mean = buffer_of(mean_values, exact), variance = buffer_of(variance_values, exact);
  const auto scale = buffer_of(scale_values, exact);
  const DeviceBuffer<P> dscale(channels, exact), dbias(channels, exact);
  const DeviceBuffer<std::uint8_t> workspace(workspace_bytes<T>(g, c.device, c.policy));

  BackwardCall<T> call;
  call.geometry = g, call.dy = dy.data(), call.x = x.data(), call.dx = dx.data();
  call.passage.kind = c.passage;
  call.passage.activation = {c.activation, Compute<T>(0.25)};
  if (c.passage == PassageOf<T>::mask) call.passage.bits = mask.data();
  if (c.passage == PassageOf<T>::output) call.passage.y = y.data();
  if (c.adds) call.dz = dz.data();
  call.channels = {c.has_scale ? scale.data() : nullptr,
                   mean.data(),
                   variance.data(),
                   dscale.data(),
                   dbias.data(),
                   c.epsilon,
                   g.values(),
                   c.is_training};
  Runtime runtime{support::Emulator(c.options), c.device, c.sweep_blocks};
  if (c.ranks > 0) {
    run_in_parts(runtime, c, call);
  } else {
    backward(runtime, call, workspace.data(), c.device, c.policy);
  }

  for (std::size_t channel = 0; channel < channels; ++channel) {
    const Indices at = of_channel(g, static_cast<std::int64_t>(channel));
    const Real own_mean = mean_values[channel], r = 1 / std::sqrt(variance_values[channel] + static_cast<Real>(c.epsilon));
    Real sum = 0, sum_magnitude = 0, product = 0, product_magnitude = 0;
    Reals own_dz;
    for (const std::size_t i : at) {
      const bool passes = c.passage == PassageOf<T>::nothing || real(y_values[i]) > 0;
      const Real v = passes ? real(dy_values[i]) : c.activation == 1 ? 0 : real(dy_values[i]) / 4;
      const Real away = real(x_values[i]) - own_mean;
      own_dz.push_back(v);
      sum += v, sum_magnitude = std::max(sum_magnitude, std::abs(v));
      product += v * away, product_magnitude = std::max(product_magnitude, std::abs(v * away));
      if (c.adds) expect_near(real(dz.data()[i]), v, ulp_of_element(std::abs(v)) / 2, "dz", i);
    }
    const auto error = [](Real want, Real magnitude) {
      return (is_double ? 3 : 1.2L) * ulp_of_parameter(std::abs(want)) + lost * magnitude;
    };
    expect_near(dbias.data()[channel], sum, error(sum, sum_magnitude), "dbias", channel);
    expect_near(dscale.data()[channel], product * r, error(product * r, product_magnitude * r), "dscale", channel);
    if (c.data == Data::giants) continue;
    const Real a = (c.has_scale ? scale_values[channel] : 1) * r, m = static_cast<Real>(at.size());
    const Real b = c.is_training ? a * product * r * r / m : 0, mean_dz = c.is_training ? sum / m : 0;
    for (std::size_t k = 0; k < at.size(); ++k) {
      const Real away = real(x_values[at[k]]) - own_mean;
      const Real rest = own_dz[k] - mean_dz, size_of_rest = std::max(std::abs(own_dz[k]), std::abs(mean_dz));
      const Real magnitude = std::abs(a) * (c.data == Data::level ? std::abs(rest) : size_of_rest) + std::abs(b * away);
      expect_near(real(dx.data()[at[k]]), a * rest - b * away, (is_half ? 1.1L : 4) * ulp_of_element(magnitude), "dx", at[k]);
    }
  }
}

int calls = 0;

void check(const Case& c) {
  try {
    ++calls;
    check_forward(c);
    if (c.data != Data::infinite && c.data != Data::constant) check_backward(c);
  } catch (const std::exception& error) {
    throw std::runtime_error(text_of(c) + ": " + error.what());
  }
}

/// Devices whose plans differ: one read of x by clusters, by one block, by a grid; two reads, in few slices and in many.
std::vector<Case> devices() {
  std::vector<Case> result(5);
  for (Case& c : result) c.policy.threads = c.policy.resident_threads = 64, c.policy.across = 4;
  result[0].device.multiprocessors = 32;
  result[0].policy.resident_threads = 96;
  result[1].device.multiprocessors = 1;
  result[2].device = {.multiprocessors = 20, .largest_cluster = 1};
  result[2].policy.small_bytes = 0;
  result[3].device = {.multiprocessors = 1, .shared_bytes = 0, .cooperates = false};
  result[3].sweep_blocks = 1;
  result[4].device = {.multiprocessors = 64, .shared_bytes = 0, .cooperates = false};
  result[4].policy.most_slice_chunks = 2;
  result[4].sweep_blocks = 3;
  return result;
}

struct Sizes {
  std::int64_t n, c, s;
};
Geometry geometry_of(const Sizes& z, bool channels_last) {
  return channels_last ? Geometry{z.n * z.s, z.c, 1, true} : Geometry{z.n, z.c, z.s, false};
}

/// On every device, with masks, residuals and alignments.
void check_shape(const Sizes& sizes) {
  for (const Case& device : devices()) {
    for (const bool channels_last : {false, true}) {
      Case c = device;
      c.geometry = geometry_of(sizes, channels_last);
      // Aligned, with a mask.
      c.options.schedule = Schedule::in_order;
      c.writes_mask = true, c.activation = c.passage = 1;
      check(c);
      // Chunks that begin before the tensors.
      c.options.schedule = Schedule::reverse;
      c.in = c.out = is_double ? 1 : 3;
      c.writes_mask = false, c.adds = true, c.activation = c.passage = 2, c.momentum = 1;
      check(c);
      // The same with a mask, which forbids that.
      c.options.schedule = Schedule::random;
      c.writes_mask = true, c.passage = 1, c.has_scale = false, c.momentum = 0.25;
      check(c);
      // Tensors that do not share chunks, or end where a guard page begins.
      c.options.seed = 2;
      c.in = c.out = 0, c.guard_exact = true, c.writes_mask = c.adds = false, c.has_scale = true;
      if (c.geometry.elements() % size == 0) c.guard_exact = false, c.out = 1;
      check(c);
      c = device;
      c.geometry = geometry_of(sizes, channels_last);
      c.is_training = false, c.adds = channels_last, c.writes_mask = !channels_last, c.activation = 1, c.passage = 2;
      check(c);
    }
  }
}

void check_data(Data data) {
  for (const Case& device : devices()) {
    for (const bool channels_last : {false, true}) {
      Case c = device;
      c.geometry = geometry_of({5, 9, 35}, channels_last);
      c.data = data;
      if (data == Data::constant) c.epsilon = 0;
      if (data == Data::ones) c.is_training = false;
      if (is_float || (data != Data::level && !(data == Data::giants && is_half))) check(c);
    }
  }
}

/// In parts, where x is read twice.
void check_ranks() {
  const auto check_parts = [](std::int64_t ranks, const Sizes& sizes, Data data) {
    for (const bool channels_last : {false, true}) {
      Case c = devices()[4];
      c.geometry = geometry_of(sizes, channels_last);
      c.ranks = ranks, c.data = data, c.adds = !channels_last, c.activation = c.passage = 2;
      c.momentum = channels_last ? 1 : 0.25;
      check(c);
    }
  };
  for (const std::int64_t ranks : {1, 3}) check_parts(ranks, {0, 3, 4}, Data::ordinary);
  for (const Data data : {Data::ordinary, Data::outlier, Data::giants, Data::infinite}) {
    if (data != Data::giants || !is_half) check_parts(3, {17, 11, 5}, data);
  }
  check_parts(40, {41, 9, 5}, Data::ordinary);
  check_parts(1, {5, 9, 5}, Data::ordinary);
}

void check_all() {
  check_ranks();
  check_shape({3, 5, 7});
  check_shape({2, 3, 149});
  for (const Data data : {Data::outlier, Data::giants, Data::constant, Data::infinite, Data::ones, Data::level})
    check_data(data);
  constexpr Sizes others[] = {{1, 1, 1}, {4, 3, 24}, {5, 8, 8}, {41, 2, 1}, {4, 17, 5}, {5, 2, 149}, {2, 40, 9}, {0, 3, 4}};
  for (const Sizes& sizes : others) check_shape(sizes);
}

}  // namespace

int main() {
  try {
    check_all();
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
  std::printf("%d calls are right\n", calls);
  return 0;
}
