// SPDX-License-Identifier: MIT

// Training and inference against a copy of the same bytes. Each row interleaves the operator with the copy, on the same buffers
// and the same threads, and reports the ratio of the medians: 1 means as fast as memory can be copied.
//
//   forward [--benchmark_filter=REGEX]   rows are named operation/format/type/shape/isa/threads

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

struct Row {
  bool is_training;
  Format format;
  std::array<std::int64_t, 4> nchw;
  batchnorm::Isa isa;
  int threads;
};

template <class T>
void forward(benchmark::State& state, const Row& row) {
  const auto [n, c, h, w] = row.nchw;
  const batchnorm::Shape shape = row.format == Format::NCHW ? batchnorm::Shape{n, c, h, w} : batchnorm::Shape{n, h, w, c};
  Tensor<T> x(shape), y(shape);
  for (std::int64_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(static_cast<float>(i % 1021) / 512.0F - 1.0F);
  using P = batchnorm::parameter_t<T>;
  const std::vector<P> scale(static_cast<std::size_t>(c), P(1.5)), bias(scale.size(), P(0.25));
  std::vector<P> mean(scale.size(), P(0)), variance(scale.size(), P(1));
  batchnorm::ThreadTeam team(row.threads);
  const batchnorm::CallOptions call{.executor = &team};
  batchnorm::force_isa(row.isa);
  const batchnorm::Options options{.is_training = row.is_training};
  const std::int64_t bytes = x.size() * static_cast<std::int64_t>(sizeof(T));
  for (auto _ : state) {
    const auto [operation, copying] = interleaved(
        [&] {
          batchnorm::batch_norm<T, P>(row.format, options, x, scale, bias, mean, variance, {.output_x = y},
                                      batchnorm::Identity{}, call);
        },
        [&] { copy(team, reinterpret_cast<char*>(y.data()), reinterpret_cast<const char*>(x.data()), bytes); });
    state.SetIterationTime(operation);
    state.counters["ratio_to_copy"] = operation / copying;
    state.counters["copy_us"] = copying * 1e6;
    state.counters["GB_per_s"] = 2e-9 * static_cast<double>(bytes) / operation;
  }
}

template <class T>
void add(const Row& row, bool only_best) {
  if (only_best && row.isa != batchnorm::available_isas().back()) return;
  std::string name = row.is_training ? "training/" : "inference/";
  name.append(to_string(row.format)).append("/").append(batchnorm::element_name<T>()).append("/");
  for (std::size_t i = 0; i < 4; ++i) name.append(i == 0 ? "" : "x").append(std::to_string(row.nchw[i]));
  name.append("/").append(to_string(row.isa)).append("/threads:").append(std::to_string(row.threads));
  benchmark::RegisterBenchmark(name.c_str(), [row](benchmark::State& state) { forward<T>(state, row); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

void add_all() {
  const std::array<std::array<std::int64_t, 4>, 6> shapes = {
      {{32, 64, 56, 56}, {32, 256, 56, 56}, {32, 1024, 14, 14}, {32, 2048, 7, 7}, {1, 64, 112, 112}, {1, 2048, 7, 7}}};
  for (const bool is_training : {true, false}) {
    for (const Format format : {Format::NCHW, Format::NHWC}) {
      for (const auto& shape : shapes) {
        for (const batchnorm::Isa isa : batchnorm::available_isas()) {
          for (const int threads : {1, 2}) {
            const Row row{is_training, format, shape, isa, threads};
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
