// SPDX-License-Identifier: MIT
#pragma once

// What is compiled for a device where nvcc compiles, and for the host everywhere; a loop that is unrolled on the device.

#if defined(__CUDACC__)
#define BATCHNORM_DEVICE __device__ __forceinline__
#define BATCHNORM_HOST_DEVICE __host__ __device__ __forceinline__
#define BATCHNORM_UNROLLED _Pragma("unroll")
#else
#define BATCHNORM_DEVICE inline
#define BATCHNORM_HOST_DEVICE inline
#define BATCHNORM_UNROLLED
#endif
