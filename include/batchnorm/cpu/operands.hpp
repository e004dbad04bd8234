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
// and an Operation
//   inputs, outputs, coefficients
//   prefetched                           the first so many inputs are brought to the cache ahead of time, where there is a next
//   bits                                 whether it reads or writes a bit per element
//   void operator()(const V (&in)[inputs], const V (&k)[coefficients], const MaskOf<V>& passes, V (&out)[outputs]) const
//   MaskOf<V> passes(const V& y) const   the bits that it writes, of its first output
//   bool stores(int j) const             optional: whether output j is wanted; one that is not has the address of another
// V is a vec of double in sums, of the computing type in operations.

#include <batchnorm/cpu/bits.hpp>
#include <batchnorm/cpu/elements.hpp>

namespace batchnorm::inline BATCHNORM_KERNELS::cpu {

enum class Bits { none, read, written };

/// Constants of channels or positions in the computing type: one array each.
template <class Compute, int Count>
struct Coefficients {
  Compute* array[Count];

  Coefficients at(std::int64_t c) const noexcept {
    Coefficients result = *this;
    for (Compute*& p : result.array) p += c;
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

/// Per-channel arrays of a block's sums: the constants that the terms are formed with, and the sums.
template <class Summation>
struct SumArrays {
  double* constant[Summation::constants];
  double* sum[Summation::sums];

  static constexpr int count = Summation::constants + Summation::sums;

  /// `count` arrays of `stride` doubles.
  static SumArrays in(double* memory, std::int64_t stride) noexcept {
    SumArrays result;
    for (double*& p : result.constant) p = memory, memory += stride;
    for (double*& p : result.sum) p = memory, memory += stride;
    return result;
  }
  SumArrays at(std::int64_t c) const noexcept {
    SumArrays result = *this;
    for (double*& p : result.constant) p += c;
    for (double*& p : result.sum) p += c;
    return result;
  }
};

/// Pointers to the same element of several tensors.
template <class T, int Count>
struct Pointers {
  T* p[Count];

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

/// An element-wise step on one vector: loads, computes, and hands on what is to be stored. Operations that read bits find those
/// of the vector from bit 0 of `bits` on; those that write them get them back.
template <int Bytes, Element T, class Operation>
struct VectorStep {
  using V = vec<compute_t<T>, Bytes>;
  using In = Pointers<const T, Operation::inputs>;
  using Out = Pointers<T, Operation::outputs>;
  using K = VectorCoefficients<V, Operation::coefficients>;
  static constexpr int lanes = V::lanes;

  V in[Operation::inputs];
  V out[Operation::outputs];

  BATCHNORM_INLINE void load_whole(const In& from) {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::inputs; ++j) in[j] = load<Bytes>(from.p[j]);
  }
  BATCHNORM_INLINE void load_part(const In& from, std::int64_t count) {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::inputs; ++j) in[j] = load_first<Bytes>(from.p[j], count);
  }
  BATCHNORM_INLINE std::uint32_t apply(const Operation& operation, const K& k, std::uint32_t bits) {
    if constexpr (Operation::bits == Bits::read) {
      operation(in, k.k, mask_of<V>(bits), out);
    } else {
      operation(in, k.k, MaskOf<V>{}, out);
    }
    if constexpr (Operation::bits == Bits::written) return bits_of<V>(operation.passes(rounded<T>(out[0])));
    return 0;
  }
  BATCHNORM_INLINE void store_whole(const Operation& operation, const Out& to) const {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::outputs; ++j) {
      if (stores(operation, j)) store<Bytes>(to.p[j], out[j]);
    }
  }
  /// The first output goes past the caches, its address aligned to a vector; the others too if theirs are as well (`all`).
  BATCHNORM_INLINE void stream_whole(const Operation& operation, const Out& to, bool all) const {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::outputs; ++j) {
      if (!stores(operation, j)) continue;
      if (j == 0 || all) {
        stream<Bytes>(to.p[j], out[j]);
      } else {
        store<Bytes>(to.p[j], out[j]);
      }
    }
  }
  BATCHNORM_INLINE void store_part(const Operation& operation, const Out& to, std::int64_t count) const {
    BATCHNORM_UNROLL
    for (int j = 0; j < Operation::outputs; ++j) {
      if (stores(operation, j)) store_first<Bytes>(to.p[j], out[j], count);
    }
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

/// Where the bits of an operation are; null where it has none.
struct BitsAt {
  const unsigned char* read = nullptr;
  unsigned char* written = nullptr;
  std::int64_t elements = 0;
};

/// The bits of a run of elements, read or written in order.
template <class Operation>
class BitStream {
 public:
  BitStream() = default;
  BATCHNORM_INLINE BitStream(const BitsAt& at, std::int64_t first) : next_(first) {
    if constexpr (Operation::bits == Bits::read) reader_ = BitReader(at.read, at.elements);
    if constexpr (Operation::bits == Bits::written) writer_ = BitWriter(at.written, first);
  }

  /// The bits of the elements from `back` before the next one on, 32 where there are so many.
  BATCHNORM_INLINE std::uint32_t take(std::int64_t back = 0) const {
    if constexpr (Operation::bits == Bits::read) return reader_.at(next_ - back);
    return 0;
  }
  /// Goes on by `count` elements, whose bits, where they are written, are these.
  BATCHNORM_INLINE void put(std::uint32_t bits, std::int64_t count) {
    if constexpr (Operation::bits == Bits::written) writer_.add(bits, static_cast<int>(count));
    if constexpr (Operation::bits == Bits::read) next_ += count;
  }
  BATCHNORM_INLINE void finish() {
    if constexpr (Operation::bits == Bits::written) writer_.finish();
  }

 private:
  BitReader reader_;
  BitWriter writer_;
  std::int64_t next_ = 0;
};

}  // namespace batchnorm::inline BATCHNORM_KERNELS::cpu
