// SPDX-License-Identifier: MIT
#pragma once

// A synchronised call in two parts, between which the sums of all ranks are gathered. Runtimes as in dispatch.hpp.

#include <batchnorm/cuda/dispatch.hpp>

namespace batchnorm::cuda {

namespace detail {

template <class T>
PackMoments packing_of(const ForwardCall<T>& f, const Partials& partials, const RankSums& sums, std::int64_t rank) {
  return {partials, f.geometry.values(), sums, rank};
}
template <class T>
PackGradients packing_of(const BackwardCall<T>& b, const Partials& partials, const RankSums& sums, std::int64_t rank) {
  return {partials, b.geometry.values(), sums, rank};
}
template <class T>
MergeMoments<Parameter<T>> merging_of(const ForwardCall<T>& f, const RankSums& sums,
                                      const Coefficients<Compute<T>>& coefficients) {
  return {sums, f.is_unbiased, f.channels, coefficients};
}
template <class T>
MergeGradients<Parameter<T>> merging_of(const BackwardCall<T>& b, const RankSums& sums,
                                        const Coefficients<Compute<T>>& coefficients) {
  return {sums, b.channels, coefficients};
}
template <class T>
bool writes_elements(const ForwardCall<T>&) {
  return true;
}
template <class T>
bool writes_elements(const BackwardCall<T>& b) {
  return b.dx != nullptr || b.dz != nullptr;
}

}  // namespace detail

/// The sums of rank `rank`, to its place of `sums`. `workspace` has workspace_bytes, aligned to 16.
template <class T, template <class> class Call, class Runtime>
void collect(Runtime& runtime, const Call<T>& call, const RankSums& sums, std::int64_t rank, void* workspace,
             const Device& device, const Policy& policy) {
  const Geometry& g = call.geometry;
  if (g.c == 0) return;
  if (g.elements() == 0) {
    return runtime.clear(&sums.count(rank), static_cast<std::size_t>(sums.stride()) * sizeof(double));
  }
  const Alignment alignment = detail::alignment_of_call(call);
  const SumPlan plan = plan_of_sums<T>(g, alignment, device, policy);
  const Partials partials = detail::Workspace<T>(workspace, plan.slices, g.c).partials;
  detail::sum<T>(runtime, g, alignment, detail::statistic_of(call), plan, partials, policy);
  detail::launch_channels(runtime, detail::packing_of(call, partials, sums, rank), g.c);
}

/// All that the call writes, from the sums of all ranks.
template <class T, template <class> class Call, class Runtime>
void complete(Runtime& runtime, const Call<T>& call, const RankSums& sums, void* workspace, const Device& device,
              const Policy& policy) {
  const Geometry& g = call.geometry;
  if (g.c == 0) return;
  const bool writes = g.elements() > 0 && detail::writes_elements(call);
  Coefficients<Compute<T>> coefficients;
  if (writes) coefficients = detail::Workspace<T>(workspace, 0, g.c).coefficients;
  detail::launch_channels(runtime, detail::merging_of(call, sums, coefficients), g.c);
  if (!writes) return;
  detail::sweep<T>(runtime, g, detail::alignment_of_call(call), detail::operation_of(call), coefficients, device, policy);
}

}  // namespace batchnorm::cuda
