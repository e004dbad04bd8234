// SPDX-License-Identifier: MIT
#pragma once

// What the translation unit batch_norm.cu defines. Arguments are right: cuda.hpp checks them.

#include <batchnorm/cuda/call.hpp>
#include <batchnorm/cuda/error.hpp>

namespace batchnorm::cuda::library {

/// Bytes of the workspace of every call of that shape, on the current device.
/// @throws CudaError   the device cannot be asked
template <class T>
std::size_t workspace_bytes(const Geometry& g);
template <>
std::size_t workspace_bytes<float>(const Geometry& g);
template <>
std::size_t workspace_bytes<double>(const Geometry& g);
template <>
std::size_t workspace_bytes<Half>(const Geometry& g);
template <>
std::size_t workspace_bytes<BFloat16>(const Geometry& g);

/// Enqueue; do not wait, do not allocate.
/// @throws CudaError   the first launch that fails; those before it run
void forward(const ForwardCall<float>& call, void* workspace, Stream stream);
void forward(const ForwardCall<double>& call, void* workspace, Stream stream);
void forward(const ForwardCall<Half>& call, void* workspace, Stream stream);
void forward(const ForwardCall<BFloat16>& call, void* workspace, Stream stream);
void backward(const BackwardCall<float>& call, void* workspace, Stream stream);
void backward(const BackwardCall<double>& call, void* workspace, Stream stream);
void backward(const BackwardCall<Half>& call, void* workspace, Stream stream);
void backward(const BackwardCall<BFloat16>& call, void* workspace, Stream stream);

/// The two parts of a synchronised call (ForwardCall<T>, BackwardCall<T>): the sums of rank `rank` to its place of `sums`; and,
/// once those of all ranks are there, the rest.
template <class Call>
void collect(const Call& call, const RankSums& sums, std::int64_t rank, void* workspace, Stream stream);
template <class Call>
void complete(const Call& call, const RankSums& sums, void* workspace, Stream stream);

}  // namespace batchnorm::cuda::library
