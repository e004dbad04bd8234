// SPDX-License-Identifier: MIT
#include "fingerprint_problem.hpp"

#include <array>
#include <charconv>
#include <functional>
#include <iterator>

namespace support::fingerprint {

namespace {

template <class List>
auto pick(Random& random, const List& list) {
  return list[static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(std::size(list)) - 1))];
}

Sizes small_sizes(Random& random) {
  constexpr std::int64_t images[] = {1, 2, 3, 4, 7, 8, 9, 12, 16, 17, 32, 33};
  constexpr std::int64_t channels[] = {1, 2, 3, 5, 16, 17, 64, 100, 512};
  constexpr std::int64_t planes[] = {1, 1, 3, 8, 15, 49, 127, 128, 129, 196, 512, 1000, 3000};
  while (true) {
    const Sizes sizes{pick(random, images), pick(random, channels), pick(random, planes)};
    if (sizes.n * sizes.c * sizes.s <= 24000) return sizes;
  }
}

/// Enough for several groups of channels and several blocks, and with the machine's own tuning for streaming stores.
Sizes large_sizes(Random& random) {
  constexpr Sizes all[] = {{4, 64, 1024}, {16, 17, 1000}, {8, 512, 49},  {33, 64, 196},  {16, 512, 49}, {2, 3, 60000},
                           {32, 5, 3000}, {17, 3, 9000},  {33, 512, 15}, {1, 16, 20000}, {33, 100, 129}};
  return pick(random, all);
}

/// The axes of a shape from the innermost in memory to the outermost.
std::vector<int> memory_order(int rank, int channel, Memory memory, bool batch_inside) {
  std::vector<int> order;
  for (int axis = rank - 1; axis > 0; --axis) {
    if (axis != channel) order.push_back(axis);
  }
  if (memory == Memory::rows) order.insert(order.begin(), channel);
  if (memory == Memory::planes && !batch_inside) order.push_back(channel);
  order.push_back(0);
  if (memory == Memory::planes && batch_inside) order.push_back(channel);
  return order;
}

Layout random_layout(Random& random, const Shape& shape, const std::vector<int>& order) {
  Layout layout;
  const bool has_gaps = random.integer(1, 3) == 1;
  // Kinds of gaps: one at a single axis (between rows of pictures, channels, or images, whatever that axis is), or everywhere.
  const std::int64_t where = random.integer(0, shape.rank());
  std::int64_t stride = 1;
  for (std::size_t k = 0; k < order.size(); ++k) {
    layout.strides[static_cast<std::size_t>(order[k])] = stride;
    stride *= shape[order[k]];
    if (has_gaps && (where == shape.rank() || static_cast<std::size_t>(where) == k)) {
      stride += 3 + static_cast<std::int64_t>(k);
    }
  }
  layout.first = has_gaps ? 3 : 0;
  layout.size = stride + layout.first;
  return layout;
}

/// body(place in the buffer, channel) in memory order.
template <class Body>
void for_each_in_memory(const Shape& shape, const Layout& layout, const std::vector<int>& order, int channel_axis,
                        const Body& body) {
  const std::function<void(std::size_t, std::int64_t, std::int64_t)> walk = [&](std::size_t depth, std::int64_t place,
                                                                                std::int64_t channel) {
    const int axis = order[depth - 1];
    const std::int64_t stride = layout.strides[static_cast<std::size_t>(axis)];
    for (std::int64_t i = 0; i < shape[axis]; ++i, place += stride) {
      const std::int64_t c = axis == channel_axis ? i : channel;
      if (depth == 1) {
        body(static_cast<std::size_t>(place), c);
      } else {
        walk(depth - 1, place, c);
      }
    }
  };
  walk(order.size(), layout.first, 0);
}

/// In [low, low + 4), on a grid of 2^-50: the sum is exact, so that it is the same with and without FMA.
double from(Random& random, double low) { return low + static_cast<double>(random.bits() >> 12) * 0x1p-50; }

/// A tensor whose channels have values from 4 wide ranges, channel c from lows[c mod their number] on.
template <class T>
std::vector<T> random_tensor(Random& random, const Shape& shape, const Layout& layout, const std::vector<int>& order,
                             int channel_axis, const std::vector<double>& lows) {
  std::vector<double> low;  // by channel: a division for each element would take most of the time
  for (std::int64_t c = 0; c < shape[channel_axis]; ++c) low.push_back(lows[static_cast<std::size_t>(c) % lows.size()]);
  std::vector<T> buffer(static_cast<std::size_t>(layout.size), element<T>(unwritten));
  for_each_in_memory(shape, layout, order, channel_axis, [&](std::size_t place, std::int64_t channel) {
    buffer[place] = element<T>(from(random, low[static_cast<std::size_t>(channel)]));
  });
  return buffer;
}

std::vector<std::uint8_t> random_mask(Random& random, const Shape& shape) {
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(batchnorm::mask_bytes(shape)));
  for (std::uint8_t& byte : mask) byte = static_cast<std::uint8_t>(random.bits() >> 56);
  const auto bits = static_cast<unsigned>(batchnorm::element_count(shape) % 8);
  if (bits != 0) mask.back() = static_cast<std::uint8_t>(mask.back() & ((1U << bits) - 1));
  return mask;
}

std::string text_of(const Layout& layout, int rank) {
  std::string text;
  for (int axis = 0; axis < rank; ++axis) {
    text += (axis == 0 ? "" : ",") + std::to_string(layout.strides[static_cast<std::size_t>(axis)]);
  }
  return text;
}

std::string text_of(double value) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

}  // namespace

template <class T, class P>
Problem<T, P> random_problem(Random& random, Memory memory, bool is_large) {
  const Sizes sizes = is_large ? large_sizes(random) : small_sizes(random);
  const int rank = static_cast<int>(random.integer(sizes.s == 1 ? 2 : 3, 5));
  // One in four goes by the name of the other format.
  const bool is_renamed = random.integer(1, 4) == 1;
  Problem<T, P> p;
  p.format = (memory == Memory::planes) != is_renamed ? Format::NCHW : Format::NHWC;
  p.shape = shape_of(p.format, rank, sizes);
  const int channel_axis = p.format == Format::NCHW || rank == 2 ? 1 : rank - 1;
  const std::vector<int> order = memory_order(rank, channel_axis, memory, rank == 2 || random.integer(1, 6) == 1);
  p.in = random_layout(random, p.shape, order);
  p.out = random_layout(random, p.shape, order);
  const auto tensor = [&](const std::vector<double>& lows) {
    return random_tensor<T>(random, p.shape, p.in, order, channel_axis, lows);
  };
  p.x = tensor({-5, -3.5, -2, -0.5, 1});
  p.dy = tensor({-2.25, -2, -1.75});
  p.z = tensor({-2});
  const auto channels = [&](double low, double factor) {
    return filled<P>(sizes.c, [&] { return factor * from(random, low); });
  };
  p.scale = filled<P>(sizes.c, [&] {
    const double factor = random.integer(0, 1) == 0 ? -0.5 : 0.5;
    return factor * from(random, 1);
  });
  p.bias = channels(-2, 0.5);
  p.mean = channels(-2, 1);
  p.variance = channels(1, 0.5);
  p.mask = random_mask(random, p.shape);
  p.text = to_string(p.shape) + " " + std::string(to_string(p.format)) + " in:" + text_of(p.in, rank) +
           " out:" + text_of(p.out, rank);
  return p;
}

template <class T, class P>
void set_one(Problem<T, P>& problem, std::int64_t channel, T value) {
  const int rank = problem.shape.rank();
  const auto axis = static_cast<std::size_t>(problem.format == Format::NCHW || rank == 2 ? 1 : rank - 1);
  problem.x[static_cast<std::size_t>(problem.in.first + channel * problem.in.strides[axis])] = value;
}

batchnorm::Options random_options(Random& random, bool is_training) {
  constexpr double epsilons[] = {1e-5, 1e-3, 1.0}, momenta[] = {0.1, 0.1, 0.0, 1.0, 0.25};
  batchnorm::Options options{.is_training = is_training};
  options.epsilon = pick(random, epsilons);
  options.momentum = pick(random, momenta);
  if (random.integer(1, 3) == 1) options.running_variance = batchnorm::RunningVariance::biased;
  if (random.integer(1, 3) == 1) options.not_finite = batchnorm::NotFinite::keep;
  return options;
}

std::string text_of(const batchnorm::Options& options) {
  return std::string(options.is_training ? "training" : "inference") + " epsilon " + text_of(options.epsilon) + " momentum " +
         text_of(options.momentum) +
         (options.running_variance == batchnorm::RunningVariance::biased ? " biased" : " unbiased") +
         (options.not_finite == batchnorm::NotFinite::keep ? " keep" : " update");
}

#define SUPPORT_PROBLEMS(T, P)                                  \
  template Problem<T, P> random_problem(Random&, Memory, bool); \
  template void set_one(Problem<T, P>&, std::int64_t, T);

SUPPORT_PROBLEMS(float, float)
SUPPORT_PROBLEMS(float, batchnorm::half)
SUPPORT_PROBLEMS(batchnorm::half, float)
SUPPORT_PROBLEMS(batchnorm::half, batchnorm::half)
SUPPORT_PROBLEMS(batchnorm::bfloat16, float)
SUPPORT_PROBLEMS(batchnorm::bfloat16, batchnorm::bfloat16)
SUPPORT_PROBLEMS(double, double)

}  // namespace support::fingerprint
