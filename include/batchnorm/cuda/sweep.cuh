// SPDX-License-Identifier: MIT
#pragma once

// Operations on each element, with the coefficients of its channel, in memory order. An operation has
//
//   coefficients                                            how many a channel has
//   Inputs load(a, first, begin, end, aligned)              the elements of a chunk, of every tensor that it reads
//   apply(inputs, k, coefficient, outputs)                  what becomes of element k of the chunk
//   store(a, outputs, first, begin, end, aligned)           all lanes of the warp take part

#include <batchnorm/cuda/channels.cuh>

namespace batchnorm::cuda {

template <class R>
BATCHNORM_DEVICE R activated(const ActivationOf<R>& activation, R z) {
  using A = ActivationOf<R>;
  if (activation.kind == A::relu) return z <= 0 ? 0 : z;
  if (activation.kind == A::leaky_relu) return z < 0 ? z * activation.slope : z;
  return z;
}

/// Every lane has the bits of `size` elements of a mask, those of its own chunk, whose first element is `first`; lanes side by
/// side have chunks side by side. Stores whole bytes, where `is_inside`.
template <int size, class Accelerator>
BATCHNORM_DEVICE void store_bits(Accelerator& a, std::uint8_t* mask, unsigned bits, std::int64_t first, bool is_inside) {
  const int lane = a.thread_rank() % warp_size;
  BATCHNORM_UNROLLED
  for (int have = size; have < 8; have *= 2) {
    const unsigned other = a.shuffle_xor(bits, have / size);
    bits |= other << have;  // garbage above in lanes that store nothing
  }
  if (is_inside && lane % (8 / size) == 0) mask[first / 8] = static_cast<std::uint8_t>(bits);
}

/// y = activation((x - center) * factor + offset [+ residual]), and the mask of the elements where y > 0 or NaN.
template <class T>
struct Normalization {
  static constexpr int coefficients = 3;
  using R = Compute<T>;
  struct Inputs {
    Elements<T> x, residual;
  };
  struct Outputs {
    Elements<T> y;
    unsigned bits = 0;
  };

  const T* x;
  const T* residual;  ///< or null
  T* y;
  std::uint8_t* mask;  ///< or null
  ActivationOf<R> activation;

  template <class Accelerator>
  BATCHNORM_DEVICE Inputs load(Accelerator& a, std::int64_t first, std::int64_t begin, std::int64_t end, bool aligned) const {
    Inputs in{load_elements<T, true>(a, x, first, begin, end, aligned), {}};
    load_rest(a, in, first, begin, end, aligned);
    return in;
  }
  /// All but x.
  template <class Accelerator>
  BATCHNORM_DEVICE void load_rest(Accelerator& a, Inputs& in, std::int64_t first, std::int64_t begin, std::int64_t end,
                                  bool aligned) const {
    if (residual != nullptr) in.residual = load_elements<T, true>(a, residual, first, begin, end, aligned);
  }
  BATCHNORM_DEVICE void apply(const Inputs& in, int k, const R (&coefficient)[coefficients], Outputs& out) const {
    R z = fused(widen(in.x.at[k]) - coefficient[0], coefficient[1], coefficient[2]);
    if (residual != nullptr) z += widen(in.residual.at[k]);
    out.y.at[k] = narrow<T>(activated(activation, z));
    if (mask != nullptr) out.bits |= (widen(out.y.at[k]) <= 0 ? 0U : 1U) << k;
  }
  template <class Accelerator>
  BATCHNORM_DEVICE void store(Accelerator& a, const Outputs& out, std::int64_t first, std::int64_t begin, std::int64_t end,
                              bool aligned) const {
    store_elements(a, y, out.y, first, begin, end, aligned);
    if (mask != nullptr) store_bits<chunk_size<T>>(a, mask, out.bits, first, first < end);
  }
};

/// dx = a * (dz - mean_dz) + (b * (x - center) + c) in training, a * dz in inference; dz where it is asked for.
template <class T>
struct InputGradient {
  static constexpr int coefficients = 5;
  using R = Compute<T>;
  struct Inputs {
    Elements<T> dy, x;
    unsigned passes;
  };
  struct Outputs {
    Elements<T> dx, dz;
  };

  const T* dy;
  const T* x;
  Passage<T> passage;
  T* dx;  ///< or null
  T* dz;  ///< or null
  bool is_training;

  template <class Accelerator>
  BATCHNORM_DEVICE Inputs load(Accelerator& a, std::int64_t first, std::int64_t begin, std::int64_t end, bool aligned) const {
    Inputs in{load_elements<T, true>(a, dy, first, begin, end, aligned), {}, passage.passes(a, first, begin, end, aligned)};
    if (is_training) in.x = load_elements(a, x, first, begin, end, aligned);
    return in;
  }
  BATCHNORM_DEVICE void apply(const Inputs& in, int k, const R (&coefficient)[coefficients], Outputs& out) const {
    const R z = passage.dz(widen(in.dy.at[k]), (in.passes >> k & 1U) != 0);
    out.dz.at[k] = narrow<T>(z);
    if (is_training) {
      const R inner = fused(coefficient[3], widen(in.x.at[k]) - coefficient[0], coefficient[4]);
      out.dx.at[k] = narrow<T>(fused(coefficient[2], z - coefficient[1], inner));
    } else {
      out.dx.at[k] = narrow<T>(coefficient[2] * z);
    }
  }
  template <class Accelerator>
  BATCHNORM_DEVICE void store(Accelerator& a, const Outputs& out, std::int64_t first, std::int64_t begin, std::int64_t end,
                              bool aligned) const {
    if (dx != nullptr) store_elements(a, dx, out.dx, first, begin, end, aligned);
    if (dz != nullptr) store_elements(a, dz, out.dz, first, begin, end, aligned);
  }
};

/// The whole tensor, chunk by chunk, in a grid of any size.
template <class T, class Operation, bool channels_last>
struct Sweep {
  static constexpr int max_threads = 256, least_blocks = 2;
  static constexpr int size = chunk_size<T>, count = Operation::coefficients;
  using R = Compute<T>;

  Operation operation;
  Geometry geometry;
  Alignment alignment;
  Coefficients<R> coefficients;  ///< null where the operation has no need of them

  BATCHNORM_HOST_DEVICE std::int64_t chunks() const { return (geometry.elements() + alignment.shift + size - 1) / size; }

  template <class Accelerator>
  BATCHNORM_DEVICE void operator()(Accelerator& a) const {
    const Geometry g = geometry;
    const std::int64_t elements = g.elements(), all = chunks();
    const std::int64_t step = a.block_count() * a.block_size();
    const int lane = a.thread_rank() % warp_size;
    std::int64_t chunk = a.block_rank() * a.block_size() + a.thread_rank();

    // Where the chunk's first element lies: position in its plane, and channel; the first chunk may begin before the tensor.
    std::int64_t first = chunk * size - alignment.shift;
    std::int64_t plane = first >= 0 ? first / g.s : (first - (g.s - 1)) / g.s;
    std::int64_t position = first - plane * g.s, channel = plane % g.c;
    if (channel < 0) channel += g.c;
    const std::int64_t position_step = step * size % g.s, channel_step = step * size / g.s % g.c;

    constexpr int kept = channels_last ? size : 1;
    R coefficient[kept][count] = {};
    std::int64_t loaded = -1;
    for (; chunk - lane < all; chunk += step) {  // whole warps
      const std::int64_t end = chunk < all ? elements : 0;
      const auto in = operation.load(a, first, 0, end, alignment.aligned);
      if (channel != loaded && chunk < all) {
        BATCHNORM_UNROLLED
        for (int k = 0; k < kept; ++k) load_coefficients((channel + k) % g.c, coefficient[k]);
        loaded = channel;
      }
      typename Operation::Outputs out;
      if (channels_last || position + size <= g.s) {
        BATCHNORM_UNROLLED
        for (int k = 0; k < size; ++k) {
          if (first + k >= 0 && first + k < end) operation.apply(in, k, coefficient[channels_last ? k : 0], out);
        }
      } else {
        R own[count];
        std::int64_t at = position, of = channel;
        load_coefficients(of, own);
        BATCHNORM_UNROLLED
        for (int k = 0; k < size; ++k) {
          if (at == g.s) {
            at = 0;
            of = of + 1 == g.c ? 0 : of + 1;
            load_coefficients(of, own);
          }
          if (first + k >= 0 && first + k < end) operation.apply(in, k, own, out);
          ++at;
        }
      }
      operation.store(a, out, first, 0, end, alignment.aligned);
      first += step * size;
      position += position_step;
      channel += channel_step;
      if (position >= g.s) {
        position -= g.s;
        ++channel;
      }
      if (channel >= g.c) channel -= g.c;
    }
  }

 private:
  BATCHNORM_DEVICE void load_coefficients(std::int64_t channel, R (&to)[count]) const {
    BATCHNORM_UNROLLED
    for (int k = 0; k < count; ++k) to[k] = coefficients.data == nullptr ? 0 : coefficients.at(k, channel);
  }
};

}  // namespace batchnorm::cuda
