// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <cstddef>
#include <functional>
#include <limits>
#include <regex>
#include <set>
#include <thread>

#include "support/c_calls.hpp"
#include "support/run_program.hpp"
#include "support/sanitizers.hpp"

// What the C interface refuses, with status and whole message, that nothing is written then, and what the library exports.
namespace {

using namespace support;

static_assert(noexcept(batchnorm_forward(nullptr, nullptr)) && noexcept(batchnorm_last_error()));

/// A right call of batchnorm_forward in training, to be made wrong in one place.
struct Forward {
  std::int64_t shape[5] = {2, 3, 4, 1, 1};
  std::int64_t strides[3] = {12, 4, 1};
  std::vector<float> buffer = std::vector<float>(100, 777.0F);
  batchnorm_options options = batchnorm_default_options();
  batchnorm_forward_arguments arguments = batchnorm_no_forward_arguments();

  Forward() {
    options.is_training = 1;
    arguments.type = BATCHNORM_FLOAT;
    arguments.rank = 3;
    arguments.shape = shape;
    arguments.x = {at(0), 24, 0, nullptr, 0};
    arguments.output_x = {at(24), 24, 0, nullptr, 0};
    arguments.scale = {at(48), 3};
    arguments.bias = {at(52), 3};
    arguments.mean = {at(56), 3};
    arguments.variance = {at(60), 3};
    arguments.batch_mean = {at(64), 3};
    arguments.batch_variance = {at(68), 3};
    arguments.reserve_space_1 = {at(72), 3};
    arguments.reserve_space_2 = {at(76), 3};
  }
  Forward(const Forward&) = delete;  // the pointers point into this object
  Forward& operator=(const Forward&) = delete;

  float* at(std::int64_t i) { return buffer.data() + i; }
  std::string error() {
    const auto before = buffer;
    const std::string text = c_error(batchnorm_forward(&options, &arguments));
    EXPECT_TRUE(text.empty() || same_bits(buffer, before)) << "something was written";
    return text;
  }
};

/// Status and message of the call that `spoil` has made wrong.
std::string error_of(const std::function<void(Forward&)>& spoil) {
  Forward call;
  spoil(call);
  return call.error();
}

const std::string about_x = " (x is [2, 3, 4], NCHW)";

TEST(CInterfaceErrors, TheCallThatIsSpoiltBelowIsRight) { EXPECT_EQ(Forward().error(), ""); }

TEST(CInterfaceErrors, ShapesThatDoNotFit) {
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.rank = 1; }), "1: batchnorm_forward: rank is 1, expected 2 to 5");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.rank = 6; }), "1: batchnorm_forward: rank is 6, expected 2 to 5");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.rank = -1; }), "1: batchnorm_forward: rank is -1, expected 2 to 5");
  EXPECT_EQ(error_of([](Forward& f) { f.shape[0] = -2; }),
            "1: batchnorm_forward: x has a negative extent, its shape is [-2, 3, 4]");
  EXPECT_EQ(error_of([](Forward& f) { f.shape[0] = f.shape[2] = std::numeric_limits<std::int64_t>::max(); }),
            "1: batchnorm_forward: the number of elements of x overflows 64 bits, its shape is [9223372036854775807, 3, "
            "9223372036854775807]");
}

TEST(CInterfaceErrors, OptionsOutOfRange) {
  EXPECT_EQ(error_of([](Forward& f) { f.options.epsilon = 0; }), "2: batchnorm::BatchNorm: epsilon is 0, it must be in (0, 1]");
  EXPECT_EQ(error_of([](Forward& f) { f.options.momentum = 1.5; }),
            "2: batchnorm::BatchNorm: momentum is 1.5, it must be in [0, 1]");
  EXPECT_EQ(error_of([](Forward& f) { f.options.batch_number = -1; }),
            "2: batchnorm::BatchNorm: batch_number is -1, it must be 0 (use momentum) or count from 1");
}

TEST(CInterfaceErrors, CodesThatNobodyKnows) {
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.type = 0; }),
            "2: batchnorm_forward: type is 0, known are 1 (float), 2 (double), 3 (half), 4 (bfloat16)");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.parameter_type = 5; }),
            "2: batchnorm_forward: parameter_type is 5, known are 1 (float), 2 (double), 3 (half), 4 (bfloat16)");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.parameter_type = BATCHNORM_DOUBLE; }),
            "2: batchnorm_forward: parameter_type double does not go with type float");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.format = 2; }),
            "2: batchnorm_forward: format is 2, known are 0 (NCHW), 1 (NHWC)");
  EXPECT_EQ(error_of([](Forward& f) { f.options.running_variance = -1; }),
            "2: batchnorm_forward: running_variance is -1, known are 0 (unbiased), 1 (biased)");
  EXPECT_EQ(error_of([](Forward& f) { f.options.not_finite = 7; }),
            "2: batchnorm_forward: not_finite is 7, known are 0 (updates), 1 (keeps)");
  EXPECT_EQ(error_of([](Forward& f) { f.options.is_training = -1; }),
            "2: batchnorm_forward: is_training is -1, known are 0 (inference), 1 (training)");
  EXPECT_EQ(error_of([](Forward& f) { f.options.reserved = 1; }), "2: batchnorm_forward: reserved is 1, it must be 0");
}

/// Every pair of type codes is taken or refused as the template does.
TEST(CInterfaceErrors, TypesThatDoNotGoTogether) {
  const std::set<std::pair<int, int>> pairs{{BATCHNORM_FLOAT, BATCHNORM_FLOAT},      {BATCHNORM_FLOAT, BATCHNORM_HALF},
                                            {BATCHNORM_DOUBLE, BATCHNORM_DOUBLE},    {BATCHNORM_HALF, BATCHNORM_FLOAT},
                                            {BATCHNORM_HALF, BATCHNORM_HALF},        {BATCHNORM_BFLOAT16, BATCHNORM_FLOAT},
                                            {BATCHNORM_BFLOAT16, BATCHNORM_BFLOAT16}};
  const std::int64_t empty[] = {0, 3};
  for (int type = 1; type <= 4; ++type) {
    for (int parameter_type = 1; parameter_type <= 4; ++parameter_type) {
      batchnorm_backward_arguments arguments = batchnorm_no_backward_arguments();
      arguments.type = type;
      arguments.parameter_type = parameter_type;
      arguments.rank = 2;
      arguments.shape = empty;
      std::vector<double> vectors(6);
      arguments.mean = {vectors.data(), 3};
      arguments.variance = {vectors.data() + 3, 3};
      const std::string text = c_error(batchnorm_backward(nullptr, &arguments));
      EXPECT_EQ(text.empty(), pairs.contains({type, parameter_type})) << type << " with " << parameter_type << ": " << text;
    }
  }
}

TEST(CInterfaceErrors, PointersThatAreNull) {
  EXPECT_EQ(c_error(batchnorm_forward(nullptr, nullptr)), "2: batchnorm_forward: forward_arguments is NULL");
  EXPECT_EQ(c_error(batchnorm_backward(nullptr, nullptr)), "2: batchnorm_backward: backward_arguments is NULL");
  EXPECT_EQ(c_error(batchnorm_double_backward(nullptr, nullptr)),
            "2: batchnorm_double_backward: double_backward_arguments is NULL");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.shape = nullptr; }), "2: batchnorm_forward: shape is NULL");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.x = {}; }),
            "2: batchnorm::BatchNorm: x has a null pointer for its data, its shape is [2, 3, 4]");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.output_x = {}; }),
            "2: batchnorm::BatchNorm: output_x has a null pointer for its data, its shape is [2, 3, 4]");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.mean = {}; }),
            "2: batchnorm::BatchNorm: mean is absent while variance is given; they come together");
  EXPECT_EQ(error_of([](Forward& f) {
              f.options.is_training = 0;
              f.arguments.mean = f.arguments.variance = {};
            }),
            "2: batchnorm::BatchNorm: mean is absent, inference normalises with it");
  EXPECT_EQ(c_error(batchnorm_active_isa(nullptr)), "2: batchnorm_active_isa: name is NULL");
  EXPECT_EQ(c_error(batchnorm_create_thread_team(2, nullptr)), "2: batchnorm_create_thread_team: team is NULL");
}

TEST(CInterfaceErrors, DataThatCannotBeTaken) {
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.scale.data = reinterpret_cast<const char*>(f.at(48)) + 1; }),
            "2: batchnorm::BatchNorm: scale is misaligned: its address is not a multiple of 4, the alignment of float");
  EXPECT_EQ(error_of([](Forward& f) { f.arguments.output_x.data = f.at(1); }),
            "2: batchnorm::BatchNorm: output_x overlaps x; allowed is only output_x in place of x or of the residual, with the "
            "same strides");
  EXPECT_EQ(error_of([](Forward& f) {
              f.strides[2] = 2;
              f.arguments.x = {f.at(0), 27, 0, f.strides, 3};
            }),
            "2: batchnorm::BatchNorm: x has strides [12, 4, 2]; supported are tensors where the channels of a position, or the "
            "values along the last spatial axis, lie next to each other" +
                about_x);
}

TEST(CInterfaceErrors, InstructionSetsAndThreads) {
  const std::string unknown = c_error(batchnorm_force_isa("x87"));
  EXPECT_EQ(unknown.find("2: batchnorm: instruction set is 'x87', available here are baseline"), 0U) << unknown;
  EXPECT_EQ(c_error(batchnorm_force_isa(nullptr)).find("2: batchnorm: instruction set is ''"), 0U);
  batchnorm_thread_team* team = nullptr;
  EXPECT_EQ(c_error(batchnorm_create_thread_team(0, &team)),
            "2: batchnorm::ThreadTeam: concurrency is 0, it must be in [1, 1024]");
  EXPECT_EQ(team, nullptr);
}

TEST(CInterfaceErrors, AvailableInstructionSetsAreThoseOfTheTemplate) {
  std::int32_t count = 0;
  for (const Isa isa : batchnorm::available_isas()) EXPECT_EQ(batchnorm_available_isa(count++), to_string(isa));
  EXPECT_EQ(batchnorm_available_isa(count), nullptr);
  EXPECT_EQ(batchnorm_available_isa(-1), nullptr);
}

// The kernels' temporary vectors for so many channels fit no address space.
TEST(CInterfaceErrors, MemoryThatIsNotThere) {
  if (address_sanitizer || thread_sanitizer) GTEST_SKIP() << "the sanitizer ends the program instead";
  EXPECT_EQ(error_of([](Forward& f) {
              f.shape[0] = f.shape[2] = 1;
              f.shape[1] = std::int64_t{1} << 52;
              const void* scale = f.arguments.scale.data;
              f.arguments = batchnorm_no_forward_arguments();
              f.arguments.type = BATCHNORM_FLOAT;
              f.arguments.rank = 3;
              f.arguments.shape = f.shape;
              f.arguments.x = {scale, f.shape[1], 0, nullptr, 0};
              f.arguments.output_x = {const_cast<void*>(scale), f.shape[1], 0, nullptr, 0};
            }),
            "3: batchnorm: out of memory");
}

TEST(CInterfaceErrors, TeamTakesTheThreadsThatTheSystemGrants) {
  if (address_sanitizer || thread_sanitizer) GTEST_SKIP() << "the sanitizer needs the address space";
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &old), 0);
  rlimit narrow = old;
  narrow.rlim_cur = rlim_t{1} << 32;  // 1023 stacks of 8 MB do not fit
  ASSERT_EQ(setrlimit(RLIMIT_AS, &narrow), 0);
  batchnorm_thread_team* team = nullptr;
  const std::string text = c_error(batchnorm_create_thread_team(1024, &team));
  setrlimit(RLIMIT_AS, &old);
  EXPECT_EQ(text, "");
  EXPECT_NE(team, nullptr);
  batchnorm_destroy_thread_team(team);
}

TEST(CInterfaceErrors, MessageBelongsToItsThread) {
  ASSERT_NE(c_error(batchnorm_forward(nullptr, nullptr)), "");
  const std::string here = batchnorm_last_error();
  std::string there = "unset";
  std::thread([&] { there = batchnorm_last_error(); }).join();
  EXPECT_EQ(there, "");
  EXPECT_EQ(batchnorm_last_error(), here);
  EXPECT_EQ(Forward().error(), "");
  EXPECT_EQ(batchnorm_last_error(), here) << "a call without error keeps the message";
}

TEST(CInterfaceErrors, LongMessageIsCut) {
  const std::string name(5000, 'x');
  EXPECT_EQ(batchnorm_force_isa(name.c_str()), BATCHNORM_VALUE_ERROR);
  EXPECT_EQ(std::string(batchnorm_last_error()).size(), 1023U);
}

TEST(CInterface, ExportsWhatTheHeaderDeclaresAndNothingElse) {
  std::set<std::string> declared, exported;
  const std::string header = read_bytes(BATCHNORM_C_HEADER);
  const std::regex declaration("BATCHNORM_C_API[^;(]*[ *](batchnorm_[a-z_]+)\\(");
  for (std::sregex_iterator match(header.begin(), header.end(), declaration), end; match != end; ++match) {
    declared.insert((*match)[1].str() + "@@BATCHNORM_C_1");
  }
  EXPECT_EQ(declared.size(), 17U);
  const ProgramResult result = run_program({BATCHNORM_NM, "--dynamic", "--defined-only", BATCHNORM_C_LIBRARY});
  ASSERT_EQ(result.status, 0) << result.errors;
  std::istringstream lines(result.output);
  for (std::string address, kind, name; lines >> address >> kind >> name;) {
    if (kind != "A") exported.insert(name);  // the version itself, which each nm names in its own way
  }
  EXPECT_EQ(exported, declared);
}

TEST(CInterface, NamesItsVersionAndStaysLoaded) {
  EXPECT_STREQ(batchnorm_version(), BATCHNORM_VERSION);
  const ProgramResult result = run_program({BATCHNORM_READELF, "--dynamic", "--wide", BATCHNORM_C_LIBRARY});
  ASSERT_EQ(result.status, 0) << result.errors;
  EXPECT_NE(result.output.find("[libbatchnorm_c.so.1]"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("NODELETE"), std::string::npos) << result.output;
}

}  // namespace
