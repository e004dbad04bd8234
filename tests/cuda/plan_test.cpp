// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <batchnorm/cuda/dispatch.hpp>

#include "support/cases.hpp"

// How calls are cut: every element in one slice, nothing larger than a device takes.
namespace {

using namespace batchnorm::cuda;

/// H100, A100, GeForce RTX 4090, T4.
struct Known {
  const char* name;
  Device device;
  int capability;
};
constexpr Known known[] = {
    {"9.0", {132, 227 << 10, 228 << 10, 8, true}, 90},
    {"8.0", {108, 163 << 10, 164 << 10, 1, true}, 80},
    {"8.9", {128, 99 << 10, 100 << 10, 1, true}, 89},
    {"7.5", {40, 64 << 10, 64 << 10, 1, true}, 75},
};

struct CountingRuntime {
  std::vector<Launch> launches;
  int cleared = 0;

  template <class Body>
  void launch(const Body&, const Launch& launch) {
    EXPECT_LE(launch.threads, Body::max_threads);
    EXPECT_LE(sizeof(Body), 4096U) << "arguments of a kernel";
    launches.push_back(launch);
  }
  void clear(void*, std::size_t) { ++cleared; }
};

template <class T>
void expect_fits(const Geometry& g, const Known& on) {
  const Policy policy = policy_of(on.capability);
  CountingRuntime runtime;
  ForwardCall<T> call;
  call.geometry = g;
  forward(runtime, call, nullptr, on.device, policy);
  call.is_training = false;
  forward(runtime, call, nullptr, on.device, policy);
  BackwardCall<T> gradient;
  gradient.geometry = g;
  backward(runtime, gradient, nullptr, on.device, policy);
  for (const Launch& launch : runtime.launches) {
    EXPECT_GE(launch.blocks, 1);
    EXPECT_LE(launch.blocks, INT32_MAX);
    EXPECT_EQ(launch.threads % warp_size, 0);
    EXPECT_LE(launch.shared_bytes, on.device.shared_bytes);
    EXPECT_LE(launch.cluster, on.device.largest_cluster);
    EXPECT_EQ(launch.blocks % launch.cluster, 0);
    EXPECT_TRUE(!launch.cooperative || launch.blocks <= on.device.multiprocessors);
  }
  for (const int shift : {0, 1}) {
    const Alignment alignment{shift, true};
    const SumPlan plan = plan_of_sums<T>(g, alignment, on.device, policy);
    const std::int64_t all = g.channels_last ? g.n : g.n * PlaneSlots::slots_of_plane(g.s, chunk_size<T>, alignment);
    EXPECT_GE(plan.slices * plan.per_slice, all);
    EXPECT_LT((plan.slices - 1) * plan.per_slice, all);
    constexpr int fields = MomentStatistic<T>::fields;
    EXPECT_GE(workspace_bytes<T>(g, on.device, policy), static_cast<std::size_t>(plan.slices * fields * g.c) * 8 +
                                                            static_cast<std::size_t>(g.c) * 5 * sizeof(Compute<T>));
  }
}

TEST(DevicePlan, FitsEveryDevice) {
  support::Random random(1);
  for (const Known& on : known) {
    for (int i = 0; i < 400; ++i) {
      const auto extent = [&](int bits) { return random.integer(1, (std::int64_t{1} << random.integer(0, bits)) + 2); };
      Geometry g{extent(12), extent(12), extent(16), random.integer(0, 1) == 1};
      if (g.channels_last) g = {g.n * g.s, g.c, 1, true};
      SCOPED_TRACE(std::string(on.name) + ": " + std::to_string(g.n) + " x " + std::to_string(g.c) + " x " +
                   std::to_string(g.s) + (g.channels_last ? ", channels last" : ""));
      expect_fits<float>(g, on);
      expect_fits<double>(g, on);
      expect_fits<Half>(g, on);
      if (HasFailure()) return;
    }
    for (const Geometry& g : {Geometry{1, INT32_MAX, 2}, Geometry{4096, 3, 24}, Geometry{1, 1, std::int64_t{1} << 36},
                              Geometry{1 << 20, 1 << 14, 1, true}, Geometry{std::int64_t{1} << 36, 1, 1, true}}) {
      expect_fits<float>(g, on);
    }
  }
}

ResidentPlan planned(const Geometry& g, const Known& on) {
  return plan_resident<float>(g, {}, false, on.device, policy_of(on.capability));
}

// What the traffic model in docs/cuda.md says of the shapes of ResNet-50 with 32 images.
TEST(DevicePlan, ReadsOnceWhereAChannelFitsATeam) {
  const auto& hopper = known[0];
  for (const Geometry& g : {Geometry{32, 64, 112 * 112}, Geometry{32, 256, 56 * 56}, Geometry{32, 128, 28 * 28},
                            Geometry{32, 1024, 14 * 14}, Geometry{32, 2048, 49}}) {
    const ResidentPlan plan = planned(g, hopper);
    EXPECT_EQ(plan.team, ResidentPlan::cluster) << g.c;
    EXPECT_GE(plan.blocks, 132) << g.c;
  }
  EXPECT_EQ(planned({32, 3, 224 * 224}, hopper).team, ResidentPlan::grid) << "three channels leave clusters idle";
  EXPECT_EQ(planned({65536, 16, 1, true}, hopper).team, ResidentPlan::grid) << "one tile of channels";
  EXPECT_EQ(planned({4, 8, 640 * 1024}, hopper).team, ResidentPlan::none) << "10 MB a channel";
  EXPECT_EQ(planned({32 * 56 * 56, 256, 1, true}, hopper).team, ResidentPlan::none) << "100,000 rows";
  EXPECT_EQ(planned({32, 2048, 49}, known[3]).team, ResidentPlan::cluster) << "a block is a cluster of one";
  Device idle = hopper.device;
  idle.cooperates = false;
  EXPECT_EQ(plan_resident<float>({32, 3, 224 * 224}, {}, false, idle, {}).team, ResidentPlan::none);
}

TEST(DevicePlan, ASliceHasAFirstElement) {
  for (const std::int64_t s : {1, 2, 3, 5, 7, 49, 50}) {
    for (const int shift : {0, 1, 3}) {
      const Alignment alignment{shift, true};
      for (const std::int64_t chunks : {2, 3, 16}) {
        Policy policy;
        policy.most_slice_chunks = chunks;
        const Geometry g{7, 3, s};
        const SumPlan plan = plan_of_sums<float>(g, alignment, {}, policy);
        const std::int64_t per_plane = PlaneSlots::slots_of_plane(s, 4, alignment);
        for (std::int64_t channel = 0; channel < g.c; ++channel) {
          for (std::int64_t slice = 0; slice < plan.slices; ++slice) {
            const std::int64_t begin = slice * plan.per_slice, end = begin + plan.per_slice;
            const std::int64_t before = elements_before<float>(g, alignment, per_plane, channel, begin);
            const std::int64_t after = elements_before<float>(g, alignment, per_plane, channel, end);
            ASSERT_LE(before, after);
            if (before == after) continue;
            const std::int64_t first = first_element<float>(g, alignment, per_plane, channel, begin);
            const std::int64_t image = before / s;
            ASSERT_EQ(first, (image * g.c + channel) * s + before % s);
          }
        }
      }
    }
  }
}

}  // namespace
