// SPDX-License-Identifier: MIT
#pragma once

// What kernels work on, and the two kinds of work: sums over channels, and operations on single elements. A kernel knows how to
// walk; what is computed on the way is a policy.
//
// A Summation has
//   inputs, constants, factors, sums     how many tensors it reads, constants a channel has, factors and sums it forms
//   reads_bits                           whether it needs a bit per element
//   void form(const V (&in)[inputs], const V (&constant)[constants], const MaskOf<V>& passes, V (&factor)[factors]) const
//   void add(const V (&factor)[factors], V (&sum)[sums]) const        all sums are unchanged where the factors are 0
//   void add_two(const V (&a)[factors], const V (&b)[factors], V (&sum)[sums], V (&other)[sums]) const
//                                        optional: a to one or both sums, and b, in less time than one by one
//   void open(const V (&constant)[constants], V (&sum)[sums]) const   optional: before factors are added to sums, and
//   void close(const V (&constant)[constants], V (&sum)[sums]) const  afterwards: sums that are closed can be added up
// and an Operation
//   inputs, outputs, coefficients
//   prefetched                           the first so many inputs are prefetched ahead of time, where there is a next
//   bits                                 whether it reads or writes a bit per element
//   void operator()(const V (&in)[inputs], const V (&k)[coefficients], const MaskOf<V>& passes, V (&out)[outputs]) const
//   MaskOf<V> passes(const V& y) const   the bits that it writes, of its first output
//   bool stores(int j) const             optional: whether output j is wanted; one that is not has the address of another
// V is a vec of double in sums, of the computing type in operations.

#include <algorithm>

#include <batchnorm/kernel/arguments.hpp>
#include <batchnorm/vector/elements.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

enum class Bits { none, read, written };

/// Constants of channels or positions in the computing type: one array each.
template <class Compute, int Count>
struct Coefficients {
  Compute* array[Count];

  Coefficients() = default;
  BATCHNORM_INLINE explicit Coefficients(const CoefficientArrays& arrays) noexcept {
    BATCHNORM_UNROLL
    for (int j = 0; j < Count; ++j) array[j] = static_cast<Compute*>(arrays[static_cast<std::size_t>(j)]);
  }

  BATCHNORM_INLINE Coefficients at(std::int64_t c) const noexcept {
    Coefficients result;
    BATCHNORM_UNROLL
    for (int j = 0; j < Count; ++j) result.array[j] = array[j] + c;
    return result;
  }
};

/// The same for the lanes of a vector.
template <class V, int Count>
struct VectorCoefficients {
  V k[Count];

  template <class Compute>
  static BATCHNORM_INLINE VectorCoefficients of_channel(const Coefficients<Compute, Count>& c, std::int64_t i) {
    VectorCoefficients result;
    BATCHNORM_UNROLL
    for (int j = 0; j < Count; ++j) result.k[j] = V::broadcast(c.array[j][i]);
    return result;
  }
  template <class Compute>
  static BATCHNORM_INLINE VectorCoefficients of_positions(const Coefficients<Compute, Count>& c, std::int64_t i) {
    VectorCoefficients result;
    BATCHNORM_UNROLL
    for (int j = 0; j < Count; ++j) result.k[j] = V::load(c.array[j] + i);
    return result;
  }
  template <class M>
  static BATCHNORM_INLINE VectorCoefficients blend(const M& mask, const VectorCoefficients& a, const VectorCoefficients& b) {
    VectorCoefficients result;
    BATCHNORM_UNROLL
    for (int j = 0; j < Count; ++j) result.k[j] = select(mask, a.k[j], b.k[j]);
    return result;
  }
};

/// The arrays of a block's sums, as many as the Summation has.
template <class Summation>
struct ArraysOf {
  double* constant[Summation::constants];
  double* sum[Summation::sums];

  BATCHNORM_INLINE explicit ArraysOf(const SumArrays& arrays) noexcept {
    BATCHNORM_UNROLL
    for (std::size_t k = 0; k < Summation::constants; ++k) constant[k] = arrays.constant[k];
    BATCHNORM_UNROLL
    for (std::size_t k = 0; k < Summation::sums; ++k) sum[k] = arrays.sum[k];
  }
  BATCHNORM_INLINE ArraysOf at(std::int64_t c) const noexcept {
    ArraysOf result = *this;
    BATCHNORM_UNROLL
    for (std::size_t k = 0; k < Summation::constants; ++k) result.constant[k] += c;
    BATCHNORM_UNROLL
    for (std::size_t k = 0; k < Summation::sums; ++k) result.sum[k] += c;
    return result;
  }
};

/// Whether a Summation has `add_two`. Not in the place where it is asked: nvcc 13 stumbles over that.
template <class Summation, class V>
concept AddsTwo = requires(const Summation& summation, const V (&factor)[Summation::factors], V (&sum)[Summation::sums]) {
  summation.add_two(factor, factor, sum, sum);
};

/// Factors a to `sum` and b to `other`, which may be the same.
template <class Summation, class V>
BATCHNORM_INLINE void add_two(const Summation& summation, const V (&a)[Summation::factors], const V (&b)[Summation::factors],
                              V (&sum)[Summation::sums], V (&other)[Summation::sums]) {
  if constexpr (AddsTwo<Summation, V>) {
    summation.add_two(a, b, sum, other);
  } else {
    summation.add(a, sum);
    summation.add(b, other);
  }
}

/// Before factors are added to sums, and afterwards, where the Summation has something to do there.
template <class Summation, class V>
BATCHNORM_INLINE void open_sums(const Summation& summation, const V (&constant)[Summation::constants],
                                V (&sum)[Summation::sums]) {
  if constexpr (requires { summation.open(constant, sum); }) summation.open(constant, sum);
}
template <class Summation, class V>
BATCHNORM_INLINE void close_sums(const Summation& summation, const V (&constant)[Summation::constants],
                                 V (&sum)[Summation::sums]) {
  if constexpr (requires { summation.close(constant, sum); }) summation.close(constant, sum);
}

/// The first strides of an untyped array.
template <std::size_t Count, std::size_t Most>
BATCHNORM_INLINE void copy_strides(const std::array<std::int64_t, Most>& from, std::int64_t (&to)[Count]) noexcept {
  BATCHNORM_UNROLL
  for (std::size_t j = 0; j < Count; ++j) to[j] = from[j];
}

/// Pointers to the same element of several tensors.
template <class T, int Count>
struct Pointers {
  T* p[Count];

  template <class Untyped>
  static BATCHNORM_INLINE Pointers of(const Untyped& pointers) noexcept {
    Pointers result;
    BATCHNORM_UNROLL
    for (int j = 0; j < Count; ++j) result.p[j] = reinterpret_cast<T*>(pointers[static_cast<std::size_t>(j)]);
    return result;
  }

  BATCHNORM_INLINE Pointers at(std::int64_t i) const {
    Pointers result = *this;
    BATCHNORM_UNROLL
    for (int j = 0; j < Count; ++j) result.p[j] += i;
    return result;
  }
  /// `index` strides on, each tensor by its own.
  BATCHNORM_INLINE Pointers at(std::int64_t index, const std::int64_t (&stride)[Count]) const {
    Pointers result = *this;
    BATCHNORM_UNROLL
    for (int j = 0; j < Count; ++j) result.p[j] += index * stride[j];
    return result;
  }
};

/// Whether output j of an operation is wanted.
template <class Operation>
BATCHNORM_INLINE bool stores(const Operation& operation, int j) {
  if constexpr (requires { operation.stores(j); }) return operation.stores(j);
  return true;
}

/// An element-wise step on `Count` vectors of adjacent elements: loads, computes, and hands on what is to be stored. Operations
/// that read bits find those of the elements from bit 0 of `bits` on; those that write them get them back. `in_order`: lanes
/// stand for elements in memory order, as bits and coefficients of positions do.
template <int Bytes, Element T, class Operation, int Count = 1, bool in_order = true>
struct VectorStep {
  using V = vec<compute_t<T>, Bytes>;
  using In = Pointers<const T, Operation::inputs>;
  using Out = Pointers<T, Operation::outputs>;
  using K = VectorCoefficients<V, Operation::coefficients>;
  static constexpr int lanes = V::lanes;

  V in[Operation::inputs][Count];
  V out[Operation::outputs][Count];

  BATCHNORM_INLINE void load_whole(const In& from) {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::inputs; ++j) load<in_order, T>(in[j], from.p[j]);
  }
  BATCHNORM_INLINE void load_part(const In& from, std::int64_t count) {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::inputs; ++j) in[j][0] = load_first<Bytes>(from.p[j], count);
  }
  /// With the same coefficients for all elements.
  BATCHNORM_INLINE std::uint32_t apply(const Operation& operation, const K& k, std::uint32_t bits) {
    std::uint32_t written = 0;
    BATCHNORM_UNROLL
    for (int v = 0; v < Count; ++v) written |= apply_to(v, operation, k, bits >> (v * lanes)) << (v * lanes);
    return written;
  }
  BATCHNORM_INLINE std::uint32_t apply(const Operation& operation, const K (&k)[Count], std::uint32_t bits) {
    std::uint32_t written = 0;
    BATCHNORM_UNROLL
    for (int v = 0; v < Count; ++v) written |= apply_to(v, operation, k[v], bits >> (v * lanes)) << (v * lanes);
    return written;
  }
  BATCHNORM_INLINE void store_whole(const Operation& operation, const Out& to) const {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::outputs; ++j) {
      if (stores(operation, j)) store<in_order, false>(to.p[j], out[j]);
    }
  }
  /// Non-temporal stores of the first output, whose address is aligned to what a step stores; of the others if theirs are as
  /// well (`all`).
  BATCHNORM_INLINE void stream_whole(const Operation& operation, const Out& to, bool all) const {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::outputs; ++j) {
      if (!stores(operation, j)) continue;
      if (j == 0 || all) {
        store<in_order, true>(to.p[j], out[j]);
      } else {
        store<in_order, false>(to.p[j], out[j]);
      }
    }
  }
  BATCHNORM_INLINE void store_part(const Operation& operation, const Out& to, std::int64_t count) const {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::outputs; ++j) {
      if (stores(operation, j)) store_first<Bytes>(to.p[j], out[j][0], count);
    }
  }

 private:
  BATCHNORM_INLINE std::uint32_t apply_to(int v, const Operation& operation, const K& k, std::uint32_t bits) {
    V from[Operation::inputs], to[Operation::outputs];
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::inputs; ++j) from[j] = in[j][v];
    if constexpr (Operation::bits == Bits::read) {
      operation(from, k.k, mask_of<V>(bits), to);
    } else {
      operation(from, k.k, MaskOf<V>{}, to);
    }
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::outputs; ++j) out[j][v] = to[j];
    if constexpr (Operation::bits == Bits::written) return bits_of<V>(operation.passes(rounded<T>(to[0])));
    return 0;
  }
};

/// Elements from p to the next cache line.
template <Element T>
std::int64_t to_next_line(const T* p) noexcept {
  const auto past = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(p) % 64 / sizeof(T));
  return past == 0 ? 0 : line_of<T> - past;
}

/// Whether all outputs stand at the same place of a cache line.
template <Element T, int Count>
BATCHNORM_INLINE bool are_aligned_alike(const Pointers<T, Count>& out) {
  bool alike = true;
  for (int j = 1; j < Count; ++j) alike = alike && to_next_line(out.p[j]) == to_next_line(out.p[0]);
  return alike;
}

/// The bits of a run of elements, read or written in order.
template <class Operation, Bits bits = Operation::bits>
class BitStream {
 public:
  BitStream() = default;
  BATCHNORM_INLINE BitStream(const BitsAt&, std::int64_t) {}

  /// The bits of the elements from `back` before the next one on, 32 where there are so many.
  BATCHNORM_INLINE std::uint32_t take(std::int64_t = 0) const { return 0; }
  /// Goes on by `count` elements, whose bits, where they are written, are these.
  BATCHNORM_INLINE void put(std::uint32_t, std::int64_t) {}
  BATCHNORM_INLINE void finish() {}

  void resume(const Progress&) noexcept {}
  void save(Progress&) const noexcept {}
};

template <class Operation>
class BitStream<Operation, Bits::read> {
 public:
  BitStream() = default;
  BATCHNORM_INLINE BitStream(const BitsAt& at, std::int64_t first) : reader_(at.read, at.elements), next_(first) {}

  BATCHNORM_INLINE std::uint32_t take(std::int64_t back = 0) const { return reader_.at(next_ - back); }
  BATCHNORM_INLINE void put(std::uint32_t, std::int64_t count) { next_ += count; }
  BATCHNORM_INLINE void finish() {}

  void resume(const Progress& from) noexcept { reader_ = from.reader, next_ = from.next_bit; }
  void save(Progress& to) const noexcept { to.reader = reader_, to.next_bit = next_; }

 private:
  BitReader reader_;
  std::int64_t next_ = 0;
};

template <class Operation>
class BitStream<Operation, Bits::written> {
 public:
  BitStream() = default;
  BATCHNORM_INLINE BitStream(const BitsAt& at, std::int64_t first) : writer_(at.written, first) {}

  BATCHNORM_INLINE std::uint32_t take(std::int64_t = 0) const { return 0; }
  BATCHNORM_INLINE void put(std::uint32_t bits, std::int64_t count) { writer_.add(bits, static_cast<int>(count)); }
  BATCHNORM_INLINE void finish() { writer_.finish(); }

  void resume(const Progress& from) noexcept { writer_ = from.writer; }
  void save(Progress& to) const noexcept { to.writer = writer_; }

 private:
  BitWriter writer_;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
