// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Synchronised batch normalization over CUDA devices.
///
/// The one header that includes NCCL's, and with it CUDA's. Link batchnorm::nccl.

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <batchnorm/cuda/synchronized.hpp>

namespace batchnorm::cuda {

/// A call of NCCL failed.
class NcclError : public std::runtime_error {
 public:
  /// The message names the function, the code, and what NCCL says of it.
  NcclError(const std::string& call, ncclResult_t code)
      : std::runtime_error("batchnorm::cuda: " + call + " failed with " + std::to_string(static_cast<int>(code)) + ": " +
                           ncclGetErrorString(code)),
        call_(call),
        code_(code) {}

  const std::string& call() const noexcept { return call_; }  ///< NCCL's function
  ncclResult_t code() const noexcept { return code_; }        ///< what it returned

 private:
  std::string call_;
  ncclResult_t code_;
};

namespace detail {

inline void check(ncclResult_t result, const char* call) {
  if (result != ncclSuccess) throw NcclError(call, result);
}
inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) throw CudaError(call, status, cudaGetErrorName(status), cudaGetErrorString(status));
}

/// A communicator of NCCL, as synchronized.hpp wants it.
class NcclRanks {
 public:
  explicit NcclRanks(ncclComm_t communicator) : communicator_(communicator) {
    check(ncclCommCount(communicator, &ranks_), "ncclCommCount");
    check(ncclCommUserRank(communicator, &rank_), "ncclCommUserRank");
  }

  std::int64_t ranks() const noexcept { return ranks_; }
  std::int64_t rank() const noexcept { return rank_; }

  void all_gather(double* data, std::size_t doubles, Stream stream) const {
    const double* own = data + static_cast<std::size_t>(rank_) * doubles;
    check(ncclAllGather(own, data, doubles, ncclDouble, communicator_, stream), "ncclAllGather");
  }

  void maximum(std::int64_t* values, std::size_t count) const {
    const Scratch scratch(count * sizeof(*values));
    const auto copy = [&](void* to, const void* from) {
      check(cudaMemcpyAsync(to, from, count * sizeof(*values), cudaMemcpyDefault, scratch.stream()), "cudaMemcpyAsync");
    };
    copy(scratch.memory(), values);
    check(ncclAllReduce(scratch.memory(), scratch.memory(), count, ncclInt64, ncclMax, communicator_, scratch.stream()),
          "ncclAllReduce");
    copy(values, scratch.memory());
    check(cudaStreamSynchronize(scratch.stream()), "cudaStreamSynchronize");
  }

 private:
  /// A stream and device memory of its own.
  class Scratch {
   public:
    explicit Scratch(std::size_t bytes) {
      check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
      if (const cudaError_t status = cudaMalloc(&memory_, bytes); status != cudaSuccess) {
        cudaStreamDestroy(stream_);
        check(status, "cudaMalloc");
      }
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() {
      cudaFree(memory_);
      cudaStreamDestroy(stream_);
    }

    cudaStream_t stream() const noexcept { return stream_; }
    void* memory() const noexcept { return memory_; }

   private:
    cudaStream_t stream_ = nullptr;
    void* memory_ = nullptr;
  };

  ncclComm_t communicator_;
  int ranks_ = 0, rank_ = 0;
};

}  // namespace detail

/// Batch normalization on several CUDA devices: one batch in as many parts as a communicator of NCCL has ranks, with the
/// meaning of cuda::BatchNorm (cuda.hpp) for the whole of it. In training
///
///   * mean and variance are those of the m values that all ranks have together, and the running statistics take them in with
///     that m; in backward dscale and dbias are the sums over all ranks, not to be added up again, and dx has their m.
///   * Each rank packs its sums, one ncclAllGather hands them to all, and each rank merges what all have, in the same order:
///     3 C + 1 doubles a rank forward (count, means as two doubles, squared deviations), 4 C + 1 backward (count, two sums of
///     two doubles). So mean, variance, running statistics, dscale and dbias have the same bits on every rank, as long as
///     scale, bias, running statistics and options had, and equal those of the whole batch on one device to rounding.
///   * x has any extents on a rank but the channels', which are the same on all; a rank may have no values (an extent of 0)
///     and calls all the same. Where no rank has any, statistics and gradients are 0, the running statistics stay.
///   * x is read twice, even where cuda::BatchNorm reads it once.
///
/// Inference normalises without the others. backward always asks them, since it sums dscale and dbias.
///
/// Each call enqueues its kernels and ncclAllGather on `stream`; it does not wait and does not allocate. Every rank makes the
/// same calls in the same order, on the device of its communicator. The communicator is one that blocks (NCCL's default; with
/// another ncclAllGather ends with ncclInProgress, which is an error here), and a call is not between ncclGroupStart and
/// ncclGroupEnd, where nothing would be gathered before it is merged: several devices in one process are served by a thread
/// each.
///
/// What another rank does is not checked, for that would wait: where C differs, or one rank trains and another does not, the
/// call may hang, end with NcclError, or mix channels. check_agreement() asks once for each shape. Wrong arguments throw on
/// that rank alone, before anything is enqueued; the others hang, until the communicator is aborted (ncclCommAbort).
///
/// The communicator is the caller's and outlives the object. The object is immutable, but NCCL wants no two calls of one
/// communicator at once.
template <Element T, Format F = Format::NCHW>
class SyncBatchNorm {
 public:
  using P = parameter_t<T>;  ///< of scale, bias and statistics

  /// The communicator stays the caller's.
  /// @throws ValueError   epsilon not in (0, 1] or momentum not in [0, 1]
  /// @throws NcclError    the communicator cannot be asked
  explicit SyncBatchNorm(ncclComm_t communicator, const Options& options = {.is_training = true})
      : ranks_(communicator), options_(options) {
    arguments::check_options("batchnorm::cuda::SyncBatchNorm", options);
  }

  const Options& options() const noexcept { return options_; }  ///< those it was made with

  /// Bytes of the workspace of any call for x of that shape, which is this rank's: ranks * (4 C + 1) doubles and what
  /// cuda::workspace_bytes says.
  /// @throws ShapeError   rank not 2 to 5, or a negative extent
  /// @throws CudaError    there is no device
  std::size_t workspace_bytes(const Shape& shape) const { return detail::synchronized_bytes<T>(F, shape, ranks_.ranks()); }

  /// Asks all ranks whether their x, of this shape here, has the same C, and whether all are in training or none is.
  /// Collective: each rank calls it. It waits for the others, on a stream of its own, and allocates some bytes; it is no part
  /// of a graph. Every rank throws, or none does.
  /// @throws ShapeError   this shape or that of another rank has a rank not 2 to 5 or a negative extent, or C differs
  /// @throws ValueError   some ranks are in training, others in inference
  /// @throws NcclError, CudaError   the ranks cannot be asked; then others may wait
  void check_agreement(const Shape& shape) const { detail::check_agreement<T>(ranks_, F, options_, shape); }

  /// All outputs that `out` names, of this rank's part of the batch.
  /// @throws ShapeError, ValueError   as cuda::BatchNorm does; nothing is enqueued then
  /// @throws NcclError, CudaError     a call failed; what was enqueued before it runs
  template <Epilogue<T> E = Identity>
  void operator()(TensorView<const T> x, TensorView<const P> scale, TensorView<const P> bias, StatisticView<P> mean,
                  StatisticView<P> variance, const OutputViews<T, P>& out, const E& epilogue, const Workspace& workspace,
                  Stream stream) const {
    detail::synchronized_forward<T>(ranks_, F, options_, x, scale, bias, mean, variance, out, epilogue, workspace, stream);
  }

  /// All gradients that `out` names. mean and variance are those of the forward pass, of the whole batch.
  /// @throws ShapeError, ValueError, NcclError, CudaError   as the forward pass does
  template <GradientPath<T> G = Identity>
  void backward(TensorView<const T> dy, TensorView<const T> x, TensorView<const P> scale, TensorView<const P> mean,
                TensorView<const P> variance, const GradientViews<T, P>& out, const G& through, const Workspace& workspace,
                Stream stream) const {
    detail::synchronized_backward<T>(ranks_, F, options_, dy, x, scale, mean, variance, out, through, workspace, stream);
  }

 private:
  detail::NcclRanks ranks_;
  Options options_;
};

}  // namespace batchnorm::cuda
