// SPDX-License-Identifier: MIT
#pragma once

// Tensors as kernels see them, and how their elements are shared among threads.

#include <batchnorm/cuda/element.cuh>

namespace batchnorm::cuda {

/// Where the 16-byte chunks of tensors lie: chunk k covers elements [k * size - shift, (k + 1) * size - shift). `aligned`:
/// every tensor of the call has its chunks there, so they are read and written whole; otherwise element by element.
struct Alignment {
  int shift = 0;
  bool aligned = true;
};

/// Elements [first, first + size) of a tensor, of which those in [begin, end) count; the others are `rest`.
template <class T, bool is_own = false, class Accelerator>
BATCHNORM_DEVICE Elements<T> load_elements(Accelerator& a, const T* tensor, std::int64_t first, std::int64_t begin,
                                           std::int64_t end, bool aligned) {
  constexpr int size = chunk_size<T>;
  if (aligned && first >= begin && first + size <= end) {
    const auto* chunk = reinterpret_cast<const Chunk*>(tensor + first);
    if constexpr (is_own) return Elements<T>::of(a.load_own(chunk));
    return Elements<T>::of(a.load(chunk));
  }
  Elements<T> result;
  BATCHNORM_UNROLLED
  for (int k = 0; k < size; ++k) {
    const std::int64_t i = first + k;
    result.at[k] = i >= begin && i < end ? tensor[i] : T{};
  }
  return result;
}

/// Stores those of them that lie in [begin, end).
template <class T, class Accelerator>
BATCHNORM_DEVICE void store_elements(Accelerator& a, T* tensor, const Elements<T>& elements, std::int64_t first,
                                     std::int64_t begin, std::int64_t end, bool aligned) {
  constexpr int size = chunk_size<T>;
  if (aligned && first >= begin && first + size <= end) {
    a.store(reinterpret_cast<Chunk*>(tensor + first), elements.chunk());
    return;
  }
  BATCHNORM_UNROLLED
  for (int k = 0; k < size; ++k) {
    const std::int64_t i = first + k;
    if (i >= begin && i < end) tensor[i] = elements.at[k];
  }
}

/// The chunks that hold a channel of a channels-first tensor are numbered in slots, `per_plane` for each image: as many as a
/// plane can touch, so that some may hold nothing. A slice is a range of slots.
struct PlaneSlots {
  std::int64_t per_plane = 0;  ///< slots of an image
  std::int64_t per_slice = 0;  ///< slots of a slice

  BATCHNORM_HOST_DEVICE static std::int64_t slots_of_plane(std::int64_t s, int size, const Alignment& alignment) {
    const bool is_whole = s % size == 0 && alignment.shift == 0;
    return is_whole ? s / size : (s + size - 2) / size + 1;
  }
};

/// One slot: elements [begin, end) of the tensor, within the chunk that starts at `first`; none where end <= begin.
struct Slot {
  std::int64_t first, begin, end;
};

/// Slot `index` of plane (image, channel).
template <class T>
BATCHNORM_DEVICE Slot slot_of(const Geometry& g, const Alignment& alignment, std::int64_t channel, std::int64_t image,
                              std::int64_t index) {
  constexpr int size = chunk_size<T>;
  const std::int64_t plane = (image * g.c + channel) * g.s;
  const std::int64_t first =
      ((plane + alignment.shift) & ~static_cast<std::int64_t>(size - 1)) - alignment.shift + index * size;
  const std::int64_t begin = first > plane ? first : plane;
  const std::int64_t end = first + size < plane + g.s ? first + size : plane + g.s;
  return {first, begin, end};
}

/// A thread's place among the slots of a channel, which it walks in steps of a fixed length without dividing each time.
class SlotWalk {
 public:
  BATCHNORM_DEVICE SlotWalk(std::int64_t slot, std::int64_t step, std::int64_t per_plane)
      : image_(slot / per_plane),
        index_(slot % per_plane),
        images_per_step_(step / per_plane),
        indices_per_step_(step % per_plane),
        per_plane_(per_plane) {}

  template <class T>
  BATCHNORM_DEVICE Slot slot(const Geometry& g, const Alignment& alignment, std::int64_t channel) const {
    return slot_of<T>(g, alignment, channel, image_, index_);
  }
  BATCHNORM_DEVICE void step() {
    image_ += images_per_step_;
    index_ += indices_per_step_;
    if (index_ >= per_plane_) {
      index_ -= per_plane_;
      ++image_;
    }
  }

 private:
  std::int64_t image_, index_, images_per_step_, indices_per_step_, per_plane_;
};

}  // namespace batchnorm::cuda
