// SPDX-License-Identifier: MIT
#pragma once

// What a kernel's body sees of the machine that it runs on.
//
// A body is a trivially copyable struct of arguments with
//
//   template <class Accelerator> BATCHNORM_DEVICE void operator()(Accelerator& a) const;
//
// and static constexpr int max_threads, a bound of the threads of its blocks. The accelerator is CUDA's (here) in a kernel of
// the translation unit, and an emulator's in the tests, so that the same body is executed, raced and mutated on a processor.
//
//   a.thread_rank(), a.block_size()     int, within the block; a block is a number of whole warps
//   a.block_rank(), a.block_count()     std::int64_t, within the grid
//   a.sync()                            all threads of the block
//   a.shuffle_xor(value, lane_mask)     value of lane (rank ^ lane_mask) of the warp; all 32 lanes take part; 4 or 8 bytes
//   a.shuffle(value, lane)              value of that lane of the warp; all 32 lanes take part
//   a.shared()                          std::byte*, dynamic shared memory of the block, aligned to 16 bytes
//   a.cluster_rank(), a.cluster_size()  int; 0 and 1 where the launch has no clusters
//   a.cluster_sync()                    all threads of the cluster
//   a.cluster_shared(p, rank)           where the block of that rank of the cluster has what this one has at p (shared memory)
//   a.grid_sync()                       all threads of the grid; for cooperative launches
//   a.load(p)                           const Chunk*: 16 bytes from global memory that no thread writes while the kernel runs
//   a.load_own(p)                       the same of memory that this thread, or one before a barrier, may have written
//   a.store(p, chunk)                   16 bytes to global memory
//   a.bits_of(predicate)                the predicate of all 32 lanes, lane k in bit k; all 32 lanes take part

#include <cstddef>
#include <cstdint>

#include <batchnorm/cuda/config.hpp>

#if defined(__CUDACC__)
#include <cooperative_groups.h>
#endif

namespace batchnorm::cuda {

/// How a body is launched.
struct Launch {
  std::int64_t blocks = 1;
  int threads = 256;
  int shared_bytes = 0;
  int cluster = 1;           ///< blocks of a cluster; blocks is a multiple of it
  bool cooperative = false;  ///< all blocks are resident at once, grid_sync may be called
};

inline constexpr int warp_size = 32;

/// The unit of access to global memory.
struct alignas(16) Chunk {
  std::uint32_t word[4];
};

#if defined(__CUDACC__)

class CudaAccelerator {
 public:
  // Half the rate of float at 6.0, 7.0, 8.0, 9.0 and 10.0; 1/32 or 1/64 at 7.5, 8.6, 8.9, 10.3, 12.0.
#if defined(__CUDA_ARCH__)
  static constexpr bool adds_doubles_fast =
      __CUDA_ARCH__ == 600 || __CUDA_ARCH__ == 700 || __CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000;
#else
  static constexpr bool adds_doubles_fast = true;
#endif

  BATCHNORM_DEVICE int thread_rank() const { return static_cast<int>(threadIdx.x); }
  BATCHNORM_DEVICE int block_size() const { return static_cast<int>(blockDim.x); }
  BATCHNORM_DEVICE std::int64_t block_rank() const { return blockIdx.x; }
  BATCHNORM_DEVICE std::int64_t block_count() const { return gridDim.x; }
  BATCHNORM_DEVICE void sync() const { __syncthreads(); }

  template <class V>
  BATCHNORM_DEVICE V shuffle_xor(V value, int lane_mask) const {
    return __shfl_xor_sync(0xffffffffU, value, lane_mask);
  }
  template <class V>
  BATCHNORM_DEVICE V shuffle(V value, int lane) const {
    return __shfl_sync(0xffffffffU, value, lane);
  }
  BATCHNORM_DEVICE std::uint32_t bits_of(bool predicate) const { return __ballot_sync(0xffffffffU, predicate); }

  BATCHNORM_DEVICE std::byte* shared() const {
    extern __shared__ uint4 batchnorm_shared[];
    return reinterpret_cast<std::byte*>(batchnorm_shared);
  }

  // Clusters exist from compute capability 9.0 on; elsewhere a block is its own cluster.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  BATCHNORM_DEVICE int cluster_rank() const {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return static_cast<int>(rank);
  }
  BATCHNORM_DEVICE int cluster_size() const {
    unsigned size;
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    return static_cast<int>(size);
  }
  BATCHNORM_DEVICE void cluster_sync() const {
    asm volatile("barrier.cluster.arrive.aligned;\n\tbarrier.cluster.wait.aligned;" ::: "memory");
  }
  template <class V>
  BATCHNORM_DEVICE V* cluster_shared(V* p, int rank) const {
    std::uint64_t there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(reinterpret_cast<std::uint64_t>(p)), "r"(rank));
    return reinterpret_cast<V*>(there);
  }
#else
  BATCHNORM_DEVICE int cluster_rank() const { return 0; }
  BATCHNORM_DEVICE int cluster_size() const { return 1; }
  BATCHNORM_DEVICE void cluster_sync() const { __syncthreads(); }
  template <class V>
  BATCHNORM_DEVICE V* cluster_shared(V* p, int) const {
    return p;
  }
#endif

  BATCHNORM_DEVICE void grid_sync() const { cooperative_groups::this_grid().sync(); }

  BATCHNORM_DEVICE Chunk load(const Chunk* p) const {
    const uint4 v = __ldg(reinterpret_cast<const uint4*>(p));
    return {{v.x, v.y, v.z, v.w}};
  }
  BATCHNORM_DEVICE Chunk load_own(const Chunk* p) const {
    const uint4 v = *reinterpret_cast<const uint4*>(p);
    return {{v.x, v.y, v.z, v.w}};
  }
  BATCHNORM_DEVICE void store(Chunk* p, const Chunk& c) const {
    *reinterpret_cast<uint4*>(p) = make_uint4(c.word[0], c.word[1], c.word[2], c.word[3]);
  }
};

#endif

}  // namespace batchnorm::cuda
