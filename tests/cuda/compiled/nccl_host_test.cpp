// SPDX-License-Identifier: MIT

// nccl.hpp over the host code of batch_norm.cu, on a fake runtime and a fake NCCL: what is enqueued, in which order, and that
// every failure comes out. Neither fake has a function that waits or allocates: a call that did would not link.

#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/nccl.hpp>

#include "fake_runtime.hpp"

namespace {

using namespace batchnorm;
using support::FakeCall;
using support::FakeDevice;
using support::FakeRuntime;

constexpr int fake_ranks = 5, fake_rank = 2;
const auto communicator = reinterpret_cast<ncclComm_t>(std::uintptr_t{0xc0});
const auto stream = reinterpret_cast<cuda::Stream>(std::uintptr_t{0x5eed});
const Shape shape{8, 64, 28, 28}, no_images{0, 64, 28, 28};
const FakeDevice device;

template <class T>
T* memory(int k) {
  return reinterpret_cast<T*>(std::uintptr_t{0x1000'0000'0000} + (static_cast<std::uintptr_t>(k) << 40));
}

/// A synchronised call of each kind, on the fakes.
struct Calls {
  Options options{.is_training = true};
  Shape shape_of_rank = shape;

  void forward(std::size_t missing_bytes = 0) const {
    const cuda::SyncBatchNorm<float> norm(communicator, options);
    const std::size_t bytes = norm.workspace_bytes(shape_of_rank) - missing_bytes;
    norm({memory<const float>(0), shape_of_rank}, {}, {}, {memory<float>(1), {64}}, {memory<float>(2), {64}},
         {{memory<float>(3), shape_of_rank}}, Identity{}, {memory<void>(9), bytes}, stream);
  }
  void backward() const {
    const cuda::SyncBatchNorm<float> norm(communicator, options);
    norm.backward({memory<const float>(0), shape_of_rank}, {memory<const float>(1), shape_of_rank}, {},
                  {memory<const float>(2), {64}}, {memory<const float>(3), {64}},
                  {{memory<float>(4), shape_of_rank}, {memory<float>(5), {64}}, {memory<float>(6), {64}}}, Identity{},
                  {memory<void>(9), norm.workspace_bytes(shape_of_rank)}, stream);
  }
};

/// "SumPlanes", "cudaMemsetAsync", "ncclAllGather": what a call has enqueued, all of it on its stream.
template <class Function>
std::vector<std::string> enqueued(const Function& function) {
  FakeRuntime& fake = FakeRuntime::instance();
  fake.start(device);
  function();
  for (const std::string& violation : fake.violations()) ADD_FAILURE() << violation;
  std::vector<std::string> names;
  for (const FakeCall& call : fake.enqueued()) {
    EXPECT_EQ(call.stream, stream);
    std::string name = call.function;
    if (const std::size_t at = call.kernel.find("::kernel<batchnorm::cuda::"); at != std::string::npos) {
      name = call.kernel.substr(at + 26);
      name.resize(name.find_first_of("<>( "));
    }
    names.push_back(name);
    if (name != "ncclAllGather") continue;
    EXPECT_EQ(call.memory, memory<void>(9));  // the front of the workspace
  }
  return names;
}
std::size_t gathered_bytes() {
  for (const FakeCall& call : FakeRuntime::instance().enqueued()) {
    if (call.function == "ncclAllGather") return call.bytes;
  }
  return 0;
}

TEST(NcclHost, GathersBetweenTheSumsAndTheRest) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(enqueued([] { Calls().forward(); }), (Names{"SumPlanes", "PackMoments", "ncclAllGather", "MergeMoments", "Sweep"}));
  EXPECT_EQ(gathered_bytes(), (3U * 64 + 1) * 8);
  EXPECT_EQ(enqueued([] { Calls().backward(); }),
            (Names{"SumPlanes", "PackGradients", "ncclAllGather", "MergeGradients", "Sweep"}));
  EXPECT_EQ(gathered_bytes(), (4U * 64 + 1) * 8);
  const Calls empty{.shape_of_rank = no_images};
  EXPECT_EQ(enqueued([&] { empty.forward(); }), (Names{"cudaMemsetAsync", "ncclAllGather", "MergeMoments"}));
  EXPECT_EQ(enqueued([&] { empty.backward(); }), (Names{"cudaMemsetAsync", "ncclAllGather", "MergeGradients"}));
}

TEST(NcclHost, InferenceAsksNobodyForwardAndAllBackward) {
  const Calls inference{.options = {.is_training = false}};
  EXPECT_EQ(enqueued([&] { inference.forward(); }), (std::vector<std::string>{"FinishConstants", "Sweep"}));
  enqueued([&] { inference.backward(); });
  EXPECT_EQ(gathered_bytes(), (4U * 64 + 1) * 8);
}

TEST(NcclHost, ChecksBeforeItEnqueues) {
  EXPECT_TRUE(enqueued([] { EXPECT_THROW(Calls().forward(8), ValueError); }).empty());
  EXPECT_THROW(Calls({.options = {.epsilon = 0}}).forward(), ValueError);
}

/// Lets each of its calls fail in turn; returns how many there are.
template <class Function>
std::size_t fail_at_every_call(const Function& function) {
  FakeRuntime& fake = FakeRuntime::instance();
  for (std::size_t k = 0;; ++k) {
    fake.start(device);
    fake.fail_at(k, {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"});
    std::string call;
    try {
      function();
      EXPECT_EQ(fake.calls().size(), k) << "an error is swallowed";
      return k;
    } catch (const cuda::CudaError& error) {
      call = error.call();
    } catch (const cuda::NcclError& error) {
      call = error.call();
      EXPECT_EQ(error.code(), ncclSystemError);
      EXPECT_EQ(error.what(), "batchnorm::cuda: " + call + " failed with 2: the text of error 2");
    }
    EXPECT_EQ(fake.calls().size(), k + 1) << "it goes on after a failure";
    EXPECT_EQ(call, fake.calls().at(k).function);
    if (testing::Test::HasFailure()) return k;
  }
}

TEST(NcclHost, EveryFailureIsReported) {
  for (const Shape& of_rank : {shape, no_images}) {
    const Calls calls{.shape_of_rank = of_rank};
    EXPECT_GT(fail_at_every_call([&] { calls.forward(); }), 5U);
    EXPECT_GT(fail_at_every_call([&] { calls.backward(); }), 5U);
  }
}

}  // namespace

extern "C" {

ncclResult_t ncclCommCount(ncclComm_t, int* count) {
  *count = fake_ranks;
  return FakeRuntime::instance().call({"ncclCommCount"}) ? ncclSuccess : ncclSystemError;
}
ncclResult_t ncclCommUserRank(ncclComm_t, int* rank) {
  *rank = fake_rank;
  return FakeRuntime::instance().call({"ncclCommUserRank"}) ? ncclSuccess : ncclSystemError;
}
ncclResult_t ncclAllGather(const void* own, void* all, std::size_t count, ncclDataType_t type, ncclComm_t of, cudaStream_t on) {
  FakeCall call{"ncclAllGather", "", on};
  call.memory = all;
  call.bytes = count * sizeof(double);
  EXPECT_EQ(type, ncclDouble);
  EXPECT_EQ(of, communicator);
  EXPECT_EQ(own, static_cast<const double*>(all) + fake_rank * count) << "not in place";
  return FakeRuntime::instance().call(call) ? ncclSuccess : ncclSystemError;
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSystemError ? "the text of error 2" : "another text";
}
}
