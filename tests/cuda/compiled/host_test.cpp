// SPDX-License-Identifier: MIT

// The host code of batch_norm.cu as nvcc compiles it, on a fake runtime: what it launches is what dispatch.hpp plans, a device
// would take it, and every failure comes out as CudaError. Nothing is executed: pointers are mere numbers.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include <cxxabi.h>
#include <gtest/gtest.h>

#include <batchnorm/cuda.hpp>
#include <batchnorm/cuda/dispatch.hpp>

#include "fake_runtime.hpp"

namespace {

using namespace batchnorm::cuda;
using support::FakeCall;
using support::FakeDevice;
using support::FakeError;
using support::FakeRuntime;

// Shared memory in KB: of a block, of a multiprocessor.
const FakeDevice devices[] = {
    {"T4", 75, 40, 64 << 10, 64 << 10, false, true},
    {"A100", 80, 108, 163 << 10, 164 << 10, false, true},
    {"RTX 3090", 86, 82, 99 << 10, 100 << 10, false, true},
    {"L40S", 89, 142, 99 << 10, 100 << 10, false, true},
    {"H100", 90, 132, 227 << 10, 228 << 10, true, true},
    {"a seventh of an H100", 90, 16, 227 << 10, 228 << 10, true, true},
    {"H100 that takes no cooperative launches", 90, 132, 227 << 10, 228 << 10, true, false},
    {"B200", 100, 148, 227 << 10, 228 << 10, true, true},
    {"RTX 5090", 120, 170, 99 << 10, 100 << 10, true, true},
};
const FakeDevice& h100 = devices[4];

/// The same device as batch_norm.cu must see it.
Device device_of(const FakeDevice& fake) {
  Device device;
  device.multiprocessors = fake.multiprocessors;
  device.shared_bytes = fake.shared_bytes;
  device.shared_bytes_of_multiprocessor = fake.shared_bytes_of_multiprocessor;
  device.largest_cluster = fake.has_clusters ? 8 : 1;
  device.cooperates = fake.cooperates;
  return device;
}

const auto stream = reinterpret_cast<Stream>(std::uintptr_t{0x5eed});
constexpr std::uintptr_t workspace_address = 0x7000'0000'0000;
void* const workspace = reinterpret_cast<void*>(workspace_address);

/// Device memory number k, `offset` elements past a 16-byte border.
template <class T>
T* memory(int k, std::size_t offset = 0) {
  return reinterpret_cast<T*>((std::uintptr_t{0x1000'0000'0000} + (static_cast<std::uintptr_t>(k) << 40)) + offset * sizeof(T));
}

template <class Body>
std::string name_of() {
  int status = 0;
  char* text = abi::__cxa_demangle(typeid(Body).name(), nullptr, nullptr, &status);
  const std::string name = status == 0 ? text : "";
  std::free(text);
  return name;
}

// What of two bodies is compared: the parts that lead to memory.
bool same(const Geometry& a, const Geometry& b) {
  return a.n == b.n && a.c == b.c && a.s == b.s && a.channels_last == b.channels_last;
}
bool same(const Partials& a, const Partials& b) { return a.data == b.data && a.slices == b.slices && a.channels == b.channels; }
template <class Body>
bool same_body(const Body& a, const Body& b) {
  bool result = true;
  if constexpr (requires { a.geometry; }) result = result && same(a.geometry, b.geometry);
  if constexpr (requires { a.partials; }) result = result && same(a.partials, b.partials);
  if constexpr (requires { a.team.partials; }) result = result && same(a.team.partials, b.team.partials);
  if constexpr (requires { a.coefficients; }) result = result && a.coefficients.data == b.coefficients.data;
  if constexpr (requires { a.statistic; }) result = result && a.statistic.x == b.statistic.x;
  if constexpr (requires { a.operation.y; }) result = result && a.operation.y == b.operation.y;
  if constexpr (requires { a.operation.dx; }) result = result && a.operation.dx == b.operation.dx;
  return result;
}

/// Where the workspace that a body uses ends.
template <class T, class Body>
std::uintptr_t end_of_workspace(const Body& body) {
  std::uintptr_t end = 0;
  const auto reach = [&](const auto* data, std::int64_t count) {
    const auto begin = reinterpret_cast<std::uintptr_t>(data);
    if (count > 0 && data != nullptr) end = std::max(end, begin + static_cast<std::uintptr_t>(count) * sizeof(*data));
  };
  // Sums have at most as many fields as moments, operations at most as many coefficients as the gradient.
  constexpr int fields = MomentStatistic<T>::fields, coefficients = InputGradient<T>::coefficients;
  if constexpr (requires { body.partials; }) reach(body.partials.data, fields * body.partials.slices * body.partials.channels);
  if constexpr (requires { body.team.partials; }) {
    reach(body.team.partials.data, fields * body.team.partials.slices * body.team.partials.channels);
  }
  if constexpr (requires { body.coefficients; }) reach(body.coefficients.data, coefficients * body.coefficients.channels);
  return end;
}

/// A launch or a memset as dispatch.hpp asks for it.
struct Planned {
  std::string kernel{};  ///< none: a memset
  Launch launch{};
  int max_threads = 0;
  std::function<bool(const void*)> has_body{};
  std::uintptr_t end_of_workspace = 0;
  void* memory = nullptr;
  std::size_t bytes = 0;
};

/// A runtime for dispatch.hpp that only writes down.
template <class T>
struct Plan {
  std::vector<Planned> steps;

  template <class Body>
  void launch(const Body& body, const Launch& launch) {
    steps.push_back({.kernel = "::kernel<" + name_of<Body>() + " >(",
                     .launch = launch,
                     .max_threads = Body::max_threads,
                     .has_body = [body](const void* p) { return same_body(body, *static_cast<const Body*>(p)); },
                     .end_of_workspace = end_of_workspace<T>(body)});
  }
  void clear(void* p, std::size_t bytes) { steps.push_back({.memory = p, .bytes = bytes}); }
};

template <class T>
void plan(Plan<T>& steps, const ForwardCall<T>& call, const FakeDevice& device) {
  batchnorm::cuda::forward(steps, call, workspace, device_of(device), policy_of(device.capability));
}
template <class T>
void plan(Plan<T>& steps, const BackwardCall<T>& call, const FakeDevice& device) {
  batchnorm::cuda::backward(steps, call, workspace, device_of(device), policy_of(device.capability));
}
template <class T>
void run(const ForwardCall<T>& call) {
  library::forward(call, workspace, stream);
}
template <class T>
void run(const BackwardCall<T>& call) {
  library::backward(call, workspace, stream);
}

/// Runs a call on the fake and compares with the plan.
template <class Call>
void expect_planned(const Call& call, const FakeDevice& device) {
  using T = std::remove_cvref_t<decltype(*call.x)>;
  FakeRuntime& fake = FakeRuntime::instance();
  fake.start(device);
  const std::size_t bytes = library::workspace_bytes<T>(call.geometry);
  Plan<T> planned;
  plan(planned, call, device);

  fake.start(device);
  std::size_t step = 0;
  fake.on_launch([&](const FakeCall&, const void* body) {
    while (step < planned.steps.size() && planned.steps[step].kernel.empty()) ++step;
    ASSERT_LT(step, planned.steps.size());
    EXPECT_TRUE(planned.steps[step].has_body(body)) << planned.steps[step].kernel;
    ++step;
  });
  try {
    run(call);
  } catch (const CudaError& error) {
    ADD_FAILURE() << error.what();
  }
  for (const std::string& violation : fake.violations()) ADD_FAILURE() << violation;

  const std::vector<FakeCall> done = fake.enqueued();
  ASSERT_EQ(done.size(), planned.steps.size());
  for (std::size_t k = 0; k < done.size(); ++k) {
    const Planned& expected = planned.steps[k];
    EXPECT_EQ(done[k].stream, stream);
    if (expected.kernel.empty()) {
      EXPECT_EQ(done[k].memory, expected.memory);
      EXPECT_EQ(done[k].bytes, expected.bytes);
      continue;
    }
    EXPECT_NE(done[k].kernel.find(expected.kernel), std::string::npos) << done[k].kernel << ", expected " << expected.kernel;
    EXPECT_EQ(done[k].blocks, expected.launch.blocks);
    EXPECT_EQ(done[k].threads, expected.launch.threads);
    EXPECT_LE(done[k].threads, expected.max_threads);
    EXPECT_EQ(done[k].shared_bytes, expected.launch.shared_bytes);
    EXPECT_EQ(done[k].cluster, expected.launch.cluster);
    EXPECT_EQ(done[k].is_cooperative, expected.launch.cooperative);
    EXPECT_LE(expected.end_of_workspace, workspace_address + bytes);
  }
}

template <class T>
ForwardCall<T> forward_call(const Geometry& g, bool is_training, std::size_t x_offset = 0, std::size_t y_offset = 0) {
  ForwardCall<T> call;
  call.geometry = g;
  call.x = memory<T>(0, x_offset);
  call.y = memory<T>(1, y_offset);
  call.is_training = is_training;
  call.mean = memory<Parameter<T>>(2);
  call.variance = memory<Parameter<T>>(3);
  for (int k = 0; k < 2; ++k) {
    call.channels.mean[k] = memory<Parameter<T>>(4 + k);
    call.channels.variance[k] = memory<Parameter<T>>(6 + k);
  }
  call.channels.running_mean = memory<Parameter<T>>(8);
  call.channels.running_variance = memory<Parameter<T>>(9);
  return call;
}

template <class T>
BackwardCall<T> backward_call(const Geometry& g, bool is_training, std::size_t x_offset = 0, std::size_t dx_offset = 0) {
  BackwardCall<T> call;
  call.geometry = g;
  call.dy = memory<T>(0, x_offset);
  call.x = memory<T>(1, x_offset);
  call.dx = memory<T>(2, dx_offset);
  call.channels.mean = memory<Parameter<T>>(3);
  call.channels.variance = memory<Parameter<T>>(4);
  call.channels.dscale = memory<Parameter<T>>(5);
  call.channels.dbias = memory<Parameter<T>>(6);
  call.channels.values = g.values();
  call.channels.is_training = is_training;
  return call;
}

std::vector<Geometry> geometries() {
  constexpr std::int64_t sizes[][3] = {
      {1, 1, 1},       {2, 3, 5},          {1, 1, 7},       {8, 64, 28 * 28}, {32, 256, 14 * 14}, {128, 512, 7 * 7},
      {256, 1000, 1},  {4, 16, 512 * 512}, {1, 3, 1 << 24}, {1 << 20, 64, 1}, {7, 33, 31 * 17},   {1024, 2048, 7 * 7},
      {1, 1 << 20, 1}, {65536, 8, 64},     {2, 1, 40000},   {3, 8, 100003},   {1 << 14, 1, 1},    {16, 24, 60 * 60},
  };
  std::vector<Geometry> result;
  for (const auto& [n, c, s] : sizes) {
    result.push_back({n, c, s, false});
    result.push_back({n * s, c, 1, true});
  }
  return result;
}

std::string to_string(const Geometry& g) {
  return std::to_string(g.n) + " x " + std::to_string(g.c) + " x " + std::to_string(g.s) +
         (g.channels_last ? " last" : " first");
}

template <class T>
class CudaHost : public testing::Test {};
using ElementTypes = testing::Types<float, double, Half, BFloat16>;
TYPED_TEST_SUITE(CudaHost, ElementTypes);

TYPED_TEST(CudaHost, LaunchesWhatIsPlanned) {
  using T = TypeParam;
  for (const FakeDevice& device : devices) {
    for (const Geometry& g : geometries()) {
      for (const auto& [x_offset, y_offset] : {std::pair{0, 0}, {1, 1}, {0, 1}}) {
        SCOPED_TRACE(device.name + ", " + to_string(g) + ", offsets " + std::to_string(x_offset) + " " +
                     std::to_string(y_offset));
        const auto from = static_cast<std::size_t>(x_offset), to = static_cast<std::size_t>(y_offset);
        ForwardCall<T> forward = forward_call<T>(g, true, from, to);
        expect_planned(forward, device);
        forward.residual = memory<T>(10, from);
        forward.mask = memory<std::uint8_t>(11);
        expect_planned(forward, device);
        expect_planned(forward_call<T>(g, false, from, to), device);

        BackwardCall<T> backward = backward_call<T>(g, true, from, to);
        expect_planned(backward, device);
        backward.dz = memory<T>(12, to);
        backward.passage.kind = PassageOf<T>::mask;
        backward.passage.bits = memory<std::uint8_t>(11);
        expect_planned(backward, device);
        backward.dx = nullptr;
        expect_planned(backward, device);
        backward.channels.dscale = backward.channels.dbias = nullptr;
        expect_planned(backward, device);
        expect_planned(backward_call<T>(g, false, from, to), device);
        if (this->HasFailure()) return;
      }
    }
  }
}

// More channels, or tiles of them, than a grid has blocks: such a call may be refused, but no grid is cut short.
TYPED_TEST(CudaHost, CutsNoGridShort) {
  using T = TypeParam;
  FakeRuntime& fake = FakeRuntime::instance();
  const auto expect_whole = [&](const auto& call) {
    Plan<T> planned;
    plan(planned, call, h100);
    fake.start(h100);
    try {
      run(call);
    } catch (const CudaError&) {
    }
    const std::vector<FakeCall> done = fake.enqueued();
    ASSERT_LE(done.size(), planned.steps.size());
    for (std::size_t k = 0; k < done.size(); ++k) EXPECT_EQ(done[k].blocks, planned.steps[k].launch.blocks);
  };
  for (const std::int64_t c : {(std::int64_t{1} << 31) + 8, (std::int64_t{1} << 32) + 8, std::int64_t{1} << 37}) {
    for (const Geometry& g : {Geometry{1, c, 1, false}, Geometry{1, c, 1, true}}) {
      SCOPED_TRACE(to_string(g));
      expect_whole(forward_call<T>(g, true));
      expect_whole(forward_call<T>(g, false));
      expect_whole(backward_call<T>(g, true));
    }
  }
}

// A larger device has as many slices or more; that what is given suffices, LaunchesWhatIsPlanned tells.
TYPED_TEST(CudaHost, WorkspaceGrowsWithTheDevice) {
  FakeRuntime& fake = FakeRuntime::instance();
  for (const Geometry& g : geometries()) {
    SCOPED_TRACE(to_string(g));
    std::size_t before = 1;
    for (const int multiprocessors : {1, 2, 16, 20, 132, 148, 1000}) {
      FakeDevice device = h100;
      device.multiprocessors = multiprocessors;
      fake.start(device);
      const std::size_t bytes = library::workspace_bytes<TypeParam>(g);
      EXPECT_GE(bytes, before) << multiprocessors << " multiprocessors";
      EXPECT_EQ(bytes % sizeof(double), 0U);
      before = bytes;
    }
  }
}

// Code for 8.0, or what a device makes of its PTX, takes its block for the whole cluster.
TYPED_TEST(CudaHost, OldCodeGetsNoClusters) {
  FakeDevice device = h100;
  device.code = 80;
  FakeRuntime& fake = FakeRuntime::instance();
  for (const Geometry& g : geometries()) {
    SCOPED_TRACE(to_string(g));
    fake.start(device);
    run(forward_call<TypeParam>(g, true));
    for (const FakeCall& call : fake.calls()) EXPECT_LE(call.cluster, 1);
  }
}

TYPED_TEST(CudaHost, EmptyBatchClears) {
  using T = TypeParam;
  FakeRuntime& fake = FakeRuntime::instance();
  const auto clears = [&](const auto& call, std::size_t count) {
    expect_planned(call, h100);
    const std::vector<FakeCall> done = fake.enqueued();
    EXPECT_EQ(done.size(), count);
    for (const FakeCall& one : done) {
      EXPECT_EQ(one.function, "cudaMemsetAsync");
      EXPECT_EQ(one.bytes, 5 * sizeof(Parameter<T>));
    }
  };
  const Geometry empty{0, 5, 1, false}, no_channels{4, 0, 6, false};
  ForwardCall<T> forward = forward_call<T>(empty, true);
  clears(forward, 4);
  forward.channels.mean[1] = forward.channels.variance[1] = nullptr;
  clears(forward, 2);
  BackwardCall<T> backward = backward_call<T>(empty, true);
  clears(backward, 2);
  backward.channels.dbias = nullptr;
  clears(backward, 1);
  clears(forward_call<T>(no_channels, true), 0);
  clears(forward_call<T>(no_channels, false), 0);
  clears(backward_call<T>(no_channels, true), 0);

  // In inference, the statistics are copied.
  expect_planned(forward_call<T>(empty, false), h100);
  EXPECT_EQ(fake.enqueued().size(), 1U);

  fake.start(h100);
  EXPECT_EQ(library::workspace_bytes<T>(empty), 0U);
  EXPECT_EQ(library::workspace_bytes<T>(no_channels), 0U);
}

/// Lets each of its calls fail in turn; returns how many there are.
template <class Function>
std::size_t fail_at_every_call(const FakeDevice& device, const Function& function) {
  static constexpr FakeError errors[] = {
      {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
      {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
      {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice", "no kernel image is available"},
  };
  FakeRuntime& fake = FakeRuntime::instance();
  for (std::size_t k = 0;; ++k) {
    const FakeError& error = errors[k % std::size(errors)];
    fake.start(device);
    fake.fail_at(k, error);
    try {
      function();
      EXPECT_EQ(fake.calls().size(), k) << "an error is swallowed";
      return k;
    } catch (const CudaError& thrown) {
      SCOPED_TRACE(thrown.what());
      EXPECT_EQ(fake.calls().size(), k + 1) << "it goes on after a failure";
      EXPECT_EQ(thrown.call(), fake.calls().at(k).function);
      EXPECT_EQ(thrown.code(), static_cast<int>(error.code));
      EXPECT_EQ(thrown.name(), error.name);
      EXPECT_NE(std::string(thrown.what()).find(error.text), std::string::npos);
    }
    EXPECT_TRUE(fake.violations().empty());
    if (testing::Test::HasFailure()) return k;
  }
}

TYPED_TEST(CudaHost, EveryFailureIsReported) {
  using T = TypeParam;
  const auto enqueued = [](const std::string& name) {
    int count = 0;
    for (const FakeCall& call : FakeRuntime::instance().calls()) count += call.function == name ? 1 : 0;
    return count;
  };
  for (const FakeDevice& device : devices) {
    SCOPED_TRACE(device.name);
    for (const Geometry& g : geometries()) {
      SCOPED_TRACE(to_string(g));
      for (const bool is_training : {true, false}) {
        fail_at_every_call(device, [&] { run(forward_call<T>(g, is_training)); });
        EXPECT_GE(enqueued("cudaLaunchKernelExC"), 1);
        fail_at_every_call(device, [&] { run(backward_call<T>(g, is_training)); });
        EXPECT_GE(enqueued("cudaLaunchKernelExC"), 2);
      }
      if (this->HasFailure()) return;
    }
    const Geometry empty{0, 5, 1, false};
    fail_at_every_call(device, [&] { run(forward_call<T>(empty, true)); });
    EXPECT_EQ(enqueued("cudaMemsetAsync"), 4);
    fail_at_every_call(device, [&] { run(backward_call<T>(empty, true)); });
    EXPECT_EQ(enqueued("cudaMemsetAsync"), 2);
    fail_at_every_call(device, [&] { (void)library::workspace_bytes<T>({8, 64, 100, false}); });
  }
}

/// Calls body(device, call) with each call of the runtime that training makes, on every device and of every geometry.
template <class Body>
void for_each_call_of_training(const Body& body) {
  FakeRuntime& fake = FakeRuntime::instance();
  for (const FakeDevice& device : devices) {
    for (const Geometry& g : geometries()) {
      fake.start(device);
      run(forward_call<float>(g, true));
      for (const FakeCall& call : fake.calls()) body(device, call);
    }
  }
}

// The tests above meet every way of training, and shared memory that must be asked for.
TEST(CudaHostCoverage, AllKindsOfLaunches) {
  bool sums = false, clusters = false, grids = false, asks = false;
  for_each_call_of_training([&](const FakeDevice&, const FakeCall& call) {
    sums = sums || call.kernel.find("::Sum") != std::string::npos;
    clusters = clusters || call.cluster > 1;
    grids = grids || call.is_cooperative;
    asks = asks || call.function == "cudaFuncSetAttribute";
  });
  EXPECT_TRUE(sums);
  EXPECT_TRUE(clusters);
  EXPECT_TRUE(grids);
  EXPECT_TRUE(asks);
}

// Two threads that launch one kernel with different sizes must not lower each other's limit.
TEST(CudaHostCoverage, EveryLaunchAsksForTheSameSharedMemory) {
  for_each_call_of_training([](const FakeDevice& device, const FakeCall& call) {
    if (call.function != "cudaFuncSetAttribute") return;
    EXPECT_EQ(call.shared_bytes, device.shared_bytes) << call.kernel;
  });
}

// Each kernel exists, once for each type: the fatbinary registers as many as there are.
TEST(CudaHostCoverage, KernelsAreRegistered) { EXPECT_GE(FakeRuntime::instance().kernels(), 4U * 13U); }

// Through cuda.hpp: wrong arguments enqueue nothing, and a failure comes out.
TEST(CudaHostInterface, ChecksBeforeItEnqueues) {
  const batchnorm::Shape shape{8, 64, 28, 28};
  const BatchNorm<float> norm(true);
  FakeRuntime& fake = FakeRuntime::instance();
  fake.start(h100);
  const std::size_t bytes = norm.workspace_bytes(shape);
  ASSERT_GT(bytes, 0U);
  const auto call = [&](const batchnorm::cuda::Workspace& w) {
    batchnorm::OutputViews<float, float> out{{memory<float>(1), shape}, {}, {}, {}, {}};
    norm({memory<const float>(0), shape}, {}, {}, {}, {}, out, batchnorm::Identity{}, w, stream);
  };
  EXPECT_THROW(call({workspace, bytes - 1}), batchnorm::ValueError);
  EXPECT_THROW(call({nullptr, bytes}), batchnorm::ValueError);
  EXPECT_THROW(call({reinterpret_cast<void*>(workspace_address + 8), bytes}), batchnorm::ValueError);
  EXPECT_TRUE(fake.enqueued().empty());
  call({workspace, bytes});
  EXPECT_FALSE(fake.enqueued().empty());
  for (const FakeCall& one : fake.enqueued()) EXPECT_EQ(one.stream, stream);
  EXPECT_GT(fail_at_every_call(h100, [&] { call({workspace, bytes}); }), 0U);
}

}  // namespace
