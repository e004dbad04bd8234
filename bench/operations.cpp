// SPDX-License-Identifier: MIT

// The operator against a copy of x. Each row interleaves an operation with the copy, on the same buffers and the same threads,
// and reports the ratio of the medians: 1 means as fast as memory can be copied. `ratio_per_byte` relates it to the tensors
// that the operation moves at least: a copy moves two.
//
//   operations [--benchmark_filter=REGEX]   rows are named operation/format/type/shape/isa/threads

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <batchnorm/batchnorm.hpp>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace {

using batchnorm::Format;
using batchnorm::Tensor;

constexpr int repetitions = 15;
constexpr double least_seconds = 0.3;  // of each candidate, for small tensors

/// Copies with stores past the caches: the fastest way to move the bytes of a large tensor.
void copy_past_caches(char* to, const char* from, std::int64_t bytes) {
#if defined(__x86_64__)
  std::int64_t i = 0;
  for (; i + 64 <= bytes; i += 64) {
    for (int k = 0; k < 64; k += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + i + k), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i + k)));
    }
  }
  std::memcpy(to + i, from + i, static_cast<std::size_t>(bytes - i));
  _mm_sfence();
#else
  std::memcpy(to, from, static_cast<std::size_t>(bytes));
#endif
}

void copy(batchnorm::Executor& executor, char* to, const char* from, std::int64_t bytes) {
  const std::int64_t tasks = executor.concurrency();
  const std::int64_t share = (bytes / tasks + 63) / 64 * 64;
  executor.run(static_cast<int>(tasks), [&](int task) {
    const std::int64_t first = std::min(bytes, task * share), last = std::min(bytes, first + share);
    copy_past_caches(to + first, from + first, last - first);
  });
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

template <class F>
double seconds(F&& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// Median seconds of two candidates that take turns.
template <class F, class G>
std::array<double, 2> interleaved(F&& first, G&& second) {
  first();
  second();
  std::vector<double> times[2];
  double total = 0;
  while (times[0].size() < repetitions || (total < least_seconds && times[0].size() < 2000)) {
    times[0].push_back(seconds(first));
    times[1].push_back(seconds(second));
    total += times[0].back() + times[1].back();
  }
  return {median(times[0]), median(times[1])};
}

enum class Operation { training, inference, backward, training_relu, training_add_relu, backward_relu, backward_add_relu };

constexpr Operation operations[] = {Operation::training,         Operation::inference,         Operation::backward,
                                    Operation::training_relu,    Operation::training_add_relu, Operation::backward_relu,
                                    Operation::backward_add_relu};

/// The name of an operation, and how many tensors of the size of x it reads and writes at least (a mask is 1 / 32 of float).
struct Description {
  const char* name;
  double tensors;
};

Description description(Operation operation, std::size_t element_size) {
  const double mask = 0.125 / static_cast<double>(element_size);
  switch (operation) {
    case Operation::training: return {"training", 2};
    case Operation::inference: return {"inference", 2};
    case Operation::backward: return {"backward", 3};
    case Operation::training_relu: return {"training_relu", 2 + mask};
    case Operation::training_add_relu: return {"training_add_relu", 3 + mask};
    case Operation::backward_relu: return {"backward_relu", 3 + mask};
    case Operation::backward_add_relu: return {"backward_add_relu", 4 + mask};
  }
  return {"", 1};
}

struct Row {
  Operation operation;
  Format format;
  std::array<std::int64_t, 4> nchw;
  batchnorm::Isa isa;
  int threads;
};

/// Buffers of one row, and its operation on them.
template <class T>
class Workload {
 public:
  using P = batchnorm::parameter_t<T>;

  Workload(const Row& row, batchnorm::Executor& executor)
      : row_(row),
        call_{.executor = &executor},
        x(shape_of(row)),
        dy(x.shape()),
        residual(x.shape()),
        y(x.shape()),
        dresidual(x.shape()),
        scale_(static_cast<std::size_t>(row.nchw[1]), P(1.5)),
        bias_(scale_.size(), P(0.25)),
        mean_(scale_.size(), P(0)),
        variance_(scale_.size(), P(1)),
        dscale_(scale_.size(), P(0)),
        dbias_(scale_.size(), P(0)),
        mask_(static_cast<std::size_t>(batchnorm::mask_bytes(x.shape()))) {
    for (std::int64_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<T>(static_cast<float>(i % 1021) / 512.0F - 1.0F);
      dy[i] = static_cast<T>(static_cast<float>(i % 509) / 256.0F - 1.0F);
      residual[i] = static_cast<T>(static_cast<float>(i % 251) / 128.0F - 1.0F);
    }
    if constexpr (has_fused_forms) forward({.is_training = true}, batchnorm::Relu{}, true);  // for the mask
  }

  void run() {
    using batchnorm::Identity;
    switch (row_.operation) {
      case Operation::training: return forward({.is_training = true}, Identity{}, false);
      case Operation::inference: return forward({.is_training = false}, Identity{}, false);
      case Operation::backward: return backward(Identity{}, false);
      default: break;
    }
    if constexpr (has_fused_forms) run_fused();
  }

  std::int64_t bytes() const { return x.size() * static_cast<std::int64_t>(sizeof(T)); }

  /// Each type is a minute to compile.
  static constexpr bool has_fused_forms = std::is_same_v<T, float>;

 private:
  void run_fused() {
    using batchnorm::AddResidual;
    using batchnorm::Relu;
    const batchnorm::ThroughMask<Relu> through{mask_};
    switch (row_.operation) {
      case Operation::training_relu: return forward({.is_training = true}, Relu{}, true);
      case Operation::training_add_relu: return forward({.is_training = true}, AddResidual<T, Relu>{residual}, true);
      case Operation::backward_relu: return backward(through, false);
      case Operation::backward_add_relu: return backward(through, true);
      default: break;
    }
  }

  static batchnorm::Shape shape_of(const Row& row) {
    const auto [n, c, h, w] = row.nchw;
    return row.format == Format::NCHW ? batchnorm::Shape{n, c, h, w} : batchnorm::Shape{n, h, w, c};
  }

  template <class E>
  void forward(const batchnorm::Options& options, const E& epilogue, bool has_mask) {
    batchnorm::OutputViews<T, P> out{.output_x = y};
    if (has_mask) out.mask = mask_;
    batchnorm::batch_norm<T, P>(row_.format, options, x, scale_, bias_, mean_, variance_, out, epilogue, call_);
  }

  template <class G>
  void backward(const G& through, bool has_residual) {
    batchnorm::GradientViews<T, P> out{.dx = y, .dscale = dscale_, .dbias = dbias_};
    if (has_residual) out.dresidual = dresidual;
    batchnorm::batch_norm_backward<T, P>(row_.format, {.is_training = true}, dy, x, scale_, mean_, variance_, out, through,
                                         call_);
  }

  Row row_;
  batchnorm::CallOptions call_;

 public:
  Tensor<T> x, dy, residual, y, dresidual;

 private:
  std::vector<P> scale_, bias_, mean_, variance_, dscale_, dbias_;
  std::vector<std::uint8_t> mask_;
};

template <class T>
void measure(benchmark::State& state, const Row& row) {
  batchnorm::ThreadTeam team(row.threads);
  batchnorm::force_isa(row.isa);
  Workload<T> workload(row, team);
  for (auto _ : state) {
    const auto [operation, copying] = interleaved([&] { workload.run(); },
                                                  [&] {
                                                    copy(team, reinterpret_cast<char*>(workload.y.data()),
                                                         reinterpret_cast<const char*>(workload.x.data()), workload.bytes());
                                                  });
    const double tensors = description(row.operation, sizeof(T)).tensors;
    state.SetIterationTime(operation);
    state.counters["ratio_to_copy"] = operation / copying;
    state.counters["ratio_per_byte"] = operation / copying * 2 / tensors;
    state.counters["copy_us"] = copying * 1e6;
    state.counters["GB_per_s"] = 1e-9 * tensors * static_cast<double>(workload.bytes()) / operation;
  }
}

template <class T>
void add(const Row& row, bool only_best) {
  if (only_best && row.isa != batchnorm::available_isas().back()) return;
  const bool is_plain =
      row.operation == Operation::training || row.operation == Operation::inference || row.operation == Operation::backward;
  if (!is_plain && !Workload<T>::has_fused_forms) return;
  std::string name = description(row.operation, sizeof(T)).name;
  name.append("/").append(to_string(row.format)).append("/").append(batchnorm::element_name<T>()).append("/");
  for (std::size_t i = 0; i < 4; ++i) name.append(i == 0 ? "" : "x").append(std::to_string(row.nchw[i]));
  name.append("/").append(to_string(row.isa)).append("/threads:").append(std::to_string(row.threads));
  benchmark::RegisterBenchmark(name.c_str(), [row](benchmark::State& state) { measure<T>(state, row); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

void add_all() {
  const std::array<std::array<std::int64_t, 4>, 6> shapes = {
      {{32, 64, 56, 56}, {32, 256, 56, 56}, {32, 1024, 14, 14}, {32, 2048, 7, 7}, {1, 64, 112, 112}, {1, 2048, 7, 7}}};
  for (const Operation operation : operations) {
    for (const Format format : {Format::NCHW, Format::NHWC}) {
      for (const auto& shape : shapes) {
        for (const batchnorm::Isa isa : batchnorm::available_isas()) {
          for (const int threads : {1, 2}) {
            const Row row{operation, format, shape, isa, threads};
            add<float>(row, false);
            add<batchnorm::half>(row, true);
            add<batchnorm::bfloat16>(row, true);
          }
        }
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  add_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
