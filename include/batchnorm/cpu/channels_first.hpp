// SPDX-License-Identifier: MIT
#pragma once

// The walk over images, channels and planes.

#include <numeric>

#include <batchnorm/cpu/problem.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Per-position arrays of the column form, for one tile of adjacent planes.
struct ColumnScratch {
  static constexpr std::int64_t positions = 4096;
  static constexpr std::int64_t stride = positions + channel_padding;
  double* pivot;
  double* sum;
  double* sum_sq;

  static ColumnScratch at(double* memory) noexcept { return {memory, memory + stride, memory + 2 * stride}; }
};

/// Sums of blocks of a channels-first tensor.
template <Element T>
class PlaneBlocks {
 public:
  PlaneBlocks(const Machine& machine, const Input<T>& input) noexcept : machine_(machine), input_(input) {}

  /// Pivot and sums of one block for channels [first, first + channels). `columns` is needed for the column form only.
  void sums(std::int64_t index, std::int64_t first, std::int64_t channels, const BlockSums& to,
            const ColumnScratch& columns) const noexcept {
    const Block block = block_at(input_.geometry, input_.partition, index);
    std::fill_n(to.sum, padded(channels), 0.0);
    std::fill_n(to.sum_sq, padded(channels), 0.0);
    std::fill_n(to.pivot, padded(channels), 0.0);
    for (std::int64_t c = 0; c < channels; ++c) {
      to.pivot[c] = pivot_of(*input_.at(block.first_image, first + c, block.first_position));
    }
    add(block, first, channels, to, columns);
    if constexpr (std::same_as<T, double>) {
      run(machine_.isa, RefinePivots{to, channels, block.values()});
      add(block, first, channels, to, columns);
    }
  }

 private:
  void add(const Block& block, std::int64_t first, std::int64_t channels, const BlockSums& to,
           const ColumnScratch& columns) const noexcept {
    if (input_.partition.columns) {
      add_columns(block, first, channels, to, columns);
    } else {
      run(machine_.isa, PlaneSums<T>{input_.at(block.first_image, first, block.first_position), input_.pitch.outer,
                                     input_.pitch.channel, block.images, channels, block.length, to.pivot, to.sum, to.sum_sq});
    }
  }

  /// Tiles of channels that stay in L2 while they are summed down the images, each prefetched in memory order.
  void add_columns(const Block& block, std::int64_t first, std::int64_t channels, const BlockSums& to,
                   const ColumnScratch& scratch) const noexcept {
    const std::int64_t s = input_.geometry.s;
    const std::int64_t tile_bytes = 64 << 10;
    const std::int64_t channel_bytes = block.images * s * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t most = (std::min)(tile_bytes / channel_bytes, ColumnScratch::positions / s);
    const std::int64_t tile = (std::min)(channels, (std::max<std::int64_t>)(1, most));
    for (std::int64_t c = 0; c < channels; c += tile) {
      const std::int64_t some = (std::min)(tile, channels - c);
      for (std::int64_t i = 0; i < some; ++i) std::fill_n(scratch.pivot + i * s, s, to.pivot[c + i]);
      std::fill_n(scratch.pivot + some * s, channel_padding, 0.0);
      std::fill_n(scratch.sum, some * s + channel_padding, 0.0);
      std::fill_n(scratch.sum_sq, some * s + channel_padding, 0.0);
      Prefetcher<T> ahead;
      if (c + some < channels) {
        const std::int64_t next = (std::min)(tile, channels - c - some);
        ahead = Prefetcher<T>(input_.at(block.first_image, first + c + some), input_.pitch.outer, block.images, next * s);
      }
      run(machine_.isa, ColumnSums<T>{input_.at(block.first_image, first + c), input_.pitch.outer, block.images, some * s,
                                      safe_rows(block, first + c + some), scratch.pivot, scratch.sum, scratch.sum_sq, ahead});
      run(machine_.isa, SegmentSums{scratch.sum, some, s, to.sum + c});
      run(machine_.isa, SegmentSums{scratch.sum_sq, some, s, to.sum_sq + c});
    }
  }

  /// Images of the block in which a vector may reach past the last value of the channel before `end`.
  std::int64_t safe_rows(const Block& block, std::int64_t end) const noexcept {
    if (input_.is_overwritten) return 0;
    const Geometry& g = input_.geometry;
    constexpr std::int64_t reach = pair_of<64> - 1;
    if ((g.c - end) * g.s >= reach) return block.images;
    const bool is_dense = input_.pitch.outer == g.c * g.s;
    const bool next_image_follows = block.first_image + block.images < g.n;
    if (!is_dense || g.c * g.s < reach) return 0;
    return next_image_follows ? block.images : block.images - 1;
  }

  Machine machine_;
  Input<T> input_;
};

/// Normalises pieces of a channels-first tensor.
template <Element T, class Activation, bool adds_residual>
class PlaneSweep {
 public:
  using Compute = compute_t<T>;

  PlaneSweep(const Machine& machine, const Input<T>& input, const Output<T, Activation, adds_residual>& output,
             bool streams) noexcept
      : machine_(machine), input_(input), output_(output), streams_(streams) {}

  /// Channels of an image without gaps between them.
  static bool is_gapless(const Input<T>& input, const Output<T, Activation, adds_residual>& output) noexcept {
    const std::int64_t s = input.geometry.s;
    return input.pitch.channel == s && output.pitch.channel == s && (!adds_residual || output.residual_pitch.channel == s);
  }

  /// Planes of less than a cache line are normalised position by position, with expanded coefficients.
  static bool needs_positions(const Input<T>& input, const Output<T, Activation, adds_residual>& output) noexcept {
    return input.geometry.s < line_of<T> && is_gapless(input, output);
  }

  /// Channels [first, first + channels) of image n, values [begin, begin + length) of each; the coefficients are those of
  /// `first` on. `ahead`: the channel whose values are prefetched on the way, or -1.
  void normalize(std::int64_t n, std::int64_t first, std::int64_t channels, std::int64_t begin, std::int64_t length,
                 const Coefficients<Compute>& coefficients, std::int64_t ahead = -1) const noexcept {
    const bool gapless = is_gapless(input_, output_) && length == input_.geometry.s;
    const bool stream = streams_ && length >= line_of<T>;
    if (stream && !gapless && channels > 1) {
      for (std::int64_t c = 0; c < channels; ++c) normalize(n, first + c, 1, begin, length, coefficients.at(c));
      return;
    }
    run(machine_.isa,
        PlaneNormalize<T, Activation, adds_residual>{
            input_.at(n, first, begin), output_.residual_at(n, first, begin), output_.at(n, first, begin), input_.pitch.channel,
            output_.residual_pitch.channel, output_.pitch.channel, channels, length, coefficients, output_.normalization,
            stream, ahead >= 0 && gapless ? input_.at(n, ahead, begin) : nullptr});
  }

  /// Channels [first, first + channels), without gaps, of all images, with coefficients for each position. `ahead`: the first
  /// of as many channels that are prefetched on the way, or -1.
  void normalize_positions(std::int64_t first, std::int64_t channels, const Coefficients<Compute>& positions,
                           std::int64_t ahead) const noexcept {
    const Geometry& g = input_.geometry;
    const std::int64_t length = channels * g.s;
    Prefetcher<T> next;
    if (ahead >= 0) next = Prefetcher<T>(input_.at(0, ahead), input_.pitch.outer, g.n, (std::min)(channels, g.c - ahead) * g.s);
    run(machine_.isa,
        RowNormalize<T, Activation, adds_residual>{input_.at(0, first), output_.residual_at(0, first), output_.at(0, first),
                                                   input_.pitch.outer, output_.residual_pitch.outer, output_.pitch.outer, g.n,
                                                   length, length, positions, output_.normalization, streams_, next});
  }

 private:
  Machine machine_;
  Input<T> input_;
  Output<T, Activation, adds_residual> output_;
  bool streams_;
};

/// Normalises a whole channels-first tensor with the coefficients of its channels.
template <Element T, class Activation, bool adds_residual>
void sweep_planes(const Machine& machine, const Input<T>& input, const Output<T, Activation, adds_residual>& output,
                  const Coefficients<compute_t<T>>& coefficients, bool streams) noexcept {
  const Geometry& g = input.geometry;
  const PlaneSweep<T, Activation, adds_residual> sweep(machine, input, output, streams);
  const std::int64_t task_values = machine.tuning->sweep_task_bytes / static_cast<std::int64_t>(sizeof(T));
  // A task is several images, or several channels of one, or a part of a plane; parts begin at whole lines.
  const std::int64_t images = (std::max<std::int64_t>)(1, task_values / (g.c * g.s));
  const std::int64_t channels = std::clamp<std::int64_t>(task_values / g.s, 1, g.c);
  const std::int64_t length = g.s <= 2 * task_values ? g.s : task_values / 64 * 64;
  const std::int64_t groups = detail::ceiling(g.c, channels), parts = detail::ceiling(g.s, length);
  const std::int64_t tasks = detail::ceiling(g.n, images) * groups * parts;
  for_each(machine, machine.workers(input.bytes()), tasks, [&](int, std::int64_t task) {
    const std::int64_t part = task % parts, group = task / parts % groups, first_image = task / parts / groups * images;
    const std::int64_t first = group * channels, some = (std::min)(channels, g.c - first);
    const std::int64_t begin = part * length;
    for (std::int64_t n = first_image; n < (std::min)(first_image + images, g.n); ++n) {
      sweep.normalize(n, first, some, begin, (std::min)(length, g.s - begin), coefficients.at(first));
    }
  });
}

/// Training, a group of channels at a time: statistics, then normalisation while the group is in cache and the next one is on
/// its way there.
template <Element T, Element P, class Activation, bool adds_residual>
class GroupTraining {
 public:
  using Compute = compute_t<T>;

  GroupTraining(const Machine& machine, const Input<T>& input, const Output<T, Activation, adds_residual>& output,
                const ChannelArguments<P>& arguments, bool streams) noexcept
      : machine_(machine),
        input_(input),
        arguments_(arguments),
        blocks_(machine, input),
        sweep_(machine, input, output, streams),
        workers_(machine.workers(input.bytes())),
        positions_(PlaneSweep<T, Activation, adds_residual>::is_gapless(input, output) &&
                   (input.geometry.s < line_of<T> || (input.partition.columns && input.geometry.s < positions_below))) {
    choose_group();
  }

  /// False when there are too few channels to give every thread its share.
  bool fits() const noexcept { return workers_ == 1 || groups() % workers_ == 0 || groups() >= 4 * workers_; }

  /// @throws std::bad_alloc
  void allocate() {
    const auto capacity = static_cast<std::int64_t>(workers_);
    for (std::int64_t w = 0; w < capacity; ++w) {
      WorkerParts parts;
      parts.channels = ChannelScratch::reserve(scratch_, group_, 7);
      parts.coefficients = CoefficientScratch<Compute>::reserve(scratch_, group_);
      parts.positions =
          CoefficientScratch<Compute>::reserve(scratch_, positions_ ? group_ * input_.geometry.s + line_of<T> : 0);
      parts.columns = scratch_.template reserve<double>(input_.partition.columns ? 3 * ColumnScratch::stride : 0);
      if (w == 0) first_worker_ = parts;
      if (w == 1) worker_bytes_ = parts.channels.doubles.offset - first_worker_.channels.doubles.offset;
    }
    scratch_.allocate();
  }

  void run_all() const noexcept {
    Counter counter;
    const auto work = [&](int worker) {
      const Worker own = worker_at(worker);
      std::int64_t group = counter.take();
      while (group < groups()) {
        const std::int64_t next = counter.take();
        train(group, next, own);
        group = next;
      }
    };
    if (workers_ == 1) {
      work(0);
    } else {
      machine_.executor->run(workers_, work);
    }
  }

 private:
  /// Planes below this size, over several images, are normalised position by position: a line that two channels share comes
  /// too often for blending.
  static constexpr std::int64_t positions_below = 128;

  struct WorkerParts {
    ChannelScratch channels;
    CoefficientScratch<Compute> coefficients, positions;
    Scratch::Part<double> columns;
  };

  struct Worker {
    BlockSums block;
    MomentSums moments;
    Coefficients<Compute> coefficients, positions;
    ColumnScratch columns;
  };

  /// The number of channels of a group: as many as the cache share holds, whole cache lines per image where that is possible,
  /// and small enough that every thread gets two.
  void choose_group() noexcept {
    const Geometry& g = input_.geometry;
    const Tuning& t = *machine_.tuning;
    const std::int64_t channel_bytes = g.n * g.s * static_cast<std::int64_t>(sizeof(T));
    const std::int64_t wanted = input_.partition.columns ? t.column_group_bytes : t.plane_group_bytes;
    const std::int64_t share = workers_ == 1 ? wanted : (std::min)(wanted, input_.bytes() / (2 * workers_));
    const std::int64_t channels = std::clamp<std::int64_t>(share / channel_bytes, 1, g.c);
    const std::int64_t whole_lines = line_of<T> / std::gcd(line_of<T>, g.s);
    group_ = channels >= whole_lines ? channels / whole_lines * whole_lines : channels;
    if (input_.partition.columns && whole_lines <= g.c && whole_lines * channel_bytes <= 4 * wanted) {
      group_ = (std::max)(group_, whole_lines);
    }
  }

  std::int64_t groups() const noexcept { return detail::ceiling(input_.geometry.c, group_); }

  Worker worker_at(int worker) const noexcept {
    WorkerParts parts = first_worker_;
    const std::size_t shift = static_cast<std::size_t>(worker) * worker_bytes_;
    parts.channels.doubles.offset += shift;
    parts.coefficients.values.offset += shift;
    parts.positions.values.offset += shift;
    parts.columns.offset += shift;
    return {parts.channels.block(scratch_), parts.channels.moments(scratch_, 3), parts.coefficients.in(scratch_),
            parts.positions.in(scratch_), ColumnScratch::at(scratch_[parts.columns])};
  }

  void train(std::int64_t group, std::int64_t next, const Worker& own) const noexcept {
    const Geometry& g = input_.geometry;
    const std::int64_t first = group * group_, channels = (std::min)(group_, g.c - first);
    std::int64_t before = 0;
    for (std::int64_t b = 0; b < input_.partition.blocks; ++b) {
      const std::int64_t count = block_at(g, input_.partition, b).values();
      blocks_.sums(b, first, channels, own.block, own.columns);
      run(machine_.isa, MergeBlock{own.moments, own.block, channels, before, count});
      before += count;
    }
    run(machine_.isa, FinalizeChannels<Compute, P>{own.moments, channels, before, arguments_.at(first), own.coefficients});
    if (positions_) expand(own.coefficients, channels, g.s, own.positions, channels * g.s + line_of<T>);
    const std::int64_t ahead = next < groups() && input_.bytes() > machine_.tuning->l2_bytes ? next * group_ : -1;
    if (positions_) {
      sweep_.normalize_positions(first, channels, own.positions, ahead);
      return;
    }
    for (std::int64_t n = 0; n < g.n; ++n) sweep_.normalize(n, first, channels, 0, g.s, own.coefficients, ahead);
  }

  Machine machine_;
  Input<T> input_;
  ChannelArguments<P> arguments_;
  PlaneBlocks<T> blocks_;
  PlaneSweep<T, Activation, adds_residual> sweep_;
  int workers_;
  bool positions_;
  std::int64_t group_ = 1;
  Scratch scratch_;
  WorkerParts first_worker_;
  std::size_t worker_bytes_ = 0;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
