// SPDX-License-Identifier: MIT

#include "batchnorm_c.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include <batchnorm/isa.hpp>
#include <batchnorm/thread_team.hpp>
#include <batchnorm/version.hpp>

#include "boundary.hpp"
#include "calls.hpp"
#include "codes.hpp"

struct batchnorm_thread_team {
  explicit batchnorm_thread_team(int concurrency) : team(concurrency) {}
  batchnorm::ThreadTeam team;
};

namespace c_interface {
namespace {

// Sizes of the structures as they were first, and so the least that a program can have.
constexpr std::size_t first_size_of(const batchnorm_options*) { return offsetof(batchnorm_options, team) + sizeof(void*); }
constexpr std::size_t first_size_of(const batchnorm_forward_arguments*) {
  return offsetof(batchnorm_forward_arguments, reserve_space_2) + sizeof(batchnorm_vector);
}
constexpr std::size_t first_size_of(const batchnorm_backward_arguments*) {
  return offsetof(batchnorm_backward_arguments, dbias) + sizeof(batchnorm_vector);
}
constexpr std::size_t first_size_of(const batchnorm_double_backward_arguments*) {
  return offsetof(batchnorm_double_backward_arguments, dscale) + sizeof(batchnorm_vector);
}
constexpr std::size_t first_size_of(const batchnorm_prepare_arguments*) {
  return offsetof(batchnorm_prepare_arguments, epsilon) + sizeof(double);
}
constexpr std::size_t first_size_of(const batchnorm_infer_arguments*) {
  return offsetof(batchnorm_infer_arguments, team) + sizeof(void*);
}

constexpr std::size_t first_size_of(const batchnorm_forward_in_place_arguments*) {
  return offsetof(batchnorm_forward_in_place_arguments, largest_ratio) + sizeof(double);
}
constexpr std::size_t first_size_of(const batchnorm_backward_in_place_arguments*) {
  return offsetof(batchnorm_backward_in_place_arguments, largest_ratio) + sizeof(double);
}

// A structure grows by fields, not into padding, whose bytes nobody sets: neither those that are as they were first end in
// some, nor those that have grown.
template <class Structure>
constexpr bool is_as_first = first_size_of(static_cast<const Structure*>(nullptr)) == sizeof(Structure);
static_assert(is_as_first<batchnorm_options> && is_as_first<batchnorm_double_backward_arguments>);
static_assert(is_as_first<batchnorm_prepare_arguments> && is_as_first<batchnorm_infer_arguments>);
static_assert(is_as_first<batchnorm_forward_in_place_arguments> && is_as_first<batchnorm_backward_in_place_arguments>);
static_assert(first_size_of(static_cast<const batchnorm_forward_arguments*>(nullptr)) ==
              offsetof(batchnorm_forward_arguments, activation));
static_assert(offsetof(batchnorm_forward_arguments, mask) + sizeof(batchnorm_vector) == sizeof(batchnorm_forward_arguments));
static_assert(first_size_of(static_cast<const batchnorm_backward_arguments*>(nullptr)) ==
              offsetof(batchnorm_backward_arguments, activation));
static_assert(offsetof(batchnorm_backward_arguments, dresidual) + sizeof(batchnorm_tensor) ==
              sizeof(batchnorm_backward_arguments));

constexpr Code<batchnorm::Format> formats[] = {{BATCHNORM_NCHW, batchnorm::Format::NCHW, "NCHW"},
                                               {BATCHNORM_NHWC, batchnorm::Format::NHWC, "NHWC"}};
constexpr Code<bool> modes[] = {{0, false, "inference"}, {1, true, "training"}};
constexpr Code<batchnorm::RunningVariance> running_variances[] = {
    {BATCHNORM_UNBIASED, batchnorm::RunningVariance::unbiased, "unbiased"},
    {BATCHNORM_BIASED, batchnorm::RunningVariance::biased, "biased"}};
constexpr Code<batchnorm::NotFinite> not_finites[] = {{BATCHNORM_NOT_FINITE_UPDATES, batchnorm::NotFinite::update, "updates"},
                                                      {BATCHNORM_NOT_FINITE_KEEPS, batchnorm::NotFinite::keep, "keeps"}};

constexpr Code<Activation> activations[] = {{BATCHNORM_NO_ACTIVATION, Activation::none, "none"},
                                            {BATCHNORM_RELU, Activation::relu, "ReLU"},
                                            {BATCHNORM_LEAKY_RELU, Activation::leaky_relu, "leaky ReLU"}};

void set_options(std::string_view call, Setting& setting, const batchnorm_options* given) {
  const batchnorm_options options =
      given == nullptr ? batchnorm_default_options() : read(call, "options", given, first_size_of(given));
  if (options.reserved != 0) refuse(call, "reserved is " + std::to_string(options.reserved) + ", it must be 0");
  setting.options = {
      .is_training = value_of(call, "is_training", options.is_training, modes),
      .epsilon = options.epsilon,
      .momentum = options.momentum,
      .running_variance = value_of(call, "running_variance", options.running_variance, running_variances),
      .not_finite = value_of(call, "not_finite", options.not_finite, not_finites),
  };
  setting.call.batch_number = options.batch_number;
  if (options.team != nullptr) setting.call.executor = &options.team->team;
}

/// The activation, where arguments have one.
template <class Arguments>
void set_activation(std::string_view call, Setting& setting, const Arguments& arguments) {
  if constexpr (requires { arguments.reserved; }) {
    if (arguments.reserved != 0) refuse(call, "reserved is " + std::to_string(arguments.reserved) + ", it must be 0");
  }
  if constexpr (requires { arguments.activation; }) {
    setting.activation = value_of(call, "activation", arguments.activation, activations);
    if (setting.activation != Activation::leaky_relu && arguments.slope != 0) {
      refuse(call, "slope is not 0, it is that of leaky ReLU alone");
    }
  }
}

batchnorm::Shape shape_of(std::string_view call, std::int32_t rank, const std::int64_t* extents) {
  if (rank < 2 || rank > 5) {
    batchnorm::detail::fail<batchnorm::ShapeError>(std::string(call) + ": rank is " + std::to_string(rank) +
                                                   ", expected 2 to 5");
  }
  check_address(call, "shape", extents);
  const batchnorm::Shape shape(std::span(extents, static_cast<std::size_t>(rank)));
  batchnorm::element_count(shape, call, "x");
  return shape;
}

/// Reads the structures and hands them to operation(Types<T, P>, setting, arguments).
template <class Arguments, class Operation>
batchnorm_status run(std::string_view call, std::string_view name, const batchnorm_options* options, const Arguments* given,
                     Operation operation) noexcept {
  return guarded([&] {
    const Arguments arguments = read(call, name, given, first_size_of(given));
    Setting setting{.name = call,
                    .format = value_of(call, "format", arguments.format, formats),
                    .shape = shape_of(call, arguments.rank, arguments.shape),
                    .options = {},
                    .call = {}};
    set_options(call, setting, options);
    set_activation(call, setting, arguments);
    with_types(call, arguments.type, arguments.parameter_type, [&](auto types) { operation(types, setting, arguments); });
  });
}

/// What preparing and refreshing have in common. The shape has as many channels as the longest vector: only where none has an
/// element, NULL is a vector of no channels.
Setting setting_of(std::string_view call, const batchnorm_prepare_arguments& arguments) {
  const std::int64_t channels = std::max(
      {std::int64_t{0}, arguments.scale.length, arguments.bias.length, arguments.mean.length, arguments.variance.length});
  return {.name = call,
          .format = value_of(call, "format", arguments.format, formats),
          .shape = batchnorm::Shape{1, channels},
          .options = {},
          .call = {}};
}

void run_prepare(const batchnorm_prepare_arguments* given, batchnorm_prepared** prepared) {
  constexpr std::string_view call = "batchnorm_prepare";
  const auto arguments = read(call, "prepare_arguments", given, first_size_of(given));
  check_address(call, "prepared", prepared);
  const Setting setting = setting_of(call, arguments);
  batchnorm::Shape known;
  if (arguments.rank != 0 || arguments.shape != nullptr) known = shape_of(call, arguments.rank, arguments.shape);
  with_types(call, arguments.type, arguments.parameter_type, [&]<class T, class P>(Types<T, P>) {
    *prepared = c_interface::prepare<T, P>(setting, known, arguments).release();
  });
}

void run_refresh(batchnorm_prepared* prepared, const batchnorm_prepare_arguments* given) {
  constexpr std::string_view call = "batchnorm_refresh";
  check_address(call, "prepared", prepared);
  const auto arguments = read(call, "prepare_arguments", given, first_size_of(given));
  const Setting setting = setting_of(call, arguments);
  const auto check_same = [&](std::string_view what, std::string_view now, std::string_view before) {
    if (now != before)
      refuse(call, std::string(what) + " is " + std::string(now) + ", it was prepared with " + std::string(before));
  };
  with_types(call, arguments.type, arguments.parameter_type, [&]<class T, class P>(Types<T, P>) {
    check_same("type", batchnorm::element_name<T>(), prepared->type());
    check_same("parameter_type", batchnorm::element_name<P>(), prepared->parameter_type());
  });
  check_same("format", to_string(setting.format), to_string(prepared->format()));
  prepared->refresh(setting, arguments);
}

void run_infer(const batchnorm_prepared* prepared, const batchnorm_infer_arguments* given) {
  constexpr std::string_view call = "batchnorm_infer";
  check_address(call, "prepared", prepared);
  const auto arguments = read(call, "infer_arguments", given, first_size_of(given));
  Setting setting{.name = call,
                  .format = prepared->format(),
                  .shape = shape_of(call, arguments.rank, arguments.shape),
                  .options = {},
                  .call = {}};
  set_activation(call, setting, arguments);
  if (arguments.team != nullptr) setting.call.executor = &arguments.team->team;
  prepared->infer(setting, arguments);
}

std::string_view or_empty(const char* text) { return text == nullptr ? std::string_view() : text; }

}  // namespace
}  // namespace c_interface

using c_interface::guarded;

batchnorm_status batchnorm_forward(const batchnorm_options* options, const batchnorm_forward_arguments* arguments) noexcept {
  return c_interface::run("batchnorm_forward", "forward_arguments", options, arguments,
                          []<class T, class P>(c_interface::Types<T, P>, const auto& setting, const auto& given) {
                            c_interface::forward<T, P>(setting, given);
                          });
}

batchnorm_status batchnorm_backward(const batchnorm_options* options, const batchnorm_backward_arguments* arguments) noexcept {
  return c_interface::run("batchnorm_backward", "backward_arguments", options, arguments,
                          []<class T, class P>(c_interface::Types<T, P>, const auto& setting, const auto& given) {
                            c_interface::backward<T, P>(setting, given);
                          });
}

batchnorm_status batchnorm_double_backward(const batchnorm_options* options,
                                           const batchnorm_double_backward_arguments* arguments) noexcept {
  return c_interface::run("batchnorm_double_backward", "double_backward_arguments", options, arguments,
                          []<class T, class P>(c_interface::Types<T, P>, const auto& setting, const auto& given) {
                            c_interface::double_backward<T, P>(setting, given);
                          });
}

batchnorm_status batchnorm_mask_length(std::int32_t rank, const std::int64_t* shape, std::int64_t* length) noexcept {
  return guarded([&] {
    constexpr std::string_view call = "batchnorm_mask_length";
    c_interface::check_address(call, "length", length);
    *length = batchnorm::mask_bytes(c_interface::shape_of(call, rank, shape));
  });
}

batchnorm_status batchnorm_forward_in_place(const batchnorm_options* options,
                                            const batchnorm_forward_in_place_arguments* arguments) noexcept {
  return c_interface::run("batchnorm_forward_in_place", "forward_in_place_arguments", options, arguments,
                          []<class T, class P>(c_interface::Types<T, P>, const auto& setting, const auto& given) {
                            c_interface::forward_in_place<T, P>(setting, given);
                          });
}

batchnorm_status batchnorm_backward_in_place(const batchnorm_options* options,
                                             const batchnorm_backward_in_place_arguments* arguments) noexcept {
  return c_interface::run("batchnorm_backward_in_place", "backward_in_place_arguments", options, arguments,
                          []<class T, class P>(c_interface::Types<T, P>, const auto& setting, const auto& given) {
                            c_interface::backward_in_place<T, P>(setting, given);
                          });
}

batchnorm_status batchnorm_prepare(const batchnorm_prepare_arguments* arguments, batchnorm_prepared** prepared) noexcept {
  return guarded([&] { c_interface::run_prepare(arguments, prepared); });
}

batchnorm_status batchnorm_refresh(batchnorm_prepared* prepared, const batchnorm_prepare_arguments* arguments) noexcept {
  return guarded([&] { c_interface::run_refresh(prepared, arguments); });
}

batchnorm_status batchnorm_infer(const batchnorm_prepared* prepared, const batchnorm_infer_arguments* arguments) noexcept {
  return guarded([&] { c_interface::run_infer(prepared, arguments); });
}

void batchnorm_destroy_prepared(batchnorm_prepared* prepared) noexcept { delete prepared; }

const char* batchnorm_last_error() noexcept { return c_interface::last_error; }

const char* batchnorm_version() noexcept {
#define BATCHNORM_C_TEXT_OF(number) #number
#define BATCHNORM_C_TEXT(number) BATCHNORM_C_TEXT_OF(number)
  return BATCHNORM_C_TEXT(BATCHNORM_VERSION_MAJOR) "." BATCHNORM_C_TEXT(BATCHNORM_VERSION_MINOR) "." BATCHNORM_C_TEXT(
      BATCHNORM_VERSION_PATCH);
}

const char* batchnorm_available_isa(std::int32_t index) noexcept {
  const char* name = nullptr;
  guarded([&] {
    const auto isas = batchnorm::available_isas();
    if (index >= 0 && static_cast<std::size_t>(index) < isas.size()) {
      name = to_string(isas[static_cast<std::size_t>(index)]).data();
    }
  });
  return name;
}

batchnorm_status batchnorm_active_isa(const char** name) noexcept {
  return guarded([&] {
    if (name == nullptr) c_interface::refuse("batchnorm_active_isa", "name is NULL");
    *name = to_string(batchnorm::active_isa()).data();
  });
}

batchnorm_status batchnorm_force_isa(const char* name) noexcept {
  return guarded([&] { batchnorm::force_isa(batchnorm::parse_isa(c_interface::or_empty(name))); });
}

batchnorm_status batchnorm_create_thread_team(std::int32_t concurrency, batchnorm_thread_team** team) noexcept {
  return guarded([&] {
    if (team == nullptr) c_interface::refuse("batchnorm_create_thread_team", "team is NULL");
    *team = std::make_unique<batchnorm_thread_team>(concurrency).release();
  });
}

void batchnorm_destroy_thread_team(batchnorm_thread_team* team) noexcept { delete team; }
