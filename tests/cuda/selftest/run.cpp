// SPDX-License-Identifier: MIT
#include "run.hpp"

#include <algorithm>
#include <cmath>

#include "reference.hpp"

namespace selftest {
namespace {

using batchnorm::Element;
using batchnorm::Format;
using batchnorm::parameter_t;
using batchnorm::TensorView;

/// S. Vigna's generator; integers alone, so that every machine makes the same inputs.
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15U;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
    z = (z ^ z >> 27) * 0x94d049bb133111ebU;
    return z ^ z >> 31;
  }

 private:
  std::uint64_t state_;
};

/// The tensors draw from generators of their own.
enum class Stream : std::uint64_t { x = 1, residual, dy, mask, scale, bias, mean, variance };

/// offset + spread * v, v in [-2, 2) with the digits of T; rounded to T, exactly v where there is no offset.
template <class T>
std::vector<T> uniform(Stream stream, std::size_t size, double offset = 0, double spread = 1) {
  constexpr int digits = precision<T>().digits;
  SplitMix64 random(static_cast<std::uint64_t>(stream));
  std::vector<T> values(size);
  for (T& value : values) {
    const auto integer = static_cast<std::int64_t>(random.next() >> (64 - digits)) - (std::int64_t{1} << (digits - 1));
    value = static_cast<T>(offset + spread * std::ldexp(static_cast<double>(integer), 2 - digits));
  }
  return values;
}

std::vector<std::uint8_t> random_bits(std::size_t size) {
  SplitMix64 random(static_cast<std::uint64_t>(Stream::mask));
  std::vector<std::uint8_t> bits(size);
  for (std::uint8_t& byte : bits) byte = static_cast<std::uint8_t>(random.next() >> 56);
  return bits;
}

batchnorm::Shape shape_of(const Case& one) {
  if (one.h == 0) return {one.n, one.c};
  if (one.format == Format::NCHW) return {one.n, one.c, one.h, one.w};
  return {one.n, one.h, one.w, one.c};
}

bool is_backward(Operation operation) { return operation == Operation::backward || operation == Operation::through_mask; }

template <class T>
Problem problem_of(const Case& one) {
  const batchnorm::Options options{.is_training = one.operation != Operation::inference};
  return {one.format, shape_of(one), one.c, one.spatial(), precision<T>(), options};
}

/// x lies about `offset` with a deviation of about `spread`: a few ulp of T beside an offset.
template <class T>
struct Place {
  double offset, spread;

  explicit Place(bool has_offset)
      : offset(has_offset ? 1e4 : 0), spread(has_offset ? std::max(1.0, std::ldexp(1.0, 16 - precision<T>().digits)) : 1) {}
};

template <class P>
std::vector<P> variances(std::size_t channels, double spread) {
  return uniform<P>(Stream::variance, channels, 1.25 * spread * spread, 0.5 * spread * spread);
}

/// Reads arrays back: their bits, and whether what must not change has changed.
class Collector {
 public:
  template <class V>
  std::vector<V> output(const char* name, DeviceArray<V>& array) {
    std::vector<V> values = array.get();
    check_borders(name, array);
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    outcome_.bits.insert(outcome_.bits.end(), bytes, bytes + values.size() * sizeof(V));
    return values;
  }
  template <class V>
  void input(const char* name, DeviceArray<V>& array, const std::vector<V>& values) {
    const std::vector<V> now = array.get();
    check_borders(name, array);
    const auto* bytes = reinterpret_cast<const std::byte*>(values.data());
    if (!std::equal(bytes, bytes + values.size() * sizeof(V), reinterpret_cast<const std::byte*>(now.data()))) {
      note(name, " was changed");
    }
  }
  template <class V>
  void borders(const char* name, DeviceArray<V>& array) {
    array.get();
    check_borders(name, array);
  }
  Outcome take() { return std::move(outcome_); }

 private:
  template <class V>
  void check_borders(const char* name, const DeviceArray<V>& array) {
    if (!array.has_intact_borders()) note(name, ": memory beside it was written");
  }
  void note(const char* name, const char* what) {
    if (outcome_.wrong.empty()) outcome_.wrong.append(name).append(what);
  }

  Outcome outcome_;
};

template <class T>
class Forward final : public Run {
  using P = parameter_t<T>;

 public:
  Forward(const Case& one, Machine& machine)
      : problem_(problem_of<T>(one)),
        is_fused_(one.operation == Operation::fused),
        elements_(static_cast<std::size_t>(one.elements())),
        channels_(static_cast<std::size_t>(one.c)),
        place_(one.has_offset),
        x_(machine, elements_, one.in),
        residual_(machine, is_fused_ ? elements_ : 0, one.in),
        y_(machine, elements_, one.out),
        mask_(machine, is_fused_ ? static_cast<std::size_t>(batchnorm::mask_bytes(problem_.shape)) : 0),
        scale_(machine, channels_),
        bias_(machine, channels_),
        mean_(machine, channels_),
        variance_(machine, channels_),
        batch_mean_(machine, channels_),
        batch_variance_(machine, channels_),
        reserve_1_(machine, channels_),
        reserve_2_(machine, channels_),
        workspace_(machine, batchnorm::cuda::workspace_bytes<T>(one.format, problem_.shape)) {
    x = uniform<T>(Stream::x, elements_, place_.offset, place_.spread);
    if (is_fused_) residual = uniform<T>(Stream::residual, elements_);
    scale = uniform<P>(Stream::scale, channels_), bias = uniform<P>(Stream::bias, channels_);
    mean = uniform<P>(Stream::mean, channels_, place_.offset, place_.spread / 4);
    variance = variances<P>(channels_, place_.spread);
  }

  void prepare() override {
    x_.put(x), residual_.put(residual), scale_.put(scale), bias_.put(bias), mean_.put(mean), variance_.put(variance);
    y_.poison(), mask_.poison(), batch_mean_.poison(), batch_variance_.poison(), reserve_1_.poison(), reserve_2_.poison();
    workspace_.poison();
  }

  void enqueue(batchnorm::cuda::Stream stream) override {
    const auto vector = [&](const DeviceArray<P>& array) { return TensorView<P>(array.data(), {problem_.c}); };
    batchnorm::OutputViews<T, P> out{
        {y_.data(), problem_.shape}, vector(batch_mean_), vector(batch_variance_), vector(reserve_1_), vector(reserve_2_)};
    const batchnorm::cuda::Workspace workspace{workspace_.data(), workspace_.size()};
    const auto call = [&](const auto& epilogue) {
      batchnorm::cuda::batch_norm<T>(problem_.format, problem_.options, {x_.data(), problem_.shape}, vector(scale_),
                                     vector(bias_), vector(mean_), vector(variance_), out, epilogue, workspace, stream);
    };
    if (!is_fused_) return call(batchnorm::Identity{});
    out.mask = TensorView<std::uint8_t>(mask_.data(), {static_cast<std::int64_t>(mask_.size())});
    call(batchnorm::AddResidual<T, batchnorm::Relu>{{residual_.data(), problem_.shape}});
  }

  Outcome collect() override {
    Collector collector;
    collector.input("x", x_, x);
    collector.input("residual", residual_, residual);
    collector.input("scale", scale_, scale);
    collector.input("bias", bias_, bias);
    collector.borders("workspace", workspace_);
    got_.y = widened(collector.output("output_x", y_));
    got_.mask = collector.output("mask", mask_);
    got_.batch_mean = widened(collector.output("batch_mean", batch_mean_));
    got_.batch_variance = widened(collector.output("batch_variance", batch_variance_));
    reserve_[0] = widened(collector.output("reserve_space_1", reserve_1_));
    reserve_[1] = widened(collector.output("reserve_space_2", reserve_2_));
    got_.mean = widened(collector.output("mean", mean_));
    got_.variance = widened(collector.output("variance", variance_));
    return collector.take();
  }

  Verdict check() const override {
    const Errors errors = compare(
        problem_, {widened(x), widened(scale), widened(bias), widened(mean), widened(variance), widened(residual)}, got_);
    Verdict verdict{errors.ulps(), errors.wrong()};
    if (verdict.wrong.empty() && (reserve_[0] != got_.batch_mean || reserve_[1] != got_.batch_variance)) {
      verdict.wrong = "the reserve spaces are not the batch statistics";
    }
    return verdict;
  }

 private:
  Problem problem_;
  bool is_fused_;
  std::size_t elements_, channels_;
  Place<T> place_;
  std::vector<T> x, residual;
  std::vector<P> scale, bias, mean, variance;
  DeviceArray<T> x_, residual_, y_;
  DeviceArray<std::uint8_t> mask_;
  DeviceArray<P> scale_, bias_, mean_, variance_, batch_mean_, batch_variance_, reserve_1_, reserve_2_;
  DeviceArray<std::uint8_t> workspace_;
  ForwardOutputs got_;
  Doubles reserve_[2];
};

template <class T>
class Backward final : public Run {
  using P = parameter_t<T>;

 public:
  Backward(const Case& one, Machine& machine)
      : problem_(problem_of<T>(one)),
        through_mask_(one.operation == Operation::through_mask),
        elements_(static_cast<std::size_t>(one.elements())),
        channels_(static_cast<std::size_t>(one.c)),
        place_(one.has_offset),
        dy_(machine, elements_, one.in),
        x_(machine, elements_, one.in),
        dx_(machine, elements_, one.out),
        dresidual_(machine, through_mask_ ? elements_ : 0, one.out),
        mask_(machine, through_mask_ ? static_cast<std::size_t>(batchnorm::mask_bytes(problem_.shape)) : 0),
        scale_(machine, channels_),
        mean_(machine, channels_),
        variance_(machine, channels_),
        dscale_(machine, channels_),
        dbias_(machine, channels_),
        workspace_(machine, batchnorm::cuda::workspace_bytes<T>(one.format, problem_.shape)) {
    dy = uniform<T>(Stream::dy, elements_);
    x = uniform<T>(Stream::x, elements_, place_.offset, place_.spread);
    mask = random_bits(mask_.size());
    scale = uniform<P>(Stream::scale, channels_);
    mean = uniform<P>(Stream::mean, channels_, place_.offset, place_.spread / 4);
    variance = variances<P>(channels_, place_.spread);
  }

  void prepare() override {
    dy_.put(dy), x_.put(x), mask_.put(mask), scale_.put(scale), mean_.put(mean), variance_.put(variance);
    dx_.poison(), dresidual_.poison(), dscale_.poison(), dbias_.poison(), workspace_.poison();
  }

  void enqueue(batchnorm::cuda::Stream stream) override {
    const auto vector = [&](const DeviceArray<P>& array) { return TensorView<P>(array.data(), {problem_.c}); };
    batchnorm::GradientViews<T, P> out{{dx_.data(), problem_.shape}, vector(dscale_), vector(dbias_)};
    const batchnorm::cuda::Workspace workspace{workspace_.data(), workspace_.size()};
    const auto call = [&](const auto& through) {
      batchnorm::cuda::batch_norm_backward<T>(problem_.format, problem_.options, {dy_.data(), problem_.shape},
                                              {x_.data(), problem_.shape}, vector(scale_), vector(mean_), vector(variance_),
                                              out, through, workspace, stream);
    };
    if (!through_mask_) return call(batchnorm::Identity{});
    out.dresidual = {dresidual_.data(), problem_.shape};
    call(batchnorm::ThroughMask<batchnorm::Relu>{{mask_.data(), {static_cast<std::int64_t>(mask_.size())}}});
  }

  Outcome collect() override {
    Collector collector;
    collector.input("dy", dy_, dy);
    collector.input("x", x_, x);
    collector.input("mask", mask_, mask);
    collector.input("scale", scale_, scale);
    collector.input("mean", mean_, mean);
    collector.input("variance", variance_, variance);
    collector.borders("workspace", workspace_);
    got_.dx = widened(collector.output("dx", dx_));
    got_.dresidual = widened(collector.output("dresidual", dresidual_));
    got_.dscale = widened(collector.output("dscale", dscale_));
    got_.dbias = widened(collector.output("dbias", dbias_));
    return collector.take();
  }

  Verdict check() const override {
    const Errors errors =
        compare(problem_, {widened(dy), widened(x), widened(scale), widened(mean), widened(variance), mask}, got_);
    return {errors.ulps(), errors.wrong()};
  }

 private:
  Problem problem_;
  bool through_mask_;
  std::size_t elements_, channels_;
  Place<T> place_;
  std::vector<T> dy, x;
  std::vector<std::uint8_t> mask;
  std::vector<P> scale, mean, variance;
  DeviceArray<T> dy_, x_, dx_, dresidual_;
  DeviceArray<std::uint8_t> mask_;
  DeviceArray<P> scale_, mean_, variance_, dscale_, dbias_;
  DeviceArray<std::uint8_t> workspace_;
  BackwardOutputs got_;
};

template <class T>
std::unique_ptr<Run> make_run_of(const Case& one, Machine& machine) {
  if (is_backward(one.operation)) return std::make_unique<Backward<T>>(one, machine);
  return std::make_unique<Forward<T>>(one, machine);
}

}  // namespace

std::unique_ptr<Run> make_run(const Case& one, Machine& machine) {
  switch (one.type) {
    case ElementType::float32: return make_run_of<float>(one, machine);
    case ElementType::float64: return make_run_of<double>(one, machine);
    case ElementType::half: return make_run_of<batchnorm::half>(one, machine);
    case ElementType::bfloat16: return make_run_of<batchnorm::bfloat16>(one, machine);
  }
  return nullptr;
}

std::uint64_t checksum(const std::vector<std::byte>& bits) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const std::byte b : bits) hash = (hash ^ std::to_integer<std::uint64_t>(b)) * 0x100000001b3U;
  return hash;
}

}  // namespace selftest
