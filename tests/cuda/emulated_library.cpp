// SPDX-License-Identifier: MIT
#include "emulated_library.hpp"

#include <cstring>
#include <typeinfo>

#include <cxxabi.h>

#include <batchnorm/cuda/dispatch_ranks.hpp>

#include "slow_doubles.hpp"

namespace support {

EmulatedDevice& emulated_device() {
  static EmulatedDevice device;
  return device;
}

namespace {

/// "SumPlanes<float, ...>"
template <class Body>
std::string name_of_body() {
  int status = 0;
  char* text = abi::__cxa_demangle(typeid(Body).name(), nullptr, nullptr, &status);
  std::string name = status == 0 ? text : typeid(Body).name();
  std::free(text);
  const std::string space = "batchnorm::cuda::";
  for (std::size_t at = name.find(space); at != std::string::npos; at = name.find(space)) name.erase(at, space.size());
  return name;
}

class EmulatedRuntime {
 public:
  EmulatedRuntime() : emulator_(emulated_device().options) {}

  template <class Body>
  void launch(const Body& body, const batchnorm::cuda::Launch& launch) {
    emulated_device().launches.push_back(name_of_body<Body>());
    if (emulated_device().adds_doubles_fast) {
      emulator_.launch(body, launch);
    } else {
      emulator_.launch(OnSlowDoubles<Body>{body}, launch);
    }
  }
  void clear(void* p, std::size_t bytes) { std::memset(p, 0, bytes); }

 private:
  Emulator emulator_;
};

template <class Call>
void run_forward(const Call& call, void* workspace) {
  EmulatedRuntime runtime;
  batchnorm::cuda::forward(runtime, call, workspace, emulated_device().device, emulated_device().policy);
}
template <class Call>
void run_backward(const Call& call, void* workspace) {
  EmulatedRuntime runtime;
  batchnorm::cuda::backward(runtime, call, workspace, emulated_device().device, emulated_device().policy);
}
template <class T>
std::size_t bytes_of(const batchnorm::cuda::Geometry& g) {
  return batchnorm::cuda::workspace_bytes<T>(g, emulated_device().device, emulated_device().policy);
}

}  // namespace
}  // namespace support

namespace batchnorm::cuda::library {

template <>
std::size_t workspace_bytes<float>(const Geometry& g) {
  return support::bytes_of<float>(g);
}
template <>
std::size_t workspace_bytes<double>(const Geometry& g) {
  return support::bytes_of<double>(g);
}
template <>
std::size_t workspace_bytes<Half>(const Geometry& g) {
  return support::bytes_of<Half>(g);
}
template <>
std::size_t workspace_bytes<BFloat16>(const Geometry& g) {
  return support::bytes_of<BFloat16>(g);
}

void forward(const ForwardCall<float>& call, void* workspace, Stream) { support::run_forward(call, workspace); }
void forward(const ForwardCall<double>& call, void* workspace, Stream) { support::run_forward(call, workspace); }
void forward(const ForwardCall<Half>& call, void* workspace, Stream) { support::run_forward(call, workspace); }
void forward(const ForwardCall<BFloat16>& call, void* workspace, Stream) { support::run_forward(call, workspace); }
void backward(const BackwardCall<float>& call, void* workspace, Stream) { support::run_backward(call, workspace); }
void backward(const BackwardCall<double>& call, void* workspace, Stream) { support::run_backward(call, workspace); }
void backward(const BackwardCall<Half>& call, void* workspace, Stream) { support::run_backward(call, workspace); }
void backward(const BackwardCall<BFloat16>& call, void* workspace, Stream) { support::run_backward(call, workspace); }

template <class Call>
void collect(const Call& call, const RankSums& sums, std::int64_t rank, void* workspace, Stream) {
  support::EmulatedRuntime runtime;
  cuda::collect(runtime, call, sums, rank, workspace, support::emulated_device().device, support::emulated_device().policy);
}
template <class Call>
void complete(const Call& call, const RankSums& sums, void* workspace, Stream) {
  support::EmulatedRuntime runtime;
  cuda::complete(runtime, call, sums, workspace, support::emulated_device().device, support::emulated_device().policy);
}
template void collect(const ForwardCall<float>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const ForwardCall<double>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const ForwardCall<Half>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const ForwardCall<BFloat16>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const BackwardCall<float>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const BackwardCall<double>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const BackwardCall<Half>&, const RankSums&, std::int64_t, void*, Stream);
template void collect(const BackwardCall<BFloat16>&, const RankSums&, std::int64_t, void*, Stream);
template void complete(const ForwardCall<float>&, const RankSums&, void*, Stream);
template void complete(const ForwardCall<double>&, const RankSums&, void*, Stream);
template void complete(const ForwardCall<Half>&, const RankSums&, void*, Stream);
template void complete(const ForwardCall<BFloat16>&, const RankSums&, void*, Stream);
template void complete(const BackwardCall<float>&, const RankSums&, void*, Stream);
template void complete(const BackwardCall<double>&, const RankSums&, void*, Stream);
template void complete(const BackwardCall<Half>&, const RankSums&, void*, Stream);
template void complete(const BackwardCall<BFloat16>&, const RankSums&, void*, Stream);

}  // namespace batchnorm::cuda::library
