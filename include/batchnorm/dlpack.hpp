// SPDX-License-Identifier: MIT
#pragma once

// Tensors of other frameworks by DLPack, 0.6 to 1.x: templates over the DLTensor that the program has included.

#include <concepts>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>

#include <batchnorm/tensor.hpp>

namespace batchnorm {

/// DLPack's DLTensor, of any version since 0.6.
template <class D>
concept DlpackTensor = requires(const D& tensor) {
  { tensor.data } -> std::convertible_to<const void*>;
  { tensor.device.device_type } -> std::convertible_to<int>;
  { tensor.ndim } -> std::convertible_to<int>;
  { tensor.dtype.code } -> std::convertible_to<int>;
  { tensor.dtype.bits } -> std::convertible_to<int>;
  { tensor.dtype.lanes } -> std::convertible_to<int>;
  { tensor.shape } -> std::convertible_to<const std::int64_t*>;
  { tensor.strides } -> std::convertible_to<const std::int64_t*>;
  { tensor.byte_offset } -> std::convertible_to<std::uint64_t>;
};

/// DLPack's DLManagedTensor, or DLManagedTensorVersioned.
template <class D>
concept DlpackManagedTensor = DlpackTensor<decltype(std::declval<const D&>().dl_tensor)>;

/// Where the elements of a DLTensor must be.
enum class DlpackDevice {
  cpu,  ///< memory that the processor reads: of its own, pinned by CUDA or ROCm, managed by CUDA
  cuda  ///< memory of a CUDA device, for batchnorm/cuda.hpp
};

namespace detail {

/// Codes of DLDataType and DLDeviceType; they are part of the format, and older headers lack names for some.
struct DlpackType {
  int code, bits;
};
template <Element T>
inline constexpr DlpackType dlpack_type = {std::same_as<T, bfloat16> ? 4 : 2, static_cast<int>(8 * sizeof(T))};

inline std::string dlpack_type_name(int code, int bits, int lanes) {
  constexpr const char* names[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
  const bool is_known = code >= 0 && code < 7;
  std::string name = is_known ? names[code] : "code " + std::to_string(code) + " of ";
  name += std::to_string(bits);
  if (lanes != 1) name += "x" + std::to_string(lanes);
  return name;
}

inline bool dlpack_device_fits(int type, DlpackDevice wanted) noexcept {
  constexpr int cpu = 1, cuda = 2, cuda_host = 3, rocm_host = 11, cuda_managed = 13;
  if (type == cuda_managed) return true;
  return wanted == DlpackDevice::cuda ? type == cuda : type == cpu || type == cuda_host || type == rocm_host;
}

}  // namespace detail

/// The elements of a DLTensor with the same indices, in place. T is the element type it must have, const or not:
/// view_of<const float>(tensor). Strides that are absent (null) mean a dense tensor. The view does not keep the tensor alive.
/// @throws ValueError   another data type, several lanes, memory elsewhere, no shape, a byte offset beyond memory
/// @throws ShapeError   less than 0 or more than Shape::max_rank axes
template <class T, DlpackTensor D>
  requires Element<std::remove_const_t<T>> TensorView<T> view_of(const D& tensor, DlpackDevice device = DlpackDevice::cpu) {
    const auto fail = [](const std::string& what) { detail::fail<ValueError>("batchnorm::view_of: the DLTensor " + what); };
    constexpr detail::DlpackType type = detail::dlpack_type<std::remove_const_t<T>>;
    const int code = tensor.dtype.code, bits = tensor.dtype.bits, lanes = tensor.dtype.lanes;
    if (code != type.code || bits != type.bits || lanes != 1) {
      fail("holds " + detail::dlpack_type_name(code, bits, lanes) + ", expected " +
           detail::dlpack_type_name(type.code, type.bits, 1));
    }
    // As bytes: what a newer producer writes may be no value of the enumeration that an older header has.
    std::int32_t device_type = 0;
    static_assert(sizeof(tensor.device.device_type) == sizeof(device_type));
    std::memcpy(&device_type, &tensor.device.device_type, sizeof(device_type));
    if (!detail::dlpack_device_fits(device_type, device)) {
      fail("is in the memory of device type " + std::to_string(device_type) + ", expected " +
           (device == DlpackDevice::cpu ? "1 (CPU) or host memory that is pinned or managed (3, 11, 13)"
                                        : "2 (CUDA) or 13 (CUDA, managed)"));
    }
    if (tensor.ndim < 0 || tensor.ndim > Shape::max_rank) {
      detail::fail<ShapeError>("batchnorm::view_of: the DLTensor has " + std::to_string(tensor.ndim) + " axes, expected 0 to " +
                               std::to_string(Shape::max_rank));
    }
    const auto rank = static_cast<std::size_t>(tensor.ndim);
    if (tensor.shape == nullptr && rank > 0) fail("has " + std::to_string(rank) + " axes and no shape");
    const Shape shape(std::span<const std::int64_t>(tensor.shape, rank));
    Strides strides = dense_strides(shape);
    if (tensor.strides != nullptr) std::copy_n(tensor.strides, rank, strides.begin());
    auto* bytes = static_cast<std::byte*>(tensor.data);
    if (reinterpret_cast<std::uintptr_t>(bytes) > UINTPTR_MAX - tensor.byte_offset) {
      fail("has a byte offset of " + std::to_string(tensor.byte_offset) + ", which reaches beyond any memory");
    }
    if (bytes != nullptr) bytes += tensor.byte_offset;
    return {static_cast<T*>(static_cast<void*>(bytes)), shape, strides};
  }

/// The same of a managed tensor, which stays owned by who has it.
/// @throws ValueError   also: a version beyond 1, a tensor that may only be read for a T that is not const
template <class T, DlpackManagedTensor D>
  requires Element<std::remove_const_t<T>> TensorView<T> view_of(const D& managed, DlpackDevice device = DlpackDevice::cpu) {
    if constexpr (requires { managed.version; }) {
      const auto& [number, revision] = managed.version;  // major and minor, which <sys/types.h> may have made macros
      if (number > 1) {
        detail::fail<ValueError>("batchnorm::view_of: the managed tensor is of DLPack " + std::to_string(number) + "." +
                                 std::to_string(revision) + ", known are versions up to 1");
      }
    }
    if constexpr (requires { managed.flags; } && !std::is_const_v<T>) {
      constexpr std::uint64_t read_only = 1;
      if ((managed.flags & read_only) != 0) {
        detail::fail<ValueError>("batchnorm::view_of: the managed tensor may only be read; view it as const");
      }
    }
    return view_of<T>(managed.dl_tensor, device);
  }

}  // namespace batchnorm
