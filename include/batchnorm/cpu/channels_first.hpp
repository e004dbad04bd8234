// SPDX-License-Identifier: MIT
#pragma once

// The walk over images, channels and planes.

#include <batchnorm/cpu/operate_on_planes.hpp>
#include <batchnorm/cpu/operate_on_rows.hpp>
#include <batchnorm/cpu/problem.hpp>
#include <batchnorm/cpu/sum_columns.hpp>
#include <batchnorm/cpu/sum_planes.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Per-position arrays of the column form, for one tile of adjacent planes.
struct ColumnScratch {
  static constexpr std::int64_t positions = 4096;
  static constexpr std::int64_t stride = positions + channel_padding;
};

/// Sums of blocks of a channels-first tensor.
template <Element T, class Statistic>
class PlaneBlocks {
 public:
  using Summation = typename Statistic::Summation;
  using Arrays = SumArrays<Summation>;

  PlaneBlocks(const Machine& machine, const Reduction<T, Statistic>& reduction) noexcept
      : machine_(machine), reduction_(reduction) {}

  /// Doubles of scratch memory that `sums` needs.
  std::int64_t scratch_doubles() const noexcept {
    return reduction_.partition.columns ? Arrays::count * ColumnScratch::stride : 0;
  }

  /// Constants and sums of one block for channels [first, first + channels); `to` has room for `room` channels from the first
  /// on.
  void sums(std::int64_t index, std::int64_t first, std::int64_t channels, std::int64_t room, const Arrays& to,
            double* scratch) const noexcept {
    NoCompanion none;
    sums(index, first, channels, room, to, scratch, none);
  }

  /// The same; the companion goes on meanwhile (columns do not let it).
  template <class Companion>
  void sums(std::int64_t index, std::int64_t first, std::int64_t channels, std::int64_t room, const Arrays& to, double* scratch,
            Companion& companion) const noexcept {
    const Block block = block_at(reduction_.geometry, reduction_.partition, index);
    sum_block(machine_, reduction_, block, first, channels, room, to, [&](const auto& summation, const auto& arrays) {
      add(summation, block, first, channels, arrays, scratch, companion);
    });
  }

 private:
  template <class Sums, class Companion>
  void add(const Sums& summation, const Block& block, std::int64_t first, std::int64_t channels, const SumArrays<Sums>& to,
           double* scratch, Companion& companion) const noexcept {
    if (reduction_.partition.columns) return add_columns(summation, block, first, channels, to, scratch);
    if (block.length < long_run) {
      add_planes<true>(summation, block, first, channels, to, companion);
    } else {
      add_planes<false>(summation, block, first, channels, to, companion);
    }
  }

  template <bool is_short, class Sums, class Companion>
  void add_planes(const Sums& summation, const Block& block, std::int64_t first, std::int64_t channels,
                  const SumArrays<Sums>& to, Companion& companion) const noexcept {
    const Geometry& g = reduction_.geometry;
    SumPlanes<T, Sums, is_short, Companion> kernel{};
    kernel.summation = summation;
    kernel.in = reduction_.in.at(block.first_image, first, block.first_position);
    reduction_.in.copy_outer(kernel.batch_stride);
    reduction_.in.copy_channel(kernel.channel_stride);
    kernel.images = block.images;
    kernel.channels = channels;
    kernel.length = block.length;
    kernel.bits = reduction_.bit_reader();
    kernel.first_bit = g.index(block.first_image, first, block.first_position);
    kernel.batch_bits = g.image_step();
    kernel.channel_bits = g.channel_step();
    kernel.arrays = to;
    kernel.companion = &companion;
    run(machine_.isa, kernel);
  }

  /// Tiles of channels that stay in L2 while they are summed down the images, each prefetched in memory order.
  template <class Sums>
  void add_columns(const Sums& summation, const Block& block, std::int64_t first, std::int64_t channels,
                   const SumArrays<Sums>& to, double* scratch) const noexcept {
    const Geometry& g = reduction_.geometry;
    const std::int64_t s = g.s;
    const std::int64_t tile_bytes = machine_.tuning->column_group_bytes / 2;  // this tile and the next share half of L2
    const std::int64_t channel_bytes = block.images * s * static_cast<std::int64_t>(sizeof(T)) * Summation::inputs;
    const std::int64_t most = (std::min)(tile_bytes / channel_bytes, ColumnScratch::positions / s);
    const std::int64_t tile = (std::min)(channels, (std::max<std::int64_t>)(1, most));
    const auto wide = SumArrays<Sums>::in(scratch, ColumnScratch::stride);
    SumColumns<T, Sums> kernel{};
    kernel.summation = summation;
    reduction_.in.copy_outer(kernel.row_stride);
    kernel.rows = block.images;
    kernel.bits = reduction_.bit_reader();
    kernel.row_bits = g.image_step();
    kernel.arrays = wide;
    for (std::int64_t c = 0; c < channels; c += tile) {
      const std::int64_t some = (std::min)(tile, channels - c), next = (std::min)(tile, channels - c - some);
      for (int j = 0; j < Sums::constants; ++j) {
        for (std::int64_t i = 0; i < some; ++i) std::fill_n(wide.constant[j] + i * s, s, to.constant[j][c + i]);
        std::fill_n(wide.constant[j] + some * s, channel_padding, 0.0);
      }
      for (double* sum : wide.sum) std::fill_n(sum, some * s + channel_padding, 0.0);
      kernel.in = reduction_.in.at(block.first_image, first + c);
      kernel.columns = some * s;
      kernel.safe_rows = safe_rows(block, first + c + some);
      kernel.first_bit = g.index(block.first_image, first + c);
      kernel.ahead = {};
      for (int j = 0; j < Summation::inputs && next > 0; ++j) {
        kernel.ahead[static_cast<std::size_t>(j)] =
            Prefetcher(kernel.in.p[j] + some * s, kernel.row_stride[j], block.images, next * s);
      }
      run(machine_.isa, kernel);
      for (int j = 0; j < Sums::sums; ++j) run(machine_.isa, SumSegments{wide.sum[j], some, s, to.sum[j] + c});
    }
  }

  /// Images of the block in which a vector may reach past the last value of the channel before `end`.
  std::int64_t safe_rows(const Block& block, std::int64_t end) const noexcept {
    if (reduction_.is_overwritten || reduction_.geometry.is_of_rows()) return 0;
    const Geometry& g = reduction_.geometry;
    constexpr std::int64_t reach = pair_of<64> - 1;
    if ((g.c - end) * g.s >= reach) return block.images;
    const bool is_dense = reduction_.in.all_outer(g.c * g.s);
    const bool next_image_follows = block.first_image + block.images < g.n;
    if (!is_dense || g.c * g.s < reach) return 0;
    return next_image_follows ? block.images : block.images - 1;
  }

  Machine machine_;
  Reduction<T, Statistic> reduction_;
};

/// An operation on pieces of a channels-first tensor.
template <Element T, class Operation>
class PlaneSweep {
 public:
  using Constants = Coefficients<compute_t<T>, Operation::coefficients>;
  using Work = Elementwise<T, Operation>;

  PlaneSweep(const Machine& machine, const Work& work, bool streams) noexcept
      : machine_(machine),
        work_(work),
        streams_(streams && !(work.geometry.is_of_rows() && work.geometry.s < least_streamed_row)) {}

  /// Channels of an image without gaps between them.
  static bool is_gapless(const Work& work) noexcept {
    const Geometry& g = work.geometry;
    return g.has_whole_images() && work.in.all_channel(g.s) && work.out.all_channel(g.s);
  }

  /// Planes of less than a cache line are worked on position by position, with expanded coefficients.
  static bool needs_positions(const Work& work) noexcept { return work.geometry.s < line_of<T> && is_gapless(work); }

  using Planes = OperateOnPlanes<T, Operation>;

  /// Channels [first, first + channels) of images [n, n + images) of one run, values [begin, begin + length) of each; the
  /// coefficients are those of `first` on. Streamed where one image's channels have no gaps.
  Planes planes(std::int64_t n, std::int64_t images, std::int64_t first, std::int64_t channels, std::int64_t begin,
                std::int64_t length, const Constants& coefficients) const noexcept {
    const Geometry& g = work_.geometry;
    Planes kernel{};
    kernel.operation = work_.operation;
    kernel.in = work_.in.at(n, first, begin);
    kernel.out = work_.out.at(n, first, begin);
    work_.in.copy_outer(kernel.in_batch_stride);
    work_.out.copy_outer(kernel.out_batch_stride);
    work_.in.copy_channel(kernel.in_stride);
    work_.out.copy_channel(kernel.out_stride);
    kernel.images = images;
    kernel.channels = channels;
    kernel.length = length;
    kernel.coefficients = coefficients;
    kernel.bits = work_.bits;
    kernel.first_bit = g.index(n, first, begin);
    kernel.batch_bits = g.image_step();
    kernel.channel_bits = g.channel_step();
    kernel.streams = streams_ && length >= line_of<T> && (channels == 1 || (length == g.s && is_gapless(work_)));
    return kernel;
  }

  void run_planes(std::int64_t n, std::int64_t images, std::int64_t first, std::int64_t channels, std::int64_t begin,
                  std::int64_t length, const Constants& coefficients) const noexcept {
    for_each_run(work_.geometry, n, images, [&](std::int64_t begin_of_run, std::int64_t count) {
      const Planes kernel = planes(begin_of_run, count, first, channels, begin, length, coefficients);
      if (kernel.streams || !streams_ || length < line_of<T>) return run(machine_.isa, kernel);
      for (std::int64_t c = 0; c < channels; ++c) {
        run(machine_.isa, planes(begin_of_run, count, first + c, 1, begin, length, coefficients.at(c)));
      }
    });
  }

  /// Channels [first, first + channels), without gaps, of all images, which are one run, with coefficients for each position.
  /// `ahead`: the first of as many channels that are prefetched on the way, or -1.
  void run_positions(std::int64_t first, std::int64_t channels, const Constants& positions, std::int64_t ahead) const noexcept {
    const Geometry& g = work_.geometry;
    OperateOnRows<T, Operation> kernel{};
    kernel.operation = work_.operation;
    kernel.in = work_.in.at(0, first);
    kernel.out = work_.out.at(0, first);
    work_.in.copy_outer(kernel.in_stride);
    work_.out.copy_outer(kernel.out_stride);
    kernel.rows = g.n;
    kernel.length = kernel.period = channels * g.s;
    kernel.coefficients = positions;
    kernel.bits = work_.bits;
    kernel.first_bit = g.index(0, first);
    kernel.row_bits = g.c * g.s;
    kernel.streams = streams_;
    for (int j = 0; j < Operation::prefetched && ahead >= 0; ++j) {
      kernel.ahead[static_cast<std::size_t>(j)] =
          Prefetcher(work_.in.of[j].at(0, ahead), work_.in.of[j].pitch.outer, g.n, (std::min)(channels, g.c - ahead) * g.s);
    }
    run(machine_.isa, kernel);
  }

 private:
  /// Rows of pictures from this length on are streamed: of shorter ones the lines at both ends, stored in part, cost more.
  static constexpr std::int64_t least_streamed_row = 1024;

  Machine machine_;
  Work work_;
  bool streams_;
};

/// The operation on a whole channels-first tensor with the coefficients of its channels.
template <Element T, class Operation>
void sweep_planes(const Machine& machine, const Elementwise<T, Operation>& work,
                  const Coefficients<compute_t<T>, Operation::coefficients>& coefficients, bool streams) noexcept {
  const Geometry& g = work.geometry;
  const PlaneSweep<T, Operation> sweep(machine, work, streams);
  const std::int64_t task_values = machine.task_bytes(work.bytes()) / static_cast<std::int64_t>(sizeof(T));
  // A task is several images, or several channels of one, or a part of a plane; parts begin at whole lines.
  const std::int64_t images = (std::max<std::int64_t>)(1, task_values / (g.c * g.s));
  const std::int64_t channels = std::clamp<std::int64_t>(task_values / g.s, 1, g.c);
  const std::int64_t length = g.s <= 2 * task_values ? g.s : (std::max<std::int64_t>)(1, task_values / 64) * 64;
  const std::int64_t groups = detail::ceiling(g.c, channels), parts = detail::ceiling(g.s, length);
  const std::int64_t tasks = detail::ceiling(g.n, images) * groups * parts;
  for_each(machine, machine.workers(work.bytes()), tasks, [&](int, std::int64_t task) {
    const std::int64_t part = task % parts, group = task / parts % groups, first_image = task / parts / groups * images;
    const std::int64_t first = group * channels, some = (std::min)(channels, g.c - first);
    const std::int64_t begin = part * length;
    sweep.run_planes(first_image, (std::min)(images, g.n - first_image), first, some, begin, (std::min)(length, g.s - begin),
                     coefficients.at(first));
  });
}

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
