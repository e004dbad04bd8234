// SPDX-License-Identifier: MIT
#include <set>

#include "kinds.hpp"
#include "values.hpp"

// Calls that must be refused, with nothing written, and pairs of tensors in one piece of memory.
namespace fuzz {
namespace {

/// One buffer, two tensors of it.
struct Pair {
  Layout x, y;
  std::int64_t x_at = 0, y_at = 0, size = 0;

  /// The elements of the one are those of the other; of an axis of one position, the stride means nothing.
  bool is_same(const Shape& shape) const {
    for (int axis = 0; axis < shape.rank(); ++axis) {
      const auto i = static_cast<std::size_t>(axis);
      if (shape[axis] != 1 && x.strides[i] != y.strides[i]) return false;
    }
    return x_at + x.first == y_at + y.first;
  }
};

/// Layouts that lie at random places of one buffer, or are slices of one larger tensor: of the same strides, a little apart.
Pair draw_pair(Random& random, const Plan& plan) {
  Pair pair{draw_layout(random, plan, false), draw_layout(random, plan, false)};
  const std::int64_t kind = random.integer(0, 3);
  if (kind <= 1) pair.y = pair.x;
  if (kind == 1) {
    const int axis = static_cast<int>(random.integer(0, plan.shape.rank() - 1));
    const std::int64_t stride = pair.x.strides[static_cast<std::size_t>(axis)];
    pair.y_at = std::min(std::abs(stride) * plan.shape[axis], 4 * pair.x.size) + random.integer(-1, 1);
    for (Layout* layout : {&pair.x, &pair.y}) layout->size = pair.x.size;
  } else {
    pair.y_at = random.integer(0, pair.x.size + 1);
  }
  if (kind == 0 && random.integer(0, 2) == 0) pair.y_at = 0;
  pair.y_at = std::max<std::int64_t>(pair.y_at, 0);
  if (random.integer(0, 1) == 0) std::swap(pair.x_at, pair.y_at);
  pair.size = std::max(pair.x_at + pair.x.size, pair.y_at + pair.y.size);
  return pair;
}

bool shares_memory(const Plan& plan, const Pair& pair) {
  std::vector<bool> is_of_x(static_cast<std::size_t>(pair.size));
  bool shared = false;
  for_each_place(plan.shape, pair.x,
                 [&](std::size_t, std::size_t place) { is_of_x[place + static_cast<std::size_t>(pair.x_at)] = true; });
  for_each_place(plan.shape, pair.y, [&](std::size_t, std::size_t place) {
    shared = shared || is_of_x[place + static_cast<std::size_t>(pair.y_at)];
  });
  return shared;
}

/// What is wrong with a call.
enum class Wrong {
  epsilon,
  momentum,
  batch_number,
  absent_mean,
  one_statistic,
  short_scale,
  long_bias,
  shape_of_y,
  null_y,
  misaligned_x,
  strided_scale,
  mean_is_scale,
  batch_mean_is_variance,
  y_shifted_in_x,
  y_over_itself,
  strides_too_far,
  mask_of_identity
};
constexpr int wrongs = 17;

template <class T>
TensorView<T> with_strides(const TensorView<T>& view, const Strides& strides) {
  return {view.data(), view.shape(), strides};
}

template <class T, class P>
void call_with(Wrong wrong, const Plan& plan) {
  const Shape shape{3, 4, 5};
  const Format format = plan.format;
  const std::int64_t channels = format == Format::NCHW ? 4 : 5;
  const auto size = static_cast<std::size_t>(channels);
  Stage stage(plan.way.flush);
  TensorView<T> x = stage.output("x", shape, dense(shape), blank<T>(60))->view();
  TensorView<T> y = stage.output("y", shape, dense(shape), blank<T>(60))->view();
  TensorView<P> scale = stage.output("scale", blank<P>(size))->view(), bias = stage.output("bias", blank<P>(size))->view();
  TensorView<P> mean = stage.output("mean", blank<P>(size))->view(),
                variance = stage.output("variance", blank<P>(size))->view();
  TensorView<P> batch_mean = stage.output("batch_mean", blank<P>(size))->view();
  TensorView<std::uint8_t> mask;
  batchnorm::Options options = plan.options;
  batchnorm::CallOptions call = options_of(plan.way);
  Strides strides = y.strides();
  const auto resized = [&](const TensorView<P>& of, std::int64_t extent) { return TensorView<P>(of.data(), Shape{extent}); };
  switch (wrong) {
    case Wrong::epsilon: options.epsilon = plan.seed % 3 == 0 ? 0 : plan.seed % 3 == 1 ? 1.5 : std::nan(""); break;
    case Wrong::momentum: options.momentum = plan.seed % 2 == 0 ? -0.1 : std::nan(""); break;
    case Wrong::batch_number: options.is_training = true, call.batch_number = -1; break;
    case Wrong::absent_mean: options.is_training = false, mean = variance = {}; break;
    case Wrong::one_statistic: variance = {}; break;
    case Wrong::short_scale: scale = resized(scale, channels - 1); break;
    case Wrong::long_bias: bias = resized(bias, channels + 1); break;
    case Wrong::shape_of_y: y = {y.data(), Shape{3, 5, 4}}; break;
    case Wrong::null_y: y = {nullptr, shape}; break;
    case Wrong::misaligned_x: x = {reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(x.data()) + 1), shape}; break;
    case Wrong::strided_scale: scale = {scale.data(), Shape{channels}, Strides{2}}; break;
    case Wrong::mean_is_scale: options.is_training = true, mean = scale; break;
    case Wrong::batch_mean_is_variance: options.is_training = true, batch_mean = variance; break;
    case Wrong::y_shifted_in_x: y = {x.data() + 1, shape}; break;
    case Wrong::y_over_itself: strides[0] = 1 + static_cast<std::int64_t>(plan.seed % 19), y = with_strides(y, strides); break;
    case Wrong::strides_too_far: strides[0] = INT64_MAX / 2, x = with_strides(x, strides); break;
    case Wrong::mask_of_identity: mask = {reinterpret_cast<std::uint8_t*>(bias.data()), Shape{8}}; break;
  }
  stage.run([&] {
    batchnorm::batch_norm<T, P>(format, options, x, scale, bias, mean, variance,
                                {.output_x = y, .batch_mean = batch_mean, .mask = mask}, batchnorm::Identity{}, call);
  });
}

}  // namespace

void refusal(const Plan& plan, Random& random) {
  const int wrong = static_cast<int>(random.integer(0, wrongs - 1));
  with_types(plan.types, [&]<class T, class P>(Types<T, P>) {
    try {
      call_with<T, P>(static_cast<Wrong>(wrong), plan);
    } catch (const std::invalid_argument&) {
      return;
    }
    throw Failure("a wrong call (number " + std::to_string(wrong) + ") was accepted");
  });
}

Overlap overlap(const Plan& plan, Random& random) {
  const Pair pair = draw_pair(random, plan);
  const bool is_empty = batchnorm::element_count(plan.shape) == 0;
  const bool may_share = is_empty || pair.is_same(plan.shape) || !shares_memory(plan, pair);
  Overlap result = Overlap::shared;
  with_types(plan.types, [&]<class T, class P>(Types<T, P>) {
    Call<T, P> call{plan.shape, plan.format, plan.options, {}};
    call.options.is_training = false;
    const std::int64_t channels = call.extents().c;
    call.mean = draw_vector<P>(random, channels, -1, 1, 0), call.variance = draw_vector<P>(random, channels, 0.1, 3, 0);
    Stage stage(plan.way.flush);
    const Shape whole{pair.size};
    const auto* memory =
        stage.output("memory", whole, dense(whole), filled<T>(pair.size, [&] { return random.uniform(-3, 3); }));
    const auto before = memory->values();
    const auto tensor = [&](const Layout& layout, std::int64_t at) {
      return TensorView<T>(memory->view().data() + at + layout.first, plan.shape, layout.strides);
    };
    const auto gathered = [&](const std::vector<T>& from, const Layout& layout, std::int64_t at) {
      std::vector<T> values(static_cast<std::size_t>(batchnorm::element_count(plan.shape)));
      for_each_place(plan.shape, layout,
                     [&](std::size_t i, std::size_t place) { values[i] = from[place + static_cast<std::size_t>(at)]; });
      return values;
    };
    call.x = gathered(before, pair.x, pair.x_at);
    try {
      stage.run([&] {
        batchnorm::batch_norm<T, P>(plan.format, call.options, tensor(pair.x, pair.x_at), {}, {}, *call.mean, *call.variance,
                                    {.output_x = tensor(pair.y, pair.y_at)}, batchnorm::Identity{}, options_of(plan.way));
      });
    } catch (const std::invalid_argument&) {
      result = may_share ? Overlap::refused : Overlap::shared;
      return;
    }
    require(may_share, "an output that overlaps its input was accepted");
    result = Overlap::accepted;
    const auto after = memory->values();
    const auto y = gathered(after, pair.y, pair.y_at);
    require_kept("y beside x in one buffer", y_errors<T>(y, expected(call), call.extents(), plan.isa, false));
    std::set<std::size_t> written;
    for_each_place(plan.shape, pair.y,
                   [&](std::size_t, std::size_t place) { written.insert(place + static_cast<std::size_t>(pair.y_at)); });
    for (std::size_t i = 0; i < after.size(); ++i) {
      require(written.contains(i) || std::memcmp(&after[i], &before[i], sizeof(T)) == 0, "something beside y was written");
    }
  });
  return result;
}

}  // namespace fuzz
