// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

// The functions of examples/mindspore check the shapes and types that a framework hands to them before they read any memory.
extern "C" {
int batchnorm_mindspore_forward(int count, void** data, int* ranks, std::int64_t** shapes, const char** type_names, void*,
                                void*);
int batchnorm_mindspore_check_shapes(int operation, const int* ranks, const std::int64_t* const* shapes, int is_channels_last);
int batchnorm_mindspore_check_types(int operation, const char* const* type_names);
int batchnorm_mindspore_check_options(const double* options);
const char* batchnorm_mindspore_last_error();
}

namespace {

/// What MindSpore gives to batchnorm_mindspore_forward, right, to be made wrong in one place.
struct Given {
  static constexpr int x = 0, options = 5, output_x = 6, count = 11;

  int number = count;
  std::array<std::vector<float>, count> memory;
  std::array<double, 4> values{1, 1e-5, 0.1, 0};
  std::array<std::vector<std::int64_t>, count> extents;
  std::array<int, count> ranks{};
  std::array<void*, count> data{};
  std::array<std::int64_t*, count> shapes{};
  std::array<const char*, count> types{};

  Given() {
    for (std::size_t i = 0; i < count; ++i) {
      const bool is_tensor = i == x || i == output_x;
      memory[i].assign(is_tensor ? 24 : 3, 1.0F);
      extents[i] = is_tensor ? std::vector<std::int64_t>{2, 3, 4} : std::vector<std::int64_t>{3};
      types[i] = "float32";
      data[i] = memory[i].data();
    }
    extents[options] = {4}, types[options] = "float64", data[options] = values.data();
    for (std::size_t i = 0; i < count; ++i) ranks[i] = static_cast<int>(extents[i].size()), shapes[i] = extents[i].data();
  }
  Given(const Given&) = delete;  // the pointers point into this object
  Given& operator=(const Given&) = delete;

  /// "" or what the call says to standard error; then it has written nothing.
  std::string error() {
    testing::internal::CaptureStderr();
    const int status =
        batchnorm_mindspore_forward(number, data.data(), ranks.data(), shapes.data(), types.data(), nullptr, nullptr);
    const std::string text = testing::internal::GetCapturedStderr();
    EXPECT_EQ(status == 0, text.empty()) << text;
    const bool is_unwritten = std::ranges::all_of(
        memory, [](const auto& vector) { return std::ranges::all_of(vector, [](float value) { return value == 1; }); });
    EXPECT_TRUE(status == 0 || is_unwritten);
    return text;
  }
};

std::string error_of(const std::function<void(Given&)>& spoil) {
  Given given;
  spoil(given);
  return given.error();
}

TEST(CInterfaceMindSpore, TheCallThatIsSpoiltBelowIsRight) { EXPECT_EQ(Given().error(), ""); }

TEST(CInterfaceMindSpore, OptionsOfAnotherShapeOrTypeAreNotRead) {
  EXPECT_EQ(error_of([](Given& g) { g.extents[Given::options][0] = 3; }),
            "batchnorm::BatchNorm: options has shape [3], expected [4]\n");
  EXPECT_EQ(error_of([](Given& g) { g.ranks[Given::options] = 0; }),
            "batchnorm::BatchNorm: options has shape [], expected [4]\n");
  EXPECT_EQ(error_of([](Given& g) { g.types[Given::options] = "float32"; }),
            "batchnorm::BatchNorm: options is float32, expected float64\n");
  EXPECT_EQ(error_of([](Given& g) { g.data[Given::options] = nullptr; }), "batchnorm::BatchNorm: options has no data\n");
}

TEST(CInterfaceMindSpore, EachArgumentIsComparedWithX) {
  for (std::size_t i = 0; i < Given::count; ++i) {
    if (i == Given::options || i == Given::x) continue;
    EXPECT_NE(error_of([&](Given& g) { g.extents[i].back() -= 1; }), "") << i;
    EXPECT_NE(error_of([&](Given& g) { g.extents[i].back() = -1; }), "") << i;
    EXPECT_NE(error_of([&](Given& g) { g.types[i] = "float64"; }), "") << i;
  }
  EXPECT_NE(error_of([](Given& g) { g.extents[Given::x][0] = std::int64_t{1} << 62; }), "");
}

TEST(CInterfaceMindSpore, WhatIsMissingIsNamed) {
  for (std::size_t i = 0; i < Given::count; ++i) {
    EXPECT_NE(error_of([&](Given& g) { g.data[i] = nullptr; }).find(" has no data"), std::string::npos) << i;
    EXPECT_NE(error_of([&](Given& g) { g.shapes[i] = nullptr; }).find(" has no shape"), std::string::npos) << i;
    EXPECT_NE(error_of([&](Given& g) { g.types[i] = nullptr; }).find(" has no type"), std::string::npos) << i;
    EXPECT_NE(error_of([&](Given& g) { g.ranks[i] = -1; }).find(" has rank -1, expected 0 to 8"), std::string::npos) << i;
    EXPECT_NE(error_of([&](Given& g) { g.ranks[i] = 9; }).find(" has rank 9, expected 0 to 8"), std::string::npos) << i;
  }
  for (const int number : {-1, 0, 10, 12}) {
    EXPECT_EQ(error_of([&](Given& g) { g.number = number; }),
              "batchnorm::BatchNorm: MindSpore gives " + std::to_string(number) + " tensors, expected 11\n");
  }
  testing::internal::CaptureStderr();
  EXPECT_NE(batchnorm_mindspore_forward(Given::count, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr), 0);
  EXPECT_NE(testing::internal::GetCapturedStderr(), "");
}

TEST(CInterfaceMindSpore, ChecksNameOperationsThatThereAre) {
  const Given given;
  for (const int operation : {-1, 3}) {
    EXPECT_NE(batchnorm_mindspore_check_shapes(operation, given.ranks.data(), given.shapes.data(), 0), 0);
    EXPECT_EQ(std::string(batchnorm_mindspore_last_error()),
              "batchnorm_mindspore: operation is " + std::to_string(operation) + ", expected 0 to 2");
    EXPECT_NE(batchnorm_mindspore_check_types(operation, given.types.data()), 0);
  }
  EXPECT_NE(batchnorm_mindspore_check_shapes(0, nullptr, nullptr, 0), 0);
  EXPECT_NE(batchnorm_mindspore_check_types(0, nullptr), 0);
  EXPECT_NE(batchnorm_mindspore_check_options(nullptr), 0);
  EXPECT_EQ(batchnorm_mindspore_check_shapes(0, given.ranks.data(), given.shapes.data(), 0), 0);
  EXPECT_EQ(batchnorm_mindspore_check_types(0, given.types.data()), 0);
  EXPECT_EQ(batchnorm_mindspore_check_options(given.values.data()), 0);
}

}  // namespace
