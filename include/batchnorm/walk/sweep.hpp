// SPDX-License-Identifier: MIT
#pragma once

// Operations on pieces of a tensor.

#include <batchnorm/walk/tensors.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

class Sweep {
 public:
  Sweep(const Plan& plan, const Work& work, const SweptShape& shape) noexcept : plan_(plan), work_(work), shape_(shape) {}

  /// Positions that expanded coefficients cover: those of a period, and the line after them that a vector may begin in.
  std::int64_t positions() const noexcept { return plan_.by_rows ? plan_.period + shape_.line() : 0; }

  /// All tasks of the plan, with the coefficients of all channels (by rows: of positions).
  void run_all(const Machine& machine, const CoefficientArrays& coefficients) const noexcept {
    for_each(machine, plan_.workers, plan_.tasks, [&](int, std::int64_t task) { run_task(task, coefficients); });
  }

  /// Task `task` of the plan, with the coefficients of all channels (by rows: of positions).
  void run_task(std::int64_t task, const CoefficientArrays& coefficients) const noexcept;

  /// Channels [first, first + channels) of images [n, n + images), values [begin, begin + length) of each; the coefficients
  /// are those of `first` on.
  void run_planes(std::int64_t n, std::int64_t images, std::int64_t first, std::int64_t channels, std::int64_t begin,
                  std::int64_t length, const CoefficientArrays& coefficients) const noexcept;

  /// The same as data, for images of one run. With non-temporal stores where one image's channels have no gaps.
  PlanesToOperateOn planes(std::int64_t n, std::int64_t images, std::int64_t first, std::int64_t channels, std::int64_t begin,
                           std::int64_t length, const CoefficientArrays& coefficients) const noexcept;

  /// What is left of planes.
  void run(const PlanesToOperateOn& planes, const Progress& progress = {}) const noexcept {
    work_.kernels.planes(work_.operation, planes, progress);
  }

  /// Rows with coefficients of positions.
  void run_rows(std::int64_t first, std::int64_t rows, const CoefficientArrays& positions) const noexcept;

  /// Channels [first, first + channels), without gaps, of all images, which are one run, with coefficients of positions.
  /// `ahead`: the first of as many channels that are prefetched on the way, or -1.
  void run_positions(std::int64_t first, std::int64_t channels, const CoefficientArrays& positions,
                     std::int64_t ahead) const noexcept;

 private:
  void run_rows_of_run(std::int64_t first, std::int64_t rows, const CoefficientArrays& positions) const noexcept;
  RowsToOperateOn rows_at(std::int64_t image, std::int64_t channel, const CoefficientArrays& positions) const noexcept;

  const Plan& plan_;
  const Work& work_;
  const SweptShape& shape_;
};

// ----------------------------------------------------------------------------------------------------------------------------

namespace detail {

/// Calls f(first, images) for the parts of images [first, first + images) that lie in one run each.
template <class F>
void for_each_run(const Geometry& g, std::int64_t first, std::int64_t images, const F& f) noexcept {
  for (const std::int64_t end = first + images; first < end;) {
    const std::int64_t some = (std::min)(end, g.end_of_run(first)) - first;
    f(first, some);
    first += some;
  }
}

}  // namespace detail

inline void Sweep::run_task(std::int64_t task, const CoefficientArrays& coefficients) const noexcept {
  const Geometry& g = work_.geometry;
  if (plan_.by_rows) {
    const std::int64_t first = (plan_.is_reversed ? plan_.tasks - 1 - task : task) * plan_.task_images;
    return run_rows(first, (std::min)(plan_.task_images, g.n - first), coefficients);
  }
  const std::int64_t parts = detail::ceiling(g.s, plan_.task_length), groups = detail::ceiling(g.c, plan_.task_channels);
  const std::int64_t begin = task % parts * plan_.task_length;
  const std::int64_t first = task / parts % groups * plan_.task_channels, n = task / parts / groups * plan_.task_images;
  run_planes(n, (std::min)(plan_.task_images, g.n - n), first, (std::min)(plan_.task_channels, g.c - first), begin,
             (std::min)(plan_.task_length, g.s - begin), work_.from(coefficients, first));
}

inline PlanesToOperateOn Sweep::planes(std::int64_t n, std::int64_t images, std::int64_t first, std::int64_t channels,
                                       std::int64_t begin, std::int64_t length,
                                       const CoefficientArrays& coefficients) const noexcept {
  const Geometry& g = work_.geometry;
  const bool is_one_piece = channels == 1 || (length == g.s && shape_.has_whole_images);
  return {work_.in_pointers(n, first, begin),
          work_.out_pointers(n, first, begin),
          pitches(work_.in, &Pitch::outer),
          pitches(work_.in, &Pitch::channel),
          pitches(work_.out, &Pitch::outer),
          pitches(work_.out, &Pitch::channel),
          images,
          channels,
          length,
          coefficients,
          work_.bits,
          g.index(n, first, begin),
          g.image_step(),
          g.channel_step(),
          plan_.streams && length >= shape_.line() && is_one_piece};
}

inline void Sweep::run_planes(std::int64_t n, std::int64_t images, std::int64_t first, std::int64_t channels,
                              std::int64_t begin, std::int64_t length, const CoefficientArrays& coefficients) const noexcept {
  detail::for_each_run(work_.geometry, n, images, [&](std::int64_t begin_of_run, std::int64_t count) {
    const PlanesToOperateOn all = planes(begin_of_run, count, first, channels, begin, length, coefficients);
    if (all.streams || !plan_.streams || length < shape_.line()) return run(all);
    for (std::int64_t c = 0; c < channels; ++c) {
      run(planes(begin_of_run, count, first + c, 1, begin, length, work_.from(coefficients, c)));
    }
  });
}

inline RowsToOperateOn Sweep::rows_at(std::int64_t image, std::int64_t channel,
                                      const CoefficientArrays& positions) const noexcept {
  RowsToOperateOn rows{};
  rows.in = work_.in_pointers(image, channel);
  rows.out = work_.out_pointers(image, channel);
  rows.in_stride = pitches(work_.in, &Pitch::outer);
  rows.out_stride = pitches(work_.out, &Pitch::outer);
  rows.coefficients = positions;
  rows.bits = work_.bits;
  rows.first_bit = work_.geometry.index(image, channel);
  rows.streams = plan_.streams;
  return rows;
}

inline void Sweep::run_rows(std::int64_t first, std::int64_t rows, const CoefficientArrays& positions) const noexcept {
  detail::for_each_run(work_.geometry, first, rows,
                       [&](std::int64_t begin, std::int64_t count) { run_rows_of_run(begin, count, positions); });
}

inline void Sweep::run_rows_of_run(std::int64_t first, std::int64_t count, const CoefficientArrays& positions) const noexcept {
  const std::int64_t merged = plan_.is_flat ? count : 1;
  RowsToOperateOn rows = rows_at(first, 0, positions);
  rows.rows = count / merged;
  rows.length = merged * work_.geometry.c * work_.geometry.s;
  rows.period = plan_.period;
  rows.row_bits = work_.geometry.image_step();
  rows.distance = operation_distance_bytes / shape_.value_bytes;
  work_.kernels.rows(work_.operation, rows);
}

inline void Sweep::run_positions(std::int64_t first, std::int64_t channels, const CoefficientArrays& positions,
                                 std::int64_t ahead) const noexcept {
  const Geometry& g = work_.geometry;
  RowsToOperateOn rows = rows_at(0, first, positions);
  rows.rows = g.n;
  rows.length = rows.period = channels * g.s;
  rows.row_bits = g.c * g.s;
  for (std::size_t j = 0; j < static_cast<std::size_t>(work_.kernels.prefetched) && ahead >= 0; ++j) {
    const std::int64_t bytes = shape_.value_bytes;
    rows.ahead[j] = Prefetcher(work_.in[j].at(0, ahead, 0, bytes), work_.in[j].pitch.outer * bytes, g.n,
                               (std::min)(channels, g.c - ahead) * g.s * bytes);
  }
  work_.kernels.rows(work_.operation, rows);
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
