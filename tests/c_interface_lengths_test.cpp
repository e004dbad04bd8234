// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>

#include "support/c_calls.hpp"

// The C interface reads and writes nothing outside the lengths that it is given: every member of every structure.
namespace {

using namespace support;

constexpr std::int64_t least = std::numeric_limits<std::int64_t>::min(), most = std::numeric_limits<std::int64_t>::max();

// ---- each array of each call, one too short

template <class Body>
void for_each_tensor(batchnorm_forward_arguments& a, Body&& body) {
  body("x", a.x), body("output_x", a.output_x), body("residual", a.residual);
}
template <class Body>
void for_each_tensor(batchnorm_backward_arguments& a, Body&& body) {
  body("dy", a.dy), body("x", a.x), body("dx", a.dx), body("dresidual", a.dresidual);
}
template <class Body>
void for_each_tensor(batchnorm_double_backward_arguments& a, Body&& body) {
  body("x", a.x), body("dy", a.dy), body("ddx", a.ddx), body("dx", a.dx), body("ddy", a.ddy);
}
template <class Body>
void for_each_vector(batchnorm_forward_arguments& a, Body&& body) {
  body("scale", a.scale), body("bias", a.bias), body("mean", a.mean), body("variance", a.variance);
  body("batch_mean", a.batch_mean), body("batch_variance", a.batch_variance);
  body("reserve_space_1", a.reserve_space_1), body("reserve_space_2", a.reserve_space_2);
}
template <class Body>
void for_each_vector(batchnorm_backward_arguments& a, Body&& body) {
  body("scale", a.scale), body("mean", a.mean), body("variance", a.variance), body("dscale", a.dscale), body("dbias", a.dbias);
}
template <class Body>
void for_each_vector(batchnorm_double_backward_arguments& a, Body&& body) {
  body("scale", a.scale), body("mean", a.mean), body("variance", a.variance), body("ddscale", a.ddscale);
  body("ddbias", a.ddbias), body("dscale", a.dscale);
}

/// A right call, and its arrays by name.
template <class Arguments>
struct Call {
  std::int64_t shape[3] = {2, 3, 4};
  std::vector<float> memory = std::vector<float>(256, 1.0F);
  batchnorm_options options = batchnorm_default_options();
  Arguments arguments{};

  Call() {
    options.is_training = 1;
    arguments.struct_size = sizeof arguments;
    arguments.type = BATCHNORM_FLOAT;
    arguments.rank = 3;
    arguments.shape = shape;
    float* next = memory.data();
    for_each_tensor(arguments, [&](const char*, auto& tensor) { tensor.data = next, next += tensor.length = 24; });
    for_each_vector(arguments, [&](const char*, auto& vector) { vector.data = next, next += vector.length = 3; });
  }
  Call(const Call&) = delete;  // the pointers point into this object
  Call& operator=(const Call&) = delete;
};

batchnorm_status run(Call<batchnorm_forward_arguments>& c) { return batchnorm_forward(&c.options, &c.arguments); }
batchnorm_status run(Call<batchnorm_backward_arguments>& c) { return batchnorm_backward(&c.options, &c.arguments); }
batchnorm_status run(Call<batchnorm_double_backward_arguments>& c) {
  return batchnorm_double_backward(&c.options, &c.arguments);
}

/// Status and message; whatever is refused has written nothing.
template <class Arguments>
std::string error_in(Call<Arguments>& call) {
  const auto before = call.memory;
  const std::string text = c_error(run(call));
  EXPECT_TRUE(text.empty() || same_bits(call.memory, before)) << "something was written";
  return text;
}

template <class Arguments>
class CInterfaceLengths : public testing::Test {
 public:
  /// Expects `message` of the call in which `spoil(array)` has made the array of that name wrong.
  template <class Each, class Spoil>
  void expect(const Each& for_each, const std::string& name, const std::string& message, const Spoil& spoil) {
    Call<Arguments> call;
    for_each(call.arguments, [&](const char* of, auto& array) {
      if (name == of) spoil(array);
    });
    const std::string text = error_in(call);
    EXPECT_NE(text.find(message), std::string::npos) << name << ": " << text;
  }

  /// Lengths that no memory has, given by expect_of(message, spoil).
  template <class ExpectOf>
  void expect_impossible_lengths_refused(const ExpectOf& expect_of) {
    for (const std::int64_t length : {std::int64_t{-1}, std::int64_t{-24}, least}) {
      expect_of(".length is " + std::to_string(length) + ", it must be at least 0",
                [&](auto& array) { array.length = length; });
    }
    expect_of(".length is 9223372036854775807, which reaches beyond any memory", [](auto& array) { array.length = most; });
  }

  template <class Spoil>
  void expect_of_tensors(const std::string& message, const Spoil& spoil) {
    const auto each = [](auto& a, auto&& body) { for_each_tensor(a, body); };
    each(names_.arguments, [&](const char* name, auto&) { expect(each, name, ": " + (name + message), spoil); });
  }
  template <class Spoil>
  void expect_of_vectors(const std::string& message, const Spoil& spoil) {
    const auto each = [](auto& a, auto&& body) { for_each_vector(a, body); };
    each(names_.arguments, [&](const char* name, auto&) { expect(each, name, ": " + (name + message), spoil); });
  }

 private:
  Call<Arguments> names_;
};

using AllArguments =
    testing::Types<batchnorm_forward_arguments, batchnorm_backward_arguments, batchnorm_double_backward_arguments>;
TYPED_TEST_SUITE(CInterfaceLengths, AllArguments);

TYPED_TEST(CInterfaceLengths, TheCallThatIsSpoiltBelowIsRight) {
  Call<TypeParam> call;
  EXPECT_EQ(error_in(call), "");
}

TYPED_TEST(CInterfaceLengths, EachVectorOfAnotherLengthIsRefused) {
  for (const int length : {0, 2, 4, 64}) {
    this->expect_of_vectors(" has " + std::to_string(length) + " elements, expected C = 3 (x is [2, 3, 4], NCHW)",
                            [&](auto& vector) { vector.length = length; });
  }
  this->expect_impossible_lengths_refused(
      [&](const std::string& message, const auto& spoil) { this->expect_of_vectors(message, spoil); });
}

TYPED_TEST(CInterfaceLengths, EachTensorThatIsTooShortIsRefused) {
  for (const std::int64_t length : {23, 0}) {
    this->expect_of_tensors(
        ".length is " + std::to_string(length) + ", expected at least 24 for the shape [2, 3, 4] with strides [12, 4, 1]",
        [&](auto& tensor) { tensor.length = length; });
  }
  this->expect_impossible_lengths_refused(
      [&](const std::string& message, const auto& spoil) { this->expect_of_tensors(message, spoil); });
}

TYPED_TEST(CInterfaceLengths, OffsetsCountAgainstTheLength) {
  this->expect_of_tensors(".length is 24, expected at least 25 for the shape [2, 3, 4] with strides [12, 4, 1] and offset 1",
                          [](auto& tensor) { tensor.offset = 1; });
  for (const std::int64_t offset : {std::int64_t{-1}, std::int64_t{25}, least, most}) {
    this->expect_of_tensors(".offset is " + std::to_string(offset) + ", expected 0 to length, which is 24",
                            [&](auto& tensor) { tensor.offset = offset; });
  }
}

constexpr std::int64_t gaps[] = {13, 4, 1}, back[] = {-12, 4, 1}, far[] = {most, most, 1}, farther[] = {least, 4, 1};

TYPED_TEST(CInterfaceLengths, StridesCountAgainstTheLength) {
  this->expect_of_tensors(".length is 24, expected at least 25 for the shape [2, 3, 4] with strides [13, 4, 1]",
                          [](auto& tensor) { tensor.strides = gaps, tensor.strides_length = 3; });
  this->expect_of_tensors(".offset is 11, expected at least 12 for the shape [2, 3, 4] with strides [-12, 4, 1]",
                          [](auto& tensor) { tensor.strides = back, tensor.strides_length = 3, tensor.offset = 11; });
  this->expect_of_tensors(" has strides [9223372036854775807, 9223372036854775807, 1], which reach beyond any memory",
                          [](auto& tensor) { tensor.strides = far, tensor.strides_length = 3; });
  this->expect_of_tensors(".offset is 24, expected at least 9223372036854775808 for the shape",
                          [](auto& tensor) { tensor.strides = farther, tensor.strides_length = 3, tensor.offset = 24; });
}

constexpr std::int64_t five[] = {12, 4, 1, 1, 1};

TYPED_TEST(CInterfaceLengths, AsManyStridesAsAxes) {
  for (const std::int64_t length : {std::int64_t{0}, std::int64_t{2}, std::int64_t{4}, std::int64_t{-3}, least, most}) {
    this->expect_of_tensors(".strides_length is " + std::to_string(length) + ", expected 3, the rank",
                            [&](auto& tensor) { tensor.strides = five, tensor.strides_length = length; });
  }
  this->expect_of_tensors(".strides_length is 3, expected 0, since ", [](auto& tensor) { tensor.strides_length = 3; });
  const auto* const misaligned = reinterpret_cast<const std::int64_t*>(reinterpret_cast<const char*>(five) + 4);
  this->expect_of_tensors(".strides is misaligned: its address is not a multiple of 8",
                          [&](auto& tensor) { tensor.strides = misaligned, tensor.strides_length = 3; });
}

TYPED_TEST(CInterfaceLengths, NothingHasNoLength) {
  for (const std::int64_t length : {std::int64_t{3}, std::int64_t{24}, std::int64_t{-1}, least, most}) {
    const auto spoil = [&](auto& array) { array.data = nullptr, array.length = length; };
    this->expect_of_vectors(".data is NULL while its length is " + std::to_string(length), spoil);
    this->expect_of_tensors(".data is NULL while its length is " + std::to_string(length), spoil);
  }
}

TYPED_TEST(CInterfaceLengths, MisalignedTensorIsRefusedWhateverItsOffset) {
  for (const std::int64_t offset : {0, 1}) {
    this->expect_of_tensors(" is misaligned: its address is not a multiple of 4, the alignment of float", [&](auto& tensor) {
      tensor.data = static_cast<std::remove_reference_t<decltype(tensor.data)>>(
          reinterpret_cast<char*>(const_cast<void*>(static_cast<const void*>(tensor.data))) + 1);
      tensor.offset = offset, tensor.length += offset;
    });
  }
}

// ---- what is allowed

TEST(CInterfaceLengthsAllowed, MoreMemoryThanTheShapeNeeds) {
  Call<batchnorm_forward_arguments> call;
  call.arguments.output_x.length = 25;
  EXPECT_EQ(error_in(call), "");
}

TEST(CInterfaceLengthsAllowed, ReversedTensorEndsWhereItsMemoryBegins) {
  Call<batchnorm_forward_arguments> call;
  std::iota(call.memory.begin(), call.memory.begin() + 24, 0.0F);
  call.arguments.x.strides = call.arguments.output_x.strides = back;
  call.arguments.x.strides_length = call.arguments.output_x.strides_length = 3;
  call.arguments.x.offset = call.arguments.output_x.offset = 12;
  ASSERT_EQ(error_in(call), "");
  Call<batchnorm_forward_arguments> dense;
  std::iota(dense.memory.begin(), dense.memory.begin() + 24, 0.0F);
  ASSERT_EQ(error_in(dense), "");
  EXPECT_TRUE(same_bits(std::span(call.memory).subspan(24, 24), std::span(dense.memory).subspan(24, 24)));
}

TEST(CInterfaceLengthsAllowed, TensorsWithoutElementsNeedNoMemory) {
  Call<batchnorm_forward_arguments> call;
  call.shape[0] = 0;
  call.arguments.x.length = call.arguments.output_x.length = 0;
  EXPECT_EQ(error_in(call), "");
  call.arguments.x.data = nullptr;
  EXPECT_EQ(error_in(call), "");
}

TEST(CInterfaceLengthsAllowed, StridesOfAxesWithOneElementCountNothing) {
  Call<batchnorm_forward_arguments> call;
  call.shape[0] = 1;
  const std::int64_t strides[] = {most, 4, 1};
  call.arguments.x = {call.memory.data(), 12, 0, strides, 3};
  EXPECT_EQ(error_in(call), "");
}

TEST(CInterfaceLengthsAllowed, WithoutChannelsVectorsAreEmpty) {
  Call<batchnorm_forward_arguments> call;
  call.shape[1] = 0;
  EXPECT_EQ(error_in(call), "1: batchnorm::BatchNorm: scale has 3 elements, expected C = 0 (x is [2, 0, 4], NCHW)");
  for_each_vector(call.arguments, [](const char*, auto& vector) { vector.length = 0; });
  EXPECT_EQ(error_in(call), "");
}

// ---- memory that ends where its length says

/// Two pages of which only the first may be touched.
class EndOfMemory {
 public:
  EndOfMemory() : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    void* const pages = mmap(nullptr, 2 * page_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    pages_ = static_cast<char*>(pages);
    if (mprotect(pages_ + page_, page_, PROT_NONE) != 0) throw std::bad_alloc();
  }
  ~EndOfMemory() { munmap(pages_, 2 * page_); }
  EndOfMemory(const EndOfMemory&) = delete;
  EndOfMemory& operator=(const EndOfMemory&) = delete;

  /// The last bytes of it.
  template <class T>
  T* last(std::size_t count) const {
    return reinterpret_cast<T*>(pages_ + page_ - count * sizeof(T));
  }

 private:
  std::size_t page_;
  char* pages_;
};

TEST(CInterfaceLengthsAtTheEndOfMemory, ScaleOfThreeElementsForSixtyFourChannels) {
  const EndOfMemory end;
  std::vector<float> x(2 * 64 * 4), y(x.size());
  const std::int64_t shape[] = {2, 64, 4};
  batchnorm_forward_arguments arguments = batchnorm_no_forward_arguments();
  set_types_and_shape<float, float>(arguments, Shape(shape), Format::NCHW);
  arguments.shape = shape;
  arguments.x = c_tensor(std::as_const(x));
  arguments.output_x = c_tensor(y);
  arguments.scale = {end.last<float>(3), 3};
  batchnorm_options options = batchnorm_default_options();
  options.is_training = 1;
  EXPECT_EQ(c_error(batchnorm_forward(&options, &arguments)),
            "1: batchnorm::BatchNorm: scale has 3 elements, expected C = 64 (x is [2, 64, 4], NCHW)");
}

TEST(CInterfaceLengthsAtTheEndOfMemory, StructureThatClaimsToReachBeyondIt) {
  Call<batchnorm_forward_arguments> call;
  const EndOfMemory end;
  auto* const arguments = reinterpret_cast<batchnorm_forward_arguments*>(end.last<char>(sizeof call.arguments));
  auto* const options = reinterpret_cast<batchnorm_options*>(end.last<char>(sizeof call.options));
  for (const std::size_t size : {std::size_t{4097}, std::size_t{1} << 40, std::numeric_limits<std::size_t>::max()}) {
    std::memcpy(arguments, &call.arguments, sizeof call.arguments);
    arguments->struct_size = size;
    EXPECT_EQ(c_error(batchnorm_forward(nullptr, arguments)),
              "2: batchnorm_forward: forward_arguments has struct_size " + std::to_string(size) +
                  ", expected at most 4096: set it to sizeof(batchnorm_forward_arguments)");
    std::memcpy(options, &call.options, sizeof call.options);
    options->struct_size = size;
    EXPECT_EQ(c_error(batchnorm_forward(options, &call.arguments)),
              "2: batchnorm_forward: options has struct_size " + std::to_string(size) +
                  ", expected at most 4096: set it to sizeof(batchnorm_options)");
  }
}

// ---- structures of other versions

/// A structure as a newer program would have it.
template <class Known>
struct Newer {
  Known known;
  unsigned char unknown[BATCHNORM_LARGEST_STRUCT_SIZE - sizeof(Known)] = {};
};

TEST(CInterfaceVersions, NewerStructureIsTakenWhileItsNewFieldsAreZero) {
  Call<batchnorm_forward_arguments> call;
  Newer<batchnorm_options> options{call.options};
  options.known.struct_size = sizeof options;
  EXPECT_EQ(c_error(batchnorm_forward(&options.known, &call.arguments)), "");
  options.known.struct_size = sizeof(batchnorm_options) + 8;
  options.unknown[7] = 1;
  EXPECT_EQ(c_error(batchnorm_forward(&options.known, &call.arguments)),
            "2: batchnorm_forward: options has struct_size 64 and a field after the 56 bytes that this version of the library "
            "knows");
  options.known.struct_size = sizeof(batchnorm_options) + 7;
  EXPECT_EQ(c_error(batchnorm_forward(&options.known, &call.arguments)), "") << "the byte is outside the structure";
  Newer<batchnorm_forward_arguments> arguments{call.arguments};
  arguments.known.struct_size = sizeof arguments;
  EXPECT_EQ(c_error(batchnorm_forward(&call.options, &arguments.known)), "");
  std::end(arguments.unknown)[-1] = 1;
  EXPECT_NE(c_error(batchnorm_forward(&call.options, &arguments.known)), "");
}

// A program that was compiled when forward_arguments ended with reserve_space_2, and backward_arguments with dbias.
TEST(CInterfaceVersions, StructureOfTheFirstVersionIsTaken) {
  Call<batchnorm_forward_arguments> forward;
  forward.arguments.struct_size = 240;
  forward.arguments.activation = 77;  // what lies in memory after the structure
  EXPECT_EQ(error_in(forward), "");
  Call<batchnorm_backward_arguments> backward;
  backward.arguments.struct_size = 232;
  backward.arguments.activation = 77;
  EXPECT_EQ(error_in(backward), "");
}

TEST(CInterfaceVersions, StructureThatIsTooSmallIsRefused) {
  Call<batchnorm_forward_arguments> call;
  call.options.struct_size = 0;
  EXPECT_EQ(error_in(call),
            "2: batchnorm_forward: options has struct_size 0, expected at least 56: set it to sizeof(batchnorm_options)");
  call.options.struct_size = 55;
  EXPECT_EQ(error_in(call),
            "2: batchnorm_forward: options has struct_size 55, expected at least 56: set it to sizeof(batchnorm_options)");
  call.options.struct_size = 56;
  call.arguments.struct_size = 128;  // what the first version had, without lengths
  EXPECT_EQ(error_in(call),
            "2: batchnorm_forward: forward_arguments has struct_size 128, expected at least 240: set it to "
            "sizeof(batchnorm_forward_arguments)");
}

TEST(CInterfaceVersions, MisalignedStructuresAndShapesAreRefused) {
  Call<batchnorm_forward_arguments> call;
  alignas(8) char memory[sizeof call.arguments + 4] = {};
  std::memcpy(memory + 4, &call.arguments, sizeof call.arguments);
  EXPECT_EQ(c_error(batchnorm_forward(nullptr, reinterpret_cast<const batchnorm_forward_arguments*>(memory + 4))),
            "2: batchnorm_forward: forward_arguments is misaligned: its address is not a multiple of 8");
  EXPECT_EQ(c_error(batchnorm_forward(reinterpret_cast<const batchnorm_options*>(memory + 4), &call.arguments)),
            "2: batchnorm_forward: options is misaligned: its address is not a multiple of 8");
  call.arguments.shape = reinterpret_cast<const std::int64_t*>(memory + 4);
  EXPECT_EQ(error_in(call), "2: batchnorm_forward: shape is misaligned: its address is not a multiple of 8");
}

// What the binary interface promises: these numbers never change.
TEST(CInterfaceVersions, LayoutIsThatOfTheFirstVersion) {
  EXPECT_EQ(sizeof(batchnorm_options), 56U);
  EXPECT_EQ(sizeof(batchnorm_const_vector), 16U);
  EXPECT_EQ(sizeof(batchnorm_vector), 16U);
  EXPECT_EQ(sizeof(batchnorm_const_tensor), 40U);
  EXPECT_EQ(sizeof(batchnorm_tensor), 40U);
  EXPECT_EQ(sizeof(batchnorm_forward_arguments), 312U);   // at first 240
  EXPECT_EQ(sizeof(batchnorm_backward_arguments), 344U);  // at first 232
  EXPECT_EQ(sizeof(batchnorm_double_backward_arguments), 328U);
  EXPECT_EQ(offsetof(batchnorm_options, struct_size), 0U);
  EXPECT_EQ(offsetof(batchnorm_options, epsilon), 24U);
  EXPECT_EQ(offsetof(batchnorm_options, team), 48U);
  EXPECT_EQ(offsetof(batchnorm_vector, length), 8U);
  EXPECT_EQ(offsetof(batchnorm_const_vector, length), 8U);
  EXPECT_EQ(offsetof(batchnorm_tensor, length), 8U);
  EXPECT_EQ(offsetof(batchnorm_tensor, offset), 16U);
  EXPECT_EQ(offsetof(batchnorm_tensor, strides), 24U);
  EXPECT_EQ(offsetof(batchnorm_tensor, strides_length), 32U);
  EXPECT_EQ(offsetof(batchnorm_const_tensor, strides), 24U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, struct_size), 0U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, shape), 24U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, x), 32U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, scale), 72U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, output_x), 136U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, reserve_space_2), 224U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, activation), 240U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, slope), 248U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, residual), 256U);
  EXPECT_EQ(offsetof(batchnorm_forward_arguments, mask), 296U);
  EXPECT_EQ(offsetof(batchnorm_backward_arguments, struct_size), 0U);
  EXPECT_EQ(offsetof(batchnorm_backward_arguments, dx), 160U);
  EXPECT_EQ(offsetof(batchnorm_backward_arguments, dbias), 216U);
  EXPECT_EQ(offsetof(batchnorm_backward_arguments, activation), 232U);
  EXPECT_EQ(offsetof(batchnorm_backward_arguments, mask), 248U);
  EXPECT_EQ(offsetof(batchnorm_backward_arguments, dresidual), 304U);
  EXPECT_EQ(offsetof(batchnorm_double_backward_arguments, struct_size), 0U);
  EXPECT_EQ(offsetof(batchnorm_double_backward_arguments, ddx), 160U);
  EXPECT_EQ(offsetof(batchnorm_double_backward_arguments, dscale), 312U);
}

}  // namespace
