// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "fingerprint.hpp"

// The forward calls of the fingerprint tests.
namespace support::fingerprint {

/// Where y goes.
enum class Place { apart, of_x, of_residual };

inline const char* to_string(Place place) {
  return place == Place::apart ? "" : place == Place::of_x ? " in place of x" : " in place of the residual";
}

/// What a forward call is given and asked for, beside its tensors.
struct ForwardChoice {
  batchnorm::Options options{};
  Place place = Place::apart;
  bool has_scale = true, has_bias = true, has_running = true, wants_statistics = true, writes_mask = false;
  std::int64_t batch_number = 0;

  std::string text() const {
    return text_of(options) + to_string(place) + (has_scale ? "" : " no scale") + (has_bias ? "" : " no bias") +
           (has_running ? "" : " no running statistics") + (wants_statistics ? "" : " only y") +
           (writes_mask ? " with mask" : "") + " batch " + std::to_string(batch_number);
  }
};

inline ForwardChoice random_choice(Group& group, bool is_training, bool may_write_mask, bool has_residual = false) {
  ForwardChoice choice;
  choice.options = random_options(group.random(), is_training);
  if (group.one_in(3)) choice.place = has_residual && group.one_in(2) ? Place::of_residual : Place::of_x;
  choice.has_scale = !group.one_in(5);
  choice.has_bias = !group.one_in(5);
  choice.has_running = !is_training || !group.one_in(4);
  choice.wants_statistics = !group.one_in(4);
  choice.writes_mask = may_write_mask && group.one_in(2);
  choice.batch_number = group.one_in(4) ? 7 : 0;
  return choice;
}

/// Adds to the group the operator on that problem. `epilogue_with(residual)` makes the epilogue.
template <class T, class P, class MakeEpilogue>
void forward(Group& group, const Problem<T, P>& p, const ForwardChoice& choice, const MakeEpilogue& epilogue_with) {
  using batchnorm::TensorView;
  group.call(p.text + " " + choice.text(), [&](const batchnorm::CallOptions& options, Hash& hash) {
    batchnorm::CallOptions call = options;
    call.batch_number = choice.batch_number;
    std::vector<T> y = choice.place == Place::apart ? p.blank() : choice.place == Place::of_x ? p.x : p.z;
    const TensorView<T> to = p.view(y, choice.place == Place::apart ? p.out : p.in);
    const TensorView<const T> x = choice.place == Place::of_x ? to : p.view(p.x);
    const TensorView<const T> residual = choice.place == Place::of_residual ? to : p.view(p.z);
    std::vector<P> mean = p.mean, variance = p.variance, saved[4];
    for (auto& statistic : saved) statistic = p.blank_channels();
    std::vector<std::uint8_t> mask(p.mask.size(), 0xA5);
    batchnorm::OutputViews<T, P> out{.output_x = to};
    if (choice.wants_statistics) {
      out.batch_mean = saved[0], out.batch_variance = saved[1];
      out.reserve_space_1 = saved[2], out.reserve_space_2 = saved[3];
    }
    if (choice.writes_mask) out.mask = mask;
    const auto if_given = [](bool is_given, const std::vector<P>& values) {
      return is_given ? TensorView<const P>(values) : TensorView<const P>();
    };
    batchnorm::batch_norm<T, P>(p.format, choice.options, x, if_given(choice.has_scale, p.scale),
                                if_given(choice.has_bias, p.bias), choice.has_running ? TensorView<P>(mean) : TensorView<P>(),
                                choice.has_running ? TensorView<P>(variance) : TensorView<P>(), out, epilogue_with(residual),
                                call);
    hash.add(y), hash.add(mask), hash.add(mean), hash.add(variance);
    for (const auto& statistic : saved) hash.add(statistic);
  });
}

}  // namespace support::fingerprint
