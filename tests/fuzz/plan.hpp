// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <batchnorm/batchnorm.hpp>

#include "memory.hpp"

// What one case is about, drawn from its seed.
namespace fuzz {

/// What is called.
enum class Kind { forward, pieces, backward, gradient_pieces, double_backward, in_place, overlap, refusal };
inline constexpr int kinds = 8;
const char* name_of(Kind kind);

/// How the values of a channel are distributed.
enum class Data { normal, offset_1e3, offset_1e6, constant, two_level, outlier, subnormal, integers, scaled };
inline constexpr int data_kinds = 9;
const char* name_of(Data data);

/// Which elements lie next to each other.
enum class Memory {
  rows,   ///< the channels of a position
  planes  ///< the values along the last spatial axis
};

/// How a call is run; it changes no bit of the result.
struct Way {
  int threads = 1;
  int tuning = 0;  ///< 0: the machine's, otherwise a number of support::tunings()
  Flush flush = Flush::begin;
};
Way draw_way(Random& random);

/// The call's options for that way, which live as long as the program.
batchnorm::CallOptions options_of(const Way& way, std::int64_t batch_number = 0);

struct Plan {
  std::uint64_t seed = 0;
  Kind kind = Kind::forward;
  int types = 0;  ///< a number of a pair of an element and a parameter type
  Isa isa = Isa::baseline;
  Shape shape;
  Format format = Format::NCHW;
  Memory memory = Memory::planes;
  bool natural_order = true;  ///< the axes but the innermost follow each other as in a dense tensor
  bool has_gaps = false, runs_backwards = false, broadcasts = false;
  batchnorm::Options options;
  std::int64_t batch_number = 0;
  Data x = Data::normal, dy = Data::normal;
  Way way, other_way;

  Extents extents() const { return support::extents(shape, format); }
  int channel_axis() const { return format == Format::NCHW || shape.rank() == 2 ? 1 : shape.rank() - 1; }

  /// The momentum of a call with these options.
  double momentum() const { return batch_number == 0 ? options.momentum : 1 / static_cast<double>(batch_number); }
};

/// What a run of the fuzzer is restricted to.
struct Restriction {
  std::optional<Isa> isa;
  std::optional<Kind> kind;
  std::optional<int> types;
};

Plan draw_plan(std::uint64_t seed, const Restriction& restriction);
std::string text_of(const Plan& plan);

/// The layout of one tensor of the call; those of one call differ in their gaps and directions. An input may have several
/// elements in one place.
Layout draw_layout(Random& random, const Plan& plan, bool is_input);

/// Dense values of the shape of x: those of that layout, where some share one place.
template <class T>
std::vector<T> settled(std::vector<T> dense, const Shape& shape, const Layout& layout) {
  std::vector<T> buffer(static_cast<std::size_t>(layout.size));
  for_each_place(shape, layout, [&](std::size_t i, std::size_t place) { buffer[place] = dense[i]; });
  for_each_place(shape, layout, [&](std::size_t i, std::size_t place) { dense[i] = buffer[place]; });
  return dense;
}

/// The place of each element (in the order of the shape) in a mask.
std::vector<std::size_t> mask_order(const Plan& plan);

}  // namespace fuzz
