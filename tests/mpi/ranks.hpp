// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <batchnorm/mpi.hpp>

#include "support/buffers.hpp"
#include "support/cases.hpp"

// A batch spread over the ranks: who holds which images, and what all hold together.
namespace support {

inline int rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

inline int ranks() {
  int ranks = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  return ranks;
}

enum class Division { even, uneven, some_empty, all_on_last };

inline constexpr Division divisions[] = {Division::even, Division::uneven, Division::some_empty, Division::all_on_last};

inline std::string to_string(Division division) {
  constexpr const char* names[] = {"even", "uneven", "some empty", "all on the last"};
  return names[static_cast<int>(division)];
}

/// The images of one rank.
struct Part {
  std::int64_t first = 0, count = 0;
};

/// Which of n images a rank holds. Uneven: each about twice as many as the one before. Some empty: every second rank, and the
/// first.
inline Part part_of(Division division, std::int64_t n, int rank) {
  const auto weight = [&](int r) -> std::int64_t {
    switch (division) {
      case Division::even: return 1;
      case Division::uneven: return std::int64_t{1} << r;
      case Division::some_empty: return r % 2;
      default: return r == ranks() - 1 ? 1 : 0;
    }
  };
  std::int64_t before = 0, through = 0, all = 0;
  for (int r = 0; r < ranks(); ++r) {
    if (r < rank) before += weight(r);
    if (r <= rank) through += weight(r);
    all += weight(r);
  }
  if (all == 0) return rank == 0 ? Part{0, n} : Part{n, 0};  // one rank alone
  return {n * before / all, n * through / all - n * before / all};
}

inline Part own_part(Division division, std::int64_t n) { return part_of(division, n, rank()); }

/// The shape of `count` images.
inline Shape with_images(const Shape& shape, std::int64_t count) {
  std::vector<std::int64_t> extents(shape.extents().begin(), shape.extents().end());
  extents[0] = count;
  return Shape(extents);
}

/// The elements of a part, of a dense tensor.
template <class T>
std::vector<T> slice(const std::vector<T>& whole, const Shape& shape, const Part& part) {
  const std::int64_t image = batchnorm::element_count(with_images(shape, 1));
  const auto elements =
      std::span(whole).subspan(static_cast<std::size_t>(part.first * image), static_cast<std::size_t>(part.count * image));
  return {elements.begin(), elements.end()};
}

/// The parts of all ranks, one after the other.
template <class T>
std::vector<T> gathered(const std::vector<T>& own) {
  std::vector<int> bytes(static_cast<std::size_t>(ranks())), first(bytes.size());
  const int own_bytes = static_cast<int>(own.size() * sizeof(T));
  MPI_Allgather(&own_bytes, 1, MPI_INT, bytes.data(), 1, MPI_INT, MPI_COMM_WORLD);
  std::exclusive_scan(bytes.begin(), bytes.end(), first.begin(), 0);
  std::vector<T> all(static_cast<std::size_t>(first.back() + bytes.back()) / sizeof(T));
  MPI_Allgatherv(own.data(), own_bytes, MPI_BYTE, all.data(), bytes.data(), first.data(), MPI_BYTE, MPI_COMM_WORLD);
  return all;
}

/// Whether these values have the same bits on all ranks.
template <class T>
testing::AssertionResult same_on_all_ranks(const std::vector<T>& values) {
  std::vector<T> of_first = values;
  MPI_Bcast(of_first.data(), static_cast<int>(values.size() * sizeof(T)), MPI_BYTE, 0, MPI_COMM_WORLD);
  if (same_bits(values, of_first)) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "rank " << rank() << " has other bits than rank 0, first at index "
                                     << first_difference(values, of_first);
}

}  // namespace support
