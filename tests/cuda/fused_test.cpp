// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include "device_calls.hpp"

// Activations, residuals, masks and gradients through them on a device: the mask as the CPU writes it, values within its
// bounds.
namespace {

using namespace support;
using batchnorm::AddResidual;
using batchnorm::Identity;
using batchnorm::LeakyRelu;
using batchnorm::Relu;
using batchnorm::ThroughMask;
using batchnorm::ThroughOutput;

constexpr Sizes some_sizes[] = {{3, 5, 7}, {2, 3, 613}, {5, 8, 64}, {41, 3, 1}, {17, 64, 1}, {2, 72, 8}};

template <class T>
class DeviceFused : public testing::Test {};
using ElementTypes = testing::Types<float, double, batchnorm::half, batchnorm::bfloat16>;
TYPED_TEST_SUITE(DeviceFused, ElementTypes);

/// With one read of x and with two.
template <class Body>
void for_each_device(Body&& body) {
  for (const int shared_bytes : {227 << 10, 0}) {
    EmulatedDevice device;
    device.device.shared_bytes = shared_bytes;
    const DeviceScope scope(device);
    SCOPED_TRACE("shared memory " + std::to_string(shared_bytes));
    body();
  }
}

template <class T, class Body>
void for_each_call(Body&& body) {
  for_each_device([&] {
    for (const Sizes& sizes : some_sizes) {
      for (const Format format : formats) {
        for (const bool is_training : {true, false}) {
          SCOPED_TRACE(text_of(shape_of(format, 4, sizes), format, is_training));
          body(ordinary_call<T, batchnorm::parameter_t<T>>(shape_of(format, 4, sizes), format, is_training));
        }
      }
    }
  });
}

/// Bit i is set where y[i] > 0 or NaN.
template <class T>
std::vector<std::uint8_t> mask_of(const std::vector<T>& y) {
  std::vector<std::uint8_t> mask((y.size() + 7) / 8);
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!(real(y[i]) <= 0)) mask[i / 8] = static_cast<std::uint8_t>(mask[i / 8] | 1U << (i % 8));
  }
  return mask;
}

/// Within 4 ulp, at the magnitude of what was added.
template <class T>
void expect_near(const std::vector<T>& got, const std::vector<Real>& want, const std::vector<Real>& magnitude) {
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_LE(error(got[i], want[i]), 4 * ulp_at<T>(magnitude[i])) << i;
  }
}

TYPED_TEST(DeviceFused, ResidualActivationAndMask) {
  using T = TypeParam;
  for_each_call<T>([](const auto& call) {
    const auto want = expected(call);
    const std::vector<T> values = uniform<T>(static_cast<std::int64_t>(call.x.size()), -2, 2, 7);
    const DeviceBuffer<T> residual(values);
    const batchnorm::TensorView<const T> view{residual.data(), call.shape};
    for (const double slope : {0.0, 0.125, 1.0}) {
      for (const bool adds : {false, true}) {
        std::vector<Real> y, magnitude;
        for (std::size_t i = 0; i < values.size(); ++i) {
          const Real z = want.y[i].z + (adds ? real(values[i]) : 0);
          y.push_back(z < 0 ? z * static_cast<Real>(slope) : z);
          magnitude.push_back(
              std::max({want.y[i].magnitude, std::abs(z), adds ? std::abs(real(values[i])) : Real(0), Real(2)}));
        }
        const LeakyRelu leaky{slope};
        const auto result =
            adds ? run_on_device<T>(call, AddResidual<T, LeakyRelu>{view, leaky}, true) : run_on_device<T>(call, leaky, true);
        expect_near(result.y, y, magnitude);
        EXPECT_EQ(result.mask, mask_of(result.y));
      }
    }
    // With a mask, too, what is not cut: the mask may ask for another plan, and so for other last bits.
    const auto relu = run_on_device<T>(call, Relu{}, true), plain = run_on_device<T>(call, LeakyRelu{1}, true);
    std::vector<T> cut = plain.y;
    for (T& value : cut) value = real(value) <= 0 ? element<T>(0) : value;
    EXPECT_TRUE(same_bits(relu.y, cut));
    EXPECT_EQ(relu.mask, mask_of(cut));
  });
}

TYPED_TEST(DeviceFused, GradientsThroughMaskAndThroughOutputAreThoseOfTheCpu) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for (const Sizes& sizes : some_sizes) {
    for (const Format format : formats) {
      for (const bool is_training : {true, false}) {
        const auto call = ordinary_gradient_call<T, P>(shape_of(format, 4, sizes), format, is_training);
        SCOPED_TRACE(text_of(call));
        const std::vector<T> outputs = uniform<T>(static_cast<std::int64_t>(call.x.size()), -1, 1, 3);
        const std::vector<std::uint8_t> bits = mask_of(outputs);
        const DeviceBuffer<T> y(outputs);
        const DeviceBuffer<std::uint8_t> mask(bits);
        for (const double slope : {0.0, 0.25}) {
          // The gradient of the activation first, exactly; then plain gradients of that.
          auto gated = call;
          for (std::size_t i = 0; i < outputs.size(); ++i) {
            if (real(outputs[i]) > 0) continue;
            gated.dy[i] = element<T>(slope == 0 ? 0 : static_cast<double>(real(call.dy[i])) * slope);
          }
          const auto want = expected(gated);
          DeviceBuffer<T> dz(call.x.size());
          const auto masked = slope == 0 ? run_on_device<T>(call, ThroughMask<Relu>{mask.span()}, {}, &dz)
                                         : run_on_device<T>(call, ThroughMask<LeakyRelu>{mask.span(), {slope}}, {}, &dz);
          if (sizeof(T) > 2 || slope == 0) {
            EXPECT_TRUE(same_bits(dz.values(), gated.dy));
            expect_kept(errors<T, P>(gated, masked, want, Isa::x86_64_v3));
          }
          const batchnorm::TensorView<const T> view{y.data(), call.shape};
          const auto through = slope == 0 ? run_on_device<T>(call, ThroughOutput<T, Relu>{view}, {}, &dz)
                                          : run_on_device<T>(call, ThroughOutput<T, LeakyRelu>{view, {slope}}, {}, &dz);
          EXPECT_TRUE(same(through, masked));
        }
      }
    }
  }
}

TYPED_TEST(DeviceFused, OutputsMayTakeThePlaceOfInputs) {
  using T = TypeParam;
  using P = batchnorm::parameter_t<T>;
  for_each_call<T>([](const auto& call) {
    const auto apart = run_on_device<T>(call);
    const DeviceBuffer<T> x(call.x);
    const DeviceBuffer<P> mean(*call.mean), variance(*call.variance), scale(*call.scale), bias(*call.bias);
    const DeviceWorkspace workspace(batchnorm::cuda::workspace_bytes<T>(call.format, call.shape));
    batchnorm::cuda::batch_norm<T>(call.format, call.options, {x.data(), call.shape}, scale.span(), bias.span(), mean.span(),
                                   variance.span(), {{x.data(), call.shape}}, Identity{}, workspace, nullptr);
    EXPECT_TRUE(same_bits(x.values(), apart.y));
  });
  for (const Format format : formats) {
    const auto call = ordinary_gradient_call<T, P>(shape_of(format, 4, {5, 9, 35}), format, true);
    const auto apart = run_on_device<T>(call);
    const DeviceBuffer<T> dy(call.dy), x(call.x);
    const DeviceBuffer<P> mean(call.mean), variance(call.variance), scale(*call.scale);
    const DeviceWorkspace workspace(batchnorm::cuda::workspace_bytes<T>(call.format, call.shape));
    batchnorm::cuda::batch_norm_backward<T>(format, call.options, {dy.data(), call.shape}, {x.data(), call.shape}, scale.span(),
                                            mean.span(), variance.span(), {{dy.data(), call.shape}}, Identity{}, workspace,
                                            nullptr);
    EXPECT_TRUE(same_bits(dy.values(), apart.dx));
  }
}

}  // namespace
