// SPDX-License-Identifier: MIT
#pragma once

// From a call whose arguments are right to launches. A runtime has
//
//   launch(body, Launch)        runs it after what was launched before
//   clear(pointer, bytes)       zeros, in the same order
//
// and throws where that fails. Nothing here waits for the device, allocates, or touches what pointers point to.

#include <cstddef>

#include <batchnorm/cuda/plan.hpp>
#include <batchnorm/cuda/ranks.cuh>

namespace batchnorm::cuda {

/// Bytes of a workspace: the sums of slices, then coefficients. Enough for every alignment and every output.
template <class T>
std::size_t workspace_bytes(const Geometry& g, const Device& device, const Policy& policy) {
  if (g.elements() == 0) return 0;
  std::int64_t slices = grid_team_size<T>(g, device, policy);
  for (const Alignment& alignment : {Alignment{0, true}, Alignment{1, true}}) {
    slices = std::max(slices, plan_of_sums<T>(g, alignment, device, policy).slices);
  }
  constexpr int fields = MomentStatistic<T>::fields, coefficients = InputGradient<T>::coefficients;
  return static_cast<std::size_t>((fields * slices + coefficients) * g.c) * sizeof(double);
}

namespace detail {

/// A workspace in parts.
template <class T>
struct Workspace {
  Partials partials;
  Coefficients<Compute<T>> coefficients;

  Workspace(void* memory, std::int64_t slices, std::int64_t channels)
      : partials{static_cast<double*>(memory), slices, channels},
        coefficients{reinterpret_cast<Compute<T>*>(partials.data + MomentStatistic<T>::fields * slices * channels), channels} {}
};

template <class T, class Statistic, class Runtime>
void sum(Runtime& runtime, const Geometry& g, const Alignment& alignment, const Statistic& statistic, const SumPlan& plan,
         const Partials& partials, const Policy& policy) {
  if (g.channels_last) {
    const bool aligned = alignment.aligned && alignment.shift == 0 && g.c % chunk_size<T> == 0;
    const SumRows<T, Statistic> body{statistic, g, aligned, plan.across, plan.per_slice, partials};
    runtime.launch(body, {plan.blocks(), policy.threads, body.shared_bytes(policy.threads, plan.across)});
  } else {
    const std::int64_t per_plane = PlaneSlots::slots_of_plane(g.s, chunk_size<T>, alignment);
    const SumPlanes<T, Statistic> body{statistic, g, alignment, {per_plane, plan.per_slice}, partials};
    runtime.launch(body, {plan.blocks(), policy.threads, body.shared_bytes(policy.threads)});
  }
}

template <class T, class Operation, class Runtime>
void sweep(Runtime& runtime, const Geometry& g, const Alignment& alignment, const Operation& operation,
           const Coefficients<Compute<T>>& coefficients, const Device& device, const Policy& policy) {
  const auto run = [&](const auto& body) {
    runtime.launch(body, {blocks_of_sweep(g, body.chunks(), chunk_size<T>, device, policy), policy.threads});
  };
  if (g.channels_last) {
    run(Sweep<T, Operation, true>{operation, g, alignment, coefficients});
  } else {
    run(Sweep<T, Operation, false>{operation, g, alignment, coefficients});
  }
}

/// A body whose warps have a channel each.
template <class Runtime, class Body>
void launch_channels(Runtime& runtime, const Body& body, std::int64_t channels) {
  constexpr int warps = Body::max_threads / warp_size;
  runtime.launch(body, {divide_up(channels, warps), warps * warp_size});
}

template <class T>
Alignment alignment_of_call(const ForwardCall<T>& f) {
  return alignment_of<T>({f.x, f.residual, f.y}, f.mask != nullptr);
}
template <class T>
Alignment alignment_of_call(const BackwardCall<T>& b) {
  return alignment_of<T>({b.dy, b.x, b.passage.y, b.dx, b.dz}, b.passage.bits != nullptr);
}
template <class T>
Normalization<T> operation_of(const ForwardCall<T>& f) {
  return {f.x, f.residual, f.y, f.mask, f.activation};
}
template <class T>
InputGradient<T> operation_of(const BackwardCall<T>& b) {
  return {b.dy, b.x, Passage<T>{b.passage}, b.dx, b.dz, b.channels.is_training};
}
template <class T>
MomentStatistic<T> statistic_of(const ForwardCall<T>& f) {
  return {f.x};
}
template <class T>
GradientStatistic<T> statistic_of(const BackwardCall<T>& b) {
  return {b.dy, b.x, Passage<T>{b.passage}, b.channels.mean};
}

template <class T, class Runtime, class Team>
void train_resident(Runtime& runtime, const ForwardCall<T>& f, const Normalization<T>& operation, const Alignment& alignment,
                    const ResidentPlan& plan, const Team& team, const Launch& launch) {
  const Geometry& g = f.geometry;
  if (g.channels_last) {
    const bool aligned = alignment.aligned && alignment.shift == 0 && g.c % chunk_size<T> == 0;
    runtime.launch(ResidentRows<T, Team>{operation, g, aligned, plan.across, plan.per_slice, f.channels, team}, launch);
  } else {
    const std::int64_t per_plane = PlaneSlots::slots_of_plane(g.s, chunk_size<T>, alignment);
    runtime.launch(ResidentPlanes<T, Team>{operation, g, alignment, {per_plane, plan.per_slice}, f.channels, team}, launch);
  }
}

}  // namespace detail

/// `workspace` has workspace_bytes, aligned to 16.
template <class T, class Runtime>
void forward(Runtime& runtime, const ForwardCall<T>& f, void* workspace, const Device& device, const Policy& policy) {
  const Geometry& g = f.geometry;
  if (g.c == 0) return;
  const auto clear = [&](Parameter<T>* p) {
    if (p != nullptr) runtime.clear(p, static_cast<std::size_t>(g.c) * sizeof(*p));
  };
  const bool empty = g.elements() == 0;
  if (empty && f.is_training) {
    for (int k = 0; k < 2; ++k) {
      clear(f.channels.mean[k]);
      clear(f.channels.variance[k]);
    }
    return;
  }
  const Alignment alignment = detail::alignment_of_call(f);
  const Normalization<T> operation = detail::operation_of(f);
  if (!f.is_training) {
    const detail::Workspace<T> parts(workspace, 0, g.c);
    const Coefficients<Compute<T>> coefficients = empty ? Coefficients<Compute<T>>{} : parts.coefficients;
    constexpr int threads = FinishConstants<T>::max_threads;
    runtime.launch(FinishConstants<T>{f.mean, f.variance, g.c, f.channels, coefficients}, {divide_up(g.c, threads), threads});
    if (!empty) detail::sweep<T>(runtime, g, alignment, operation, coefficients, device, policy);
    return;
  }
  const ResidentPlan resident = plan_resident<T>(g, alignment, f.mask != nullptr, device, policy);
  Launch launch{resident.blocks, resident.threads, static_cast<int>(resident.shared_bytes)};
  if (resident.team == ResidentPlan::cluster) {
    launch.cluster = resident.size;
    return detail::train_resident(runtime, f, operation, alignment, resident, ClusterTeam{}, launch);
  }
  if (resident.team == ResidentPlan::grid) {
    launch.cooperative = true;
    const GridTeam team{detail::Workspace<T>(workspace, resident.size, g.c).partials};
    return detail::train_resident(runtime, f, operation, alignment, resident, team, launch);
  }
  const SumPlan plan = plan_of_sums<T>(g, alignment, device, policy);
  const detail::Workspace<T> parts(workspace, plan.slices, g.c);
  detail::sum<T>(runtime, g, alignment, detail::statistic_of(f), plan, parts.partials, policy);
  detail::launch_channels(runtime, FinishMoments<T>{parts.partials, g.values(), f.channels, parts.coefficients}, g.c);
  detail::sweep<T>(runtime, g, alignment, operation, parts.coefficients, device, policy);
}

/// `workspace` has workspace_bytes, aligned to 16.
template <class T, class Runtime>
void backward(Runtime& runtime, const BackwardCall<T>& b, void* workspace, const Device& device, const Policy& policy) {
  const Geometry& g = b.geometry;
  if (g.c == 0) return;
  if (g.elements() == 0) {
    if (b.channels.dscale != nullptr) runtime.clear(b.channels.dscale, static_cast<std::size_t>(g.c) * sizeof(Parameter<T>));
    if (b.channels.dbias != nullptr) runtime.clear(b.channels.dbias, static_cast<std::size_t>(g.c) * sizeof(Parameter<T>));
    return;
  }
  const Alignment alignment = detail::alignment_of_call(b);
  const bool writes_dx = b.dx != nullptr;
  const bool sums = b.channels.dscale != nullptr || b.channels.dbias != nullptr || (writes_dx && b.channels.is_training);
  SumPlan plan;
  plan.slices = 0;
  if (sums) plan = plan_of_sums<T>(g, alignment, device, policy);
  const detail::Workspace<T> parts(workspace, plan.slices, g.c);
  if (sums) detail::sum<T>(runtime, g, alignment, detail::statistic_of(b), plan, parts.partials, policy);
  const Coefficients<Compute<T>> coefficients = writes_dx ? parts.coefficients : Coefficients<Compute<T>>{};
  if (sums || writes_dx) {
    detail::launch_channels(runtime, FinishGradients<T>{parts.partials, b.channels, coefficients}, g.c);
  }
  if (writes_dx || b.dz != nullptr) {
    detail::sweep<T>(runtime, g, alignment, detail::operation_of(b), coefficients, device, policy);
  }
}

}  // namespace batchnorm::cuda
