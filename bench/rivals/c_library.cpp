// SPDX-License-Identifier: MIT

// The library in terms of C, for bench/rivals.py: float, N and C before the spatial extents whatever the format. Functions
// return 0, or 1 and leave what went wrong to batchnorm_bench_error.

#include <algorithm>
#include <exception>
#include <span>
#include <string>
#include <vector>

#include <batchnorm/batchnorm.hpp>
#include <batchnorm/version.hpp>

#include "../suite/copy.hpp"

namespace {

using batchnorm::Format;
using batchnorm::Shape;
using batchnorm::TensorView;

thread_local std::string error_text;

template <class F>
int guarded(F&& f) {
  try {
    f();
    return 0;
  } catch (const std::exception& error) {
    error_text = error.what();
    return 1;
  }
}

/// The extents in the order of the format.
Shape shape_of(const std::int64_t* extents, int rank, Format format) {
  std::vector<std::int64_t> ordered(extents, extents + rank);
  if (format == Format::NHWC) std::rotate(ordered.begin() + 1, ordered.begin() + 2, ordered.end());
  return Shape(std::span<const std::int64_t>(ordered));
}

}  // namespace

extern "C" {

struct BatchnormBenchCall {
  void* team;
  const std::int64_t* extents;
  int rank;
  int is_channels_last;
  int is_training;
  double epsilon, momentum;
  const float *x, *dy, *scale, *bias;
  float *mean, *variance;  // forward: running; backward: the saved ones
  float* y;                // backward: dx
  float *batch_mean, *batch_variance, *dscale, *dbias;
};

const char* batchnorm_bench_error() { return error_text.c_str(); }

const char* batchnorm_bench_version() {
  static const std::string version = std::to_string(BATCHNORM_VERSION_MAJOR) + "." + std::to_string(BATCHNORM_VERSION_MINOR) +
                                     "." + std::to_string(BATCHNORM_VERSION_PATCH);
  return version.c_str();
}

const char* batchnorm_bench_isa() { return batchnorm::to_string(batchnorm::available_isas().back()).data(); }

void* batchnorm_bench_open(int threads) {
  void* team = nullptr;
  guarded([&] { team = new batchnorm::ThreadTeam(threads); });
  return team;
}

void batchnorm_bench_close(void* team) { delete static_cast<batchnorm::ThreadTeam*>(team); }

int batchnorm_bench_copy(void* team, void* to, const void* from, std::int64_t bytes) {
  return guarded([&] { bench::copy(*static_cast<batchnorm::ThreadTeam*>(team), to, from, bytes); });
}

int batchnorm_bench_forward(const BatchnormBenchCall* call) {
  return guarded([call] {
    const Format format = call->is_channels_last != 0 ? Format::NHWC : Format::NCHW;
    const Shape shape = shape_of(call->extents, call->rank, format), channels{call->extents[1]};
    batchnorm::batch_norm<float>(format,
                                 {.is_training = call->is_training != 0, .epsilon = call->epsilon, .momentum = call->momentum},
                                 TensorView<const float>(call->x, shape), TensorView<const float>(call->scale, channels),
                                 TensorView<const float>(call->bias, channels), TensorView<float>(call->mean, channels),
                                 TensorView<float>(call->variance, channels),
                                 {.output_x = {call->y, shape},
                                  .batch_mean = {call->batch_mean, channels},
                                  .batch_variance = {call->batch_variance, channels}},
                                 batchnorm::Identity{}, {.executor = static_cast<batchnorm::ThreadTeam*>(call->team)});
  });
}

int batchnorm_bench_backward(const BatchnormBenchCall* call) {
  return guarded([call] {
    const Format format = call->is_channels_last != 0 ? Format::NHWC : Format::NCHW;
    const Shape shape = shape_of(call->extents, call->rank, format), channels{call->extents[1]};
    batchnorm::batch_norm_backward<float>(
        format, {.is_training = true, .epsilon = call->epsilon}, TensorView<const float>(call->dy, shape),
        TensorView<const float>(call->x, shape), TensorView<const float>(call->scale, channels),
        TensorView<const float>(call->mean, channels), TensorView<const float>(call->variance, channels),
        {.dx = {call->y, shape}, .dscale = {call->dscale, channels}, .dbias = {call->dbias, channels}}, batchnorm::Identity{},
        {.executor = static_cast<batchnorm::ThreadTeam*>(call->team)});
  });
}

}  // extern "C"
