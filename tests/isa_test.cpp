// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#if defined(__x86_64__) && defined(__linux__)
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <batchnorm/explain.hpp>

#include "support/calls.hpp"
#include "support/messages.hpp"

// List, query and force the instruction set; the variable BATCHNORM_ISA.
namespace {

using namespace support;
using batchnorm::active_isa;
using batchnorm::available_isas;
using batchnorm::ValueError;

/// "baseline, x86-64-v3, x86-64-v4" where this processor has them all.
std::string available_names() {
  std::string names;
  for (const Isa isa : available_isas()) names += (names.empty() ? "" : ", ") + std::string(to_string(isa));
  return names;
}

TEST(InstructionSets, AreListedAscendingFromTheCompiledOne) {
  const auto isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), batchnorm::compiled_isa());
  for (std::size_t i = 1; i < isas.size(); ++i) EXPECT_LT(isas[i - 1], isas[i]);
}

TEST(InstructionSets, HaveNames) {
  EXPECT_EQ(to_string(Isa::baseline), "baseline");
  EXPECT_EQ(to_string(Isa::x86_64_v3), "x86-64-v3");
  EXPECT_EQ(to_string(Isa::x86_64_v4), "x86-64-v4");
}

TEST(InstructionSets, AreParsedByName) {
  for (const Isa isa : available_isas()) EXPECT_EQ(batchnorm::parse_isa(to_string(isa)), isa);
}

TEST(InstructionSets, UnknownNameIsAnErrorThatListsTheAvailableOnes) {
  for (const char* name : {"avx2", "", "x86-64-v3 ", "X86-64-V3", "native"}) {
    EXPECT_EQ(message_of<ValueError>([&] { batchnorm::parse_isa(name); }),
              "batchnorm: instruction set is '" + std::string(name) + "', available here are " + available_names());
  }
}

TEST(InstructionSets, ForcedOneIsActive) {
  const IsaScope restore;
  for (const Isa isa : available_isas()) {
    batchnorm::force_isa(isa);
    EXPECT_EQ(active_isa(), isa);
  }
}

// Not on this processor, or below what the compiler's flags demand (build the tests with -march=x86-64-v3 to see the latter).
TEST(InstructionSets, ForcingOneThatCannotRunHereIsAnErrorAndChangesNothing) {
  const Isa before = active_isa();
  const auto isas = available_isas();
  int refused = 0;
  for (const Isa isa : {Isa::baseline, Isa::x86_64_v3, Isa::x86_64_v4}) {
    if (std::find(isas.begin(), isas.end(), isa) != isas.end()) continue;
    ++refused;
    EXPECT_EQ(message_of<ValueError>([&] { batchnorm::force_isa(isa); }),
              "batchnorm: instruction set is '" + std::string(to_string(isa)) + "', available here are " + available_names());
    EXPECT_EQ(active_isa(), before);
  }
  if (refused == 0) GTEST_SKIP() << "every instruction set can run here";
}

// Results differ by rounding only, so their presence shows in the bits of y of some tensor: the forced kernels do run.
TEST(InstructionSets, ForcingChangesTheKernelsThatRun) {
  if (available_isas().size() < 2 || batchnorm::compiled_isa() != Isa::baseline) GTEST_SKIP() << "one kind of arithmetic only";
  auto call = ordinary_call<float, float>({4, 5, 1000}, Format::NCHW, false);
  std::vector<std::vector<float>> results;
  for_each_isa([&](Isa) { results.push_back(run(call).y); });
  EXPECT_FALSE(same_bits(results[0], results[1])) << "without and with fused multiply-add";
}

// The variable is read once, at the first need: each case is a process of its own (a death test that is executed anew).
class Environment : public testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    if (const char* value = std::getenv("BATCHNORM_ISA")) before_ = value;
  }
  void TearDown() override {
    if (before_.empty()) {
      unsetenv("BATCHNORM_ISA");
    } else {
      setenv("BATCHNORM_ISA", before_.c_str(), 1);
    }
  }

  [[noreturn]] static void print_active() {
    try {
      const Isa isa = active_isa();
      std::cerr << "active: " << to_string(isa) << '\n';
    } catch (const ValueError& error) {
      std::cerr << error.what() << '\n';
    }
    std::exit(0);
  }

 private:
  std::string before_;
};
using EnvironmentDeathTest = Environment;

TEST_F(EnvironmentDeathTest, NamesTheInstructionSet) {
  for (const Isa isa : available_isas()) {
    setenv("BATCHNORM_ISA", std::string(to_string(isa)).c_str(), 1);
    EXPECT_EXIT(print_active(), testing::ExitedWithCode(0), "active: " + std::string(to_string(isa)) + "\n");
  }
}

TEST(InstructionSets, PreferredOneIsAvailableAndHasFusedMultiplyAddWhereTheProcessorHas) {
  const auto isas = available_isas();
  const Isa preferred = batchnorm::preferred_isa();
  EXPECT_NE(std::find(isas.begin(), isas.end(), preferred), isas.end());
  EXPECT_GE(preferred, (std::min)(isas.back(), Isa::x86_64_v3));
}

/// The instruction sets of calls: float, half in rows, in long and in short planes, bfloat16 in long planes.
[[noreturn]] void print_those_of_calls() {
  const auto print = []<class T>(T nothing, const batchnorm::Shape& shape, batchnorm::Format format) {
    const batchnorm::TensorView<const T> x(&nothing, shape);
    std::cerr << to_string(batchnorm::isa_of(x, format)) << ' ';
  };
  using batchnorm::Format, batchnorm::Shape;
  print(1.0F, Shape{2, 64, 3}, Format::NHWC);
  print(batchnorm::half(1), Shape{2, 64, 3}, Format::NHWC);
  print(batchnorm::half(1), Shape{2, 3, 64}, Format::NCHW);
  print(batchnorm::half(1), Shape{2, 3, 7, 7}, Format::NCHW);
  print(batchnorm::bfloat16(1), Shape{2, 3, 8, 8}, Format::NCHW);
  std::exit(0);
}

TEST_F(EnvironmentDeathTest, TwoByteElementsTakeTheLargestOneButInShortPlanes) {
  unsetenv("BATCHNORM_ISA");
  const std::string preferred(to_string(batchnorm::preferred_isa())), largest(to_string(available_isas().back()));
  EXPECT_EXIT(print_those_of_calls(), testing::ExitedWithCode(0),
              "^" + preferred + " " + largest + " " + largest + " " + preferred + " " + largest + " $");
  for (const Isa isa : available_isas()) {
    const std::string name(to_string(isa));
    setenv("BATCHNORM_ISA", name.c_str(), 1);
    EXPECT_EXIT(print_those_of_calls(), testing::ExitedWithCode(0),
                "^" + name + " " + name + " " + name + " " + name + " " + name + " $");
  }
}

TEST_F(EnvironmentDeathTest, EmptyOrAbsentMeansThePreferredOne) {
  const std::string best = "active: " + std::string(to_string(batchnorm::preferred_isa())) + "\n";
  setenv("BATCHNORM_ISA", "", 1);
  EXPECT_EXIT(print_active(), testing::ExitedWithCode(0), best);
  unsetenv("BATCHNORM_ISA");
  EXPECT_EXIT(print_active(), testing::ExitedWithCode(0), best);
}

#if defined(__x86_64__) && defined(__linux__)

/// Executes calls() in another process, instruction by instruction, and counts those that are CPUID. Nothing where a process
/// may not be traced here.
template <class Calls>
std::optional<int> count_cpuid(const Calls& calls) {
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(1);
    calls();  // the first call may ask
    raise(SIGSTOP);
    calls();
    raise(SIGSTOP);
    _exit(0);
  }
  int status = 0, found = 0;
  const auto stopped_by = [&](int signal) {
    return waitpid(child, &status, 0) == child && WIFSTOPPED(status) && WSTOPSIG(status) == signal;
  };
  if (!stopped_by(SIGSTOP)) return std::nullopt;
  do {
    user_regs_struct registers{};
    ptrace(PTRACE_GETREGS, child, nullptr, &registers);
    const long code = ptrace(PTRACE_PEEKTEXT, child, registers.rip, nullptr);
    found += (code & 0xffff) == 0xa20f ? 1 : 0;
    ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr);
  } while (stopped_by(SIGTRAP));
  const bool is_whole = WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP;
  kill(child, SIGKILL);
  waitpid(child, &status, 0);
  EXPECT_TRUE(is_whole) << "the calls did not come to their end";
  return found;
}

/// In a virtual machine CPUID takes several microseconds: calls on eight values took 15 of them instead of one half.
TEST_F(EnvironmentDeathTest, OnlyTheFirstCallAsksTheProcessorWhatItIs) {
  const IsaScope scope;
  unsetenv("BATCHNORM_ISA");
  batchnorm::detail::chosen_isa = -1;
  batchnorm::ThreadTeam team(1);
  const auto call = [&]<class T>(T value) {
    const T x[] = {value, value};
    T y[2];
    const float mean[] = {0, 0}, variance[] = {1, 1};
    batchnorm::batch_norm<T>(batchnorm::Format::NHWC, {}, {.x = {x, {1, 2}}, .mean = {mean, {2}}, .variance = {variance, {2}}},
                             {.output_x = {y, {1, 2}}}, batchnorm::Identity{}, {.executor = &team});
  };
  const auto asked = count_cpuid([&] {
    call(1.0F);
    call(batchnorm::half(1));
  });
  if (!asked) GTEST_SKIP() << "a process may not be traced here";
  EXPECT_EQ(*asked, 0);
}

#endif

TEST_F(EnvironmentDeathTest, UnknownValueIsAnErrorThatListsTheAvailableOnes) {
  setenv("BATCHNORM_ISA", "sse9", 1);
  EXPECT_EXIT(print_active(), testing::ExitedWithCode(0),
              "^batchnorm: BATCHNORM_ISA is 'sse9', available here are " + available_names() + "\n$");
}

// The error comes out of the operator's own call, before anything is written.
TEST_F(EnvironmentDeathTest, UnknownValueIsAnErrorOfTheFirstCall) {
  setenv("BATCHNORM_ISA", "sse9", 1);
  const auto first_call = [] {
    const auto call = ordinary_call<float, float>({4, 5, 9}, Format::NCHW, true);
    std::vector<float> y(call.x.size(), 777), mean = *call.mean, variance = *call.variance;
    const auto text = message_of<ValueError>([&] {
      batchnorm::batch_norm<float>(call.format, call.options, {call.x.data(), call.shape}, {}, {}, mean, variance,
                                   {{y.data(), call.shape}});
    });
    const bool untouched = y == std::vector<float>(y.size(), 777) && mean == *call.mean && variance == *call.variance;
    std::cerr << text << (untouched ? ", untouched\n" : ", changed\n");
    std::exit(0);
  };
  EXPECT_EXIT(first_call(), testing::ExitedWithCode(0), "BATCHNORM_ISA is 'sse9', available here are .*, untouched\n");
}

}  // namespace
