// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#endif

#include <cstring>

#include <batchnorm/dlpack.hpp>

#include "support/adapters.hpp"
#include "support/messages.hpp"

// Tensors by DLPack. The structures below have the members of versions 0.6 and 1.x; where dlpack.h is installed, that one is
// tested too.
namespace {

using namespace support;
using batchnorm::DlpackDevice;
using batchnorm::TensorView;
using batchnorm::view_of;

template <class DeviceType>
struct Tensor {
  void* data;
  struct {
    DeviceType device_type;
    std::int32_t device_id;
  } device;
  std::int32_t ndim;
  struct {
    std::uint8_t code, bits;
    std::uint16_t lanes;
  } dtype;
  std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};

namespace dlpack_0 {
enum DLDeviceType { kDLCPU = 1, kDLCUDA = 2 };
using DLTensor = Tensor<DLDeviceType>;
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
}  // namespace dlpack_0

namespace dlpack_1 {
enum DLDeviceType : std::int32_t { kDLCPU = 1 };
using DLTensor = Tensor<DLDeviceType>;
struct DLManagedTensorVersioned {
  struct {
    std::uint32_t major, minor;
  } version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};
}  // namespace dlpack_1

template <class D>
struct Shaped {
  std::vector<std::int64_t> shape{2, 3, 5, 7}, strides{105, 35, 7, 1};
  std::vector<float> data = uniform<float>(400, -1, 3, 5);
  D tensor{data.data(), {static_cast<decltype(D().device.device_type)>(1), 0}, 4, {2, 32, 1}, shape.data(), strides.data(), 0};

  Shaped() = default;
  Shaped(const Shaped&) = delete;
  Shaped& operator=(const Shaped&) = delete;
};

template <class D>
class DlpackAdapter : public testing::Test {};
#if __has_include(<dlpack/dlpack.h>)
using Versions = testing::Types<dlpack_0::DLTensor, dlpack_1::DLTensor, ::DLTensor>;
#else
using Versions = testing::Types<dlpack_0::DLTensor, dlpack_1::DLTensor>;
#endif
TYPED_TEST_SUITE(DlpackAdapter, Versions);

TYPED_TEST(DlpackAdapter, ShapeStridesAndOffsetAreThoseOfTheTensor) {
  Shaped<TypeParam> of;
  of.strides = {200, 40, 8, 1};
  of.tensor.byte_offset = 12;
  const auto view = view_of<const float>(of.tensor);
  static_assert(std::is_same_v<decltype(view), const TensorView<const float>>);
  EXPECT_EQ(view.shape(), (Shape{2, 3, 5, 7}));
  EXPECT_EQ(view.data(), of.data.data() + 3);
  EXPECT_EQ(view.strides()[0], 200);
  EXPECT_EQ(view.strides()[2], 8);
  expect_normalised_in_place(view_of<float>(of.tensor), Format::NCHW);
}

TYPED_TEST(DlpackAdapter, WithoutStridesItIsDense) {
  Shaped<TypeParam> of;
  of.tensor.strides = nullptr;
  EXPECT_EQ(view_of<float>(of.tensor).strides(), batchnorm::dense_strides({2, 3, 5, 7}));
  expect_normalised_in_place(view_of<float>(of.tensor), Format::NHWC);
  of.shape[1] = 0;
  of.tensor.data = nullptr;
  of.tensor.byte_offset = 64;
  EXPECT_EQ(view_of<float>(of.tensor).data(), nullptr) << "an offset from nothing is nothing";
  of.tensor.ndim = 0;
  of.tensor.shape = nullptr;
  EXPECT_EQ(view_of<float>(of.tensor).shape(), Shape());
}

TYPED_TEST(DlpackAdapter, DataTypesAreChecked) {
  Shaped<TypeParam> of;
  const auto error = [&](int code, int bits, int lanes) {
    of.tensor.dtype.code = static_cast<std::uint8_t>(code);
    of.tensor.dtype.bits = static_cast<std::uint8_t>(bits);
    of.tensor.dtype.lanes = static_cast<std::uint16_t>(lanes);
    return message_of<batchnorm::ValueError>([&] { view_of<float>(of.tensor); });
  };
  EXPECT_EQ(error(2, 64, 1), "batchnorm::view_of: the DLTensor holds float64, expected float32");
  EXPECT_EQ(error(4, 16, 1), "batchnorm::view_of: the DLTensor holds bfloat16, expected float32");
  EXPECT_EQ(error(0, 32, 1), "batchnorm::view_of: the DLTensor holds int32, expected float32");
  EXPECT_EQ(error(2, 32, 4), "batchnorm::view_of: the DLTensor holds float32x4, expected float32");
  EXPECT_EQ(error(10, 8, 1), "batchnorm::view_of: the DLTensor holds code 10 of 8, expected float32");
  of.tensor.dtype = {2, 16, 1};
  EXPECT_EQ(view_of<batchnorm::half>(of.tensor).shape()[3], 7);
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { view_of<batchnorm::bfloat16>(of.tensor); }),
            "batchnorm::view_of: the DLTensor holds float16, expected bfloat16");
  of.tensor.dtype = {4, 16, 1};
  EXPECT_EQ(view_of<const batchnorm::bfloat16>(of.tensor).shape()[3], 7);
  of.tensor.dtype = {2, 64, 1};
  EXPECT_EQ(view_of<double>(of.tensor).shape()[3], 7);
}

TYPED_TEST(DlpackAdapter, DevicesAreChecked) {
  Shaped<TypeParam> of;
  const auto put_on = [&](int type) { std::memcpy(&of.tensor.device.device_type, &type, sizeof(type)); };
  for (const int host : {1, 3, 11, 13}) {
    put_on(host);
    EXPECT_EQ(view_of<float>(of.tensor).data(), of.data.data());
  }
  put_on(2);
  EXPECT_EQ(
      message_of<batchnorm::ValueError>([&] { view_of<float>(of.tensor); }),
      "batchnorm::view_of: the DLTensor is in the memory of device type 2, expected 1 (CPU) or host memory that is pinned "
      "or managed (3, 11, 13)");
  EXPECT_EQ(view_of<float>(of.tensor, DlpackDevice::cuda).data(), of.data.data());
  put_on(10);
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { view_of<float>(of.tensor, DlpackDevice::cuda); }),
            "batchnorm::view_of: the DLTensor is in the memory of device type 10, expected 2 (CUDA) or 13 (CUDA, managed)");
}

TYPED_TEST(DlpackAdapter, ShapesAreChecked) {
  Shaped<TypeParam> of;
  of.tensor.ndim = -1;
  EXPECT_EQ(message_of<batchnorm::ShapeError>([&] { view_of<float>(of.tensor); }),
            "batchnorm::view_of: the DLTensor has -1 axes, expected 0 to 8");
  of.tensor.ndim = 9;
  EXPECT_EQ(message_of<batchnorm::ShapeError>([&] { view_of<float>(of.tensor); }),
            "batchnorm::view_of: the DLTensor has 9 axes, expected 0 to 8");
  of.tensor.ndim = 4;
  of.tensor.shape = nullptr;
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { view_of<float>(of.tensor); }),
            "batchnorm::view_of: the DLTensor has 4 axes and no shape");
}

TYPED_TEST(DlpackAdapter, AByteOffsetThatLeavesMemoryIsRefused) {
  Shaped<TypeParam> of;
  of.tensor.byte_offset = ~std::uint64_t{0} - 3;
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { view_of<float>(of.tensor); }),
            "batchnorm::view_of: the DLTensor has a byte offset of 18446744073709551612, which reaches beyond any memory");
}

TEST(DlpackManaged, OfEitherVersionIsItsTensor) {
  Shaped<dlpack_0::DLTensor> zero;
  const dlpack_0::DLManagedTensor managed{zero.tensor, nullptr, nullptr};
  EXPECT_EQ(view_of<float>(managed).data(), zero.data.data());

  Shaped<dlpack_1::DLTensor> one;
  dlpack_1::DLManagedTensorVersioned versioned{{1, 3}, nullptr, nullptr, 0, one.tensor};
  EXPECT_EQ(view_of<float>(versioned).data(), one.data.data());
  versioned.flags = 1;
  EXPECT_EQ(view_of<const float>(versioned).data(), one.data.data());
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { view_of<float>(versioned); }),
            "batchnorm::view_of: the managed tensor may only be read; view it as const");
  versioned.version.major = 2;
  EXPECT_EQ(message_of<batchnorm::ValueError>([&] { view_of<const float>(versioned); }),
            "batchnorm::view_of: the managed tensor is of DLPack 2.3, known are versions up to 1");
}

}  // namespace
