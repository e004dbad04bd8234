// SPDX-License-Identifier: MIT
#pragma once

// Operations on contiguous runs that have the coefficients of one channel each.

#include <algorithm>

#include <batchnorm/kernel/operands.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

/// Applies an operation to `channels` adjacent channels of each of `images` images, `length` values each.
///
/// Streaming: the channels of an image lie without gaps, length >= line_of<T>. They are one run of whole cache lines, stored
/// non-temporally; only its first and last line are stored in part; a vector that two channels share gets the coefficients of
/// both. (A part of a line stored between streamed lines would wait for that line to be read first.) Otherwise channel by
/// channel; the last vector of a channel overlaps the one before.
template <Element T, class Operation>
struct OperateOnPlanes {
  static constexpr int inputs = Operation::inputs;
  static constexpr int outputs = Operation::outputs;
  using In = Pointers<const T, inputs>;
  using Out = Pointers<T, outputs>;

  BATCHNORM_INLINE OperateOnPlanes(const void* policy, const PlanesToOperateOn& a, const Progress& progress)
      : operation(*static_cast<const Operation*>(policy)),
        in(In::of(a.in)),
        out(Out::of(a.out)),
        images(a.images),
        channels(a.channels),
        length(a.length),
        coefficients(a.coefficients),
        bits(a.bits),
        first_bit(a.first_bit),
        batch_bits(a.batch_bits),
        channel_bits(a.channel_bits),
        streams(a.streams),
        place{progress.image, progress.channel, progress.i, progress.end_of_lines, progress.is_inside, {}} {
    copy_strides(a.in_batch_stride, in_batch_stride);
    copy_strides(a.out_batch_stride, out_batch_stride);
    copy_strides(a.in_stride, in_stride);
    copy_strides(a.out_stride, out_stride);
    place.stream.resume(progress);
  }

  BATCHNORM_INLINE void save(Progress& to) const noexcept {
    to.image = place.image, to.channel = place.channel, to.i = place.i;
    to.end_of_lines = place.end_of_lines, to.is_inside = place.is_inside;
    place.stream.save(to);
  }

  Operation operation;
  In in;
  Out out;
  std::int64_t in_batch_stride[inputs], out_batch_stride[outputs];
  std::int64_t in_stride[inputs], out_stride[outputs];  // from channel to channel
  std::int64_t images, channels, length;
  Coefficients<compute_t<T>, Operation::coefficients> coefficients;
  BitsAt bits;
  std::int64_t first_bit, batch_bits, channel_bits;
  bool streams;

  template <int Bytes>
  using Step = VectorStep<Bytes, T, Operation>;
  template <int Bytes>
  using K = typename Step<Bytes>::K;
  /// A step on so many elements; only bits care for their order.
  template <int Bytes, std::int64_t elements>
  using Several =
      VectorStep<Bytes, T, Operation, static_cast<int>(elements / lanes_of<Bytes, T>), Operation::bits != Bits::none>;
  using Stream = BitStream<Operation>;

  static constexpr bool works = true;

  /// How far streaming has come: element i of an image. Not the pointers that follow from it: a compiler copies pointers that
  /// lie side by side two at a time, and a load of two values that were stored one by one waits until every store before them
  /// has left.
  struct Place {
    std::int64_t image = 0, channel = 0, i = 0;
    std::int64_t end_of_lines = 0;  // of the image
    bool is_inside = false;         // the image is begun
    Stream stream;
  } place;

  /// Alone: a page of float.
  static constexpr std::int64_t lines_at_once = 64;

  template <int Bytes>
  BATCHNORM_INLINE void run() const {
    if (streams) {
      OperateOnPlanes rest = *this;
      while (rest.place.image < images) rest.template go_on<Bytes>(lines_at_once);
      intrinsics::stream_fence();
    } else {
      for (std::int64_t n = 0; n < images; ++n) {
        for (std::int64_t c = 0; c < channels; ++c) store_channel<Bytes>(n, c);
      }
    }
  }

  /// Streams about so many lines more.
  template <int Bytes>
  BATCHNORM_INLINE void go_on(std::int64_t lines) {
    constexpr std::int64_t line = line_of<T>, unit = Bytes / static_cast<std::int64_t>(sizeof(T));
    std::int64_t left = lines * line;
    while (left > 0 && place.image < images) {
      if (!place.is_inside) begin_image<Bytes>();
      const In from = in.at(place.image, in_batch_stride);
      const Out to = out.at(place.image, out_batch_stride);
      const bool all = are_aligned_alike(to);
      auto k = K<Bytes>::of_channel(coefficients, place.channel);
      std::int64_t i = place.i, channel = place.channel;
      const std::int64_t stop = (std::min)(i + left, place.end_of_lines);
      left -= stop - i;
      // Nothing beyond the image, which may be far from what is worked on next.
      const std::int64_t distance = stop + operation_distance<T> <= channels * length ? operation_distance<T> : 0;
      while (true) {
        const std::int64_t end = (std::min)((channel + 1) * length, stop);
        for (; i + line <= end; i += line) stream_vectors<Bytes, line>(from.at(i), to.at(i), k, distance, all, place.stream);
        if constexpr (unit < line) {
          for (; i + unit <= end; i += unit) stream_vectors<Bytes, unit>(from.at(i), to.at(i), k, distance, all, place.stream);
        }
        if (i >= stop) break;
        const auto next = K<Bytes>::of_channel(coefficients, ++channel);
        stream_shared<Bytes, unit>(from.at(i), to.at(i), end - i, k, next, distance, all, place.stream);
        i += unit;
        k = next;
      }
      place.i = i;
      place.channel = channel;
      if (i >= place.end_of_lines) {
        end_image<Bytes>();
        left -= line;  // for its ends
      }
    }
  }

  /// The first line of the image, unless it is a whole one.
  template <int Bytes>
  BATCHNORM_INLINE void begin_image() {
    constexpr std::int64_t line = line_of<T>;
    const Out to = out.at(place.image, out_batch_stride);
    const std::int64_t n = channels * length;
    place.is_inside = true;
    place.stream = Stream(bits, first_bit + place.image * batch_bits);
    place.i = (std::min)(to_next_line(to.p[0]), n);
    place.end_of_lines = place.i + (n - place.i) / line * line;
    place.channel = 0;
    store_part<Bytes>(in.at(place.image, in_batch_stride), to, 0, place.i, K<Bytes>::of_channel(coefficients, 0), place.stream);
  }

  /// After the last whole line of the image.
  template <int Bytes>
  BATCHNORM_INLINE void end_image() {
    const In from = in.at(place.image, in_batch_stride);
    const Out to = out.at(place.image, out_batch_stride);
    for (std::int64_t i = place.i; i < channels * length;) {
      const std::int64_t channel = i / length, end = (channel + 1) * length;
      store_part<Bytes>(from, to, i, end, K<Bytes>::of_channel(coefficients, channel), place.stream);
      i = end;
    }
    place.stream.finish();
    place.is_inside = false;
    ++place.image;
  }

  /// [first, last) of the run, at most a line, stored in part.
  template <int Bytes>
  BATCHNORM_INLINE void store_part(const In& from, const Out& to, std::int64_t first, std::int64_t last, const K<Bytes>& k,
                                   Stream& stream) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    for (std::int64_t i = first; i < last; i += lanes) {
      const std::int64_t count = (std::min)(lanes, last - i);
      Step<Bytes> step;
      step.load_part(from.at(i), count);
      const std::uint32_t written = step.apply(operation, k, stream.take());
      step.store_part(operation, to.at(i), count);
      stream.put(written & low_bits(count), count);
    }
  }

  template <int Bytes, std::int64_t Count>
  BATCHNORM_INLINE void stream_vectors(const In& from, const Out& to, const K<Bytes>& k, std::int64_t distance, bool all,
                                       Stream& stream) const {
    prefetch_line(from, distance);
    Several<Bytes, Count> step;
    step.load_whole(from);
    const std::uint32_t written = step.apply(operation, k, stream.take());
    step.stream_whole(operation, to, all);
    stream.put(written, Count);
  }

  /// The same where the elements from number `own` on are the next channel's.
  template <int Bytes, std::int64_t Count>
  BATCHNORM_INLINE void stream_shared(const In& from, const Out& to, std::int64_t own, const K<Bytes>& k, const K<Bytes>& next,
                                      std::int64_t distance, bool all, Stream& stream) const {
    constexpr int vectors = static_cast<int>(Count / lanes_of<Bytes, T>);
    using V = typename Step<Bytes>::V;
    K<Bytes> both[vectors];
    BATCHNORM_UNROLL
    for (int v = 0; v < vectors; ++v) both[v] = K<Bytes>::blend(lanes_from<V>(own - v * V::lanes), next, k);
    prefetch_line(from, distance);
    VectorStep<Bytes, T, Operation, vectors> step;
    step.load_whole(from);
    const std::uint32_t written = step.apply(operation, both, stream.take());
    step.stream_whole(operation, to, all);
    stream.put(written, Count);
  }

  template <int Bytes>
  BATCHNORM_INLINE void store_channel(std::int64_t image, std::int64_t channel) const {
    constexpr std::int64_t lanes = lanes_of<Bytes, T>;
    constexpr std::int64_t line = line_of<T>, group = (std::max)(4 * lanes, line);
    const In from = in.at(image, in_batch_stride).at(channel, in_stride);
    const Out to = out.at(image, out_batch_stride).at(channel, out_stride);
    const auto k = K<Bytes>::of_channel(coefficients, channel);
    Stream stream(bits, first_bit + image * batch_bits + channel * channel_bits);
    if (length < lanes) {
      Step<Bytes> step;
      step.load_part(from, length);
      const std::uint32_t written = step.apply(operation, k, stream.take());
      step.store_part(operation, to, length);
      stream.put(written & low_bits(length), length);
      return stream.finish();
    }
    // An output may be an input: what the last, overlapping vector needs is read before anything is written.
    const std::int64_t last = length - lanes;
    Step<Bytes> last_step;
    last_step.load_whole(from.at(last));
    std::int64_t i = 0;
    for (; i + group <= length; i += group) {
      for (std::int64_t v = 0; v < group; v += line) prefetch_line(from.at(i + v), operation_distance<T>);
      BATCHNORM_UNROLL
      for (std::int64_t v = 0; v < group; v += line) store_vectors<Bytes, line>(from.at(i + v), to.at(i + v), k, stream);
    }
    for (; i + lanes <= length; i += lanes) store_vectors<Bytes, lanes>(from.at(i), to.at(i), k, stream);
    if (i < length) {
      const std::int64_t done = i - last;  // lanes that the vector before has stored
      const std::uint32_t written = last_step.apply(operation, k, stream.take(done));
      last_step.store_whole(operation, to.at(last));
      stream.put(written >> done, length - i);
    }
    stream.finish();
  }

  template <int Bytes, std::int64_t Count>
  BATCHNORM_INLINE void store_vectors(const In& from, const Out& to, const K<Bytes>& k, Stream& stream) const {
    Several<Bytes, Count> step;
    step.load_whole(from);
    const std::uint32_t written = step.apply(operation, k, stream.take());
    step.store_whole(operation, to);
    stream.put(written, Count);
  }

  static BATCHNORM_INLINE void prefetch_line(const In& from, std::int64_t distance) {
    BATCHNORM_UNROLL
    for (int j = 0; j < inputs; ++j) prefetch_near(from.p[j] + distance);
  }

  static constexpr std::uint32_t low_bits(std::int64_t count) { return (1U << count) - 1; }
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
