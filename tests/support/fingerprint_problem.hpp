// SPDX-License-Identifier: MIT
#pragma once

#include <string>
#include <vector>

#include "calls.hpp"
#include "layouts.hpp"

// What the calls of the fingerprint tests read: shapes, memory layouts and values, drawn from a generator that gives the same
// on every platform.
namespace support::fingerprint {

/// What lies next to each other in memory: the values of a plane, or the channels of a position. Independent of the format,
/// which only names the axes.
enum class Memory { planes, rows };

/// The inputs of calls on one shape.
template <class T, class P>
struct Problem {
  Shape shape{};
  Format format = Format::NCHW;
  Layout in{}, out{};  ///< where inputs and outputs lie: the same order of axes, but gaps of their own
  std::vector<T> x{}, dy{};
  std::vector<T> z{};  ///< serves as a residual, as an output to take gradients through, and as ddx
  std::vector<P> scale{}, bias{}, mean{}, variance{};
  std::vector<std::uint8_t> mask{};
  std::string text{};

  std::int64_t channels() const { return static_cast<std::int64_t>(scale.size()); }
  batchnorm::TensorView<const T> view(const std::vector<T>& input) const {
    return {input.data() + in.first, shape, in.strides};
  }
  batchnorm::TensorView<T> view(std::vector<T>& buffer, const Layout& layout) const {
    return {buffer.data() + layout.first, shape, layout.strides};
  }
  std::vector<T> blank() const { return std::vector<T>(static_cast<std::size_t>(out.size), element<T>(unwritten)); }
  std::vector<P> blank_channels() const { return std::vector<P>(scale.size(), element<P>(unwritten)); }
};

/// Values of order 1, x with an offset per channel. |scale| is at least 1/2. One layout in three has gaps. A large problem has
/// 0.2 to 0.5 million elements, others up to 24000.
template <class T, class P>
Problem<T, P> random_problem(Random& random, Memory memory, bool is_large);

/// Sets one element of x in a channel.
template <class T, class P>
void set_one(Problem<T, P>& problem, std::int64_t channel, T value);

batchnorm::Options random_options(Random& random, bool is_training);
std::string text_of(const batchnorm::Options& options);

}  // namespace support::fingerprint
