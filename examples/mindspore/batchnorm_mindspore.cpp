// SPDX-License-Identifier: MIT

// The operator, its gradients and theirs as functions for mindspore.ops.Custom(func_type="aot"), over the C interface.
//
// Each takes its inputs, then its outputs, in the order of the tables below; "options" is float64 [4]: is_training, epsilon,
// momentum, whether the format is NHWC. MindSpore shows of an error no more than the status: the message goes to standard
// error. So that users get exceptions with messages, batchnorm_mindspore.py calls the checks while MindSpore infers shapes and
// types, before anything runs.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <batchnorm/call/arguments.hpp>

#include "batchnorm_c.h"
#include "boundary.hpp"
#include "codes.hpp"

#define BATCHNORM_MINDSPORE_API extern "C" __attribute__((visibility("default")))

namespace {

enum class Kind { tensor, channels, options };

struct Parameter {
  std::string_view name;
  Kind kind;
};

constexpr std::size_t inputs_of_forward = 6, inputs_of_backward = 6, inputs_of_double_backward = 9;

constexpr Parameter forward_parameters[] = {{"x", Kind::tensor},
                                            {"scale", Kind::channels},
                                            {"bias", Kind::channels},
                                            {"mean", Kind::channels},
                                            {"variance", Kind::channels},
                                            {"options", Kind::options},
                                            {"output_x", Kind::tensor},
                                            {"batch_mean", Kind::channels},
                                            {"batch_variance", Kind::channels},
                                            {"reserve_space_1", Kind::channels},
                                            {"reserve_space_2", Kind::channels}};
constexpr Parameter backward_parameters[] = {{"dy", Kind::tensor},     {"x", Kind::tensor},          {"scale", Kind::channels},
                                             {"mean", Kind::channels}, {"variance", Kind::channels}, {"options", Kind::options},
                                             {"dx", Kind::tensor},     {"dscale", Kind::channels},   {"dbias", Kind::channels}};
constexpr Parameter double_backward_parameters[] = {
    {"x", Kind::tensor},          {"dy", Kind::tensor},  {"scale", Kind::channels},   {"mean", Kind::channels},
    {"variance", Kind::channels}, {"ddx", Kind::tensor}, {"ddscale", Kind::channels}, {"ddbias", Kind::channels},
    {"options", Kind::options},   {"dx", Kind::tensor},  {"ddy", Kind::tensor},       {"dscale", Kind::channels}};

struct Operation {
  std::string_view name;  ///< as messages begin
  std::span<const Parameter> parameters;
  std::size_t inputs;
};

constexpr Operation operations[] = {
    {"batchnorm::BatchNorm", forward_parameters, inputs_of_forward},
    {"batchnorm::BatchNorm::backward", backward_parameters, inputs_of_backward},
    {"batchnorm::BatchNorm::double_backward", double_backward_parameters, inputs_of_double_backward}};

template <class Error = batchnorm::ValueError>
[[noreturn]] void refuse(const Operation& operation, const std::string& what) {
  batchnorm::detail::fail<Error>(std::string(operation.name) + ": " + what);
}

/// The operation of that index.
const Operation& operation_of(int index) {
  constexpr int count = std::size(operations);
  if (index >= 0 && index < count) return operations[index];
  batchnorm::detail::fail<batchnorm::ValueError>("batchnorm_mindspore: operation is " + std::to_string(index) +
                                                 ", expected 0 to " + std::to_string(count - 1));
}

std::size_t index_of(const Operation& operation, std::string_view name) {
  const auto* const first = operation.parameters.data();
  return static_cast<std::size_t>(
      std::find_if(first, first + operation.parameters.size(), [&](const Parameter& p) { return p.name == name; }) - first);
}

constexpr std::int64_t number_of_options = 4;

/// The shape of parameter i, whose rank a Shape can have.
batchnorm::Shape shape_of(const Operation& operation, std::size_t i, const int* ranks, const std::int64_t* const* shapes) {
  const std::string name(operation.parameters[i].name);
  if (ranks[i] < 0 || ranks[i] > batchnorm::Shape::max_rank) {
    refuse<batchnorm::ShapeError>(operation, name + " has rank " + std::to_string(ranks[i]) + ", expected 0 to " +
                                                 std::to_string(batchnorm::Shape::max_rank));
  }
  if (shapes[i] == nullptr && ranks[i] > 0) refuse(operation, name + " has no shape");
  return batchnorm::Shape(std::span(shapes[i], static_cast<std::size_t>(ranks[i])));
}

void check_shape_of_options(const Operation& operation, const batchnorm::Shape& shape) {
  if (shape == batchnorm::Shape{number_of_options}) return;
  refuse<batchnorm::ShapeError>(
      operation, "options has shape " + to_string(shape) + ", expected [" + std::to_string(number_of_options) + "]");
}

/// Shapes of the first `count` parameters of an operation, against each other. Addresses are looked at by the call itself.
void check_shapes(const Operation& operation, std::size_t count, const int* ranks, const std::int64_t* const* shapes,
                  bool is_channels_last) {
  const auto view_of = [&](std::size_t i) {
    static constexpr float somewhere = 0;
    return batchnorm::TensorView<const float>(&somewhere, shape_of(operation, i, ranks, shapes));
  };
  batchnorm::arguments::Arguments arguments(operation.name, view_of(index_of(operation, "x")),
                                            is_channels_last ? batchnorm::Format::NHWC : batchnorm::Format::NCHW);
  for (std::size_t i = 0; i < count; ++i) {
    const auto [name, kind] = operation.parameters[i];
    if (kind == Kind::channels) arguments.channel_vector(name, view_of(i));
    if (kind == Kind::tensor && name != "x") arguments.tensor(name, view_of(i));
    if (kind == Kind::options) check_shape_of_options(operation, shape_of(operation, i, ranks, shapes));
  }
}

struct Type {
  std::string_view name;     ///< as MindSpore calls it
  std::string_view element;  ///< as the library does
  std::int32_t code;
};

constexpr Type types[] = {{"float32", "float", BATCHNORM_FLOAT},
                          {"float64", "double", BATCHNORM_DOUBLE},
                          {"float16", "half", BATCHNORM_HALF},
                          {"bfloat16", "bfloat16", BATCHNORM_BFLOAT16}};

const Type& type_of(const Operation& operation, std::string_view name, std::string_view type) {
  for (const Type& known : types) {
    if (known.name == type) return known;
  }
  refuse(operation, std::string(name) + " is " + std::string(type) + ", known are float32, float64, float16 and bfloat16");
}

struct Types {
  const Type &tensors, &channels;
};

/// The types of the first `count` parameters: one for all tensors, one for all vectors, float64 for the options.
Types types_of(const Operation& operation, std::size_t count, const char* const* type_names) {
  const std::size_t tensor = index_of(operation, "x"), vector = index_of(operation, "scale");
  for (std::size_t i = 0; i < count; ++i) {
    if (type_names[i] == nullptr) refuse(operation, std::string(operation.parameters[i].name) + " has no type");
  }
  for (std::size_t i = 0; i < count; ++i) {
    const auto [name, kind] = operation.parameters[i];
    if (kind == Kind::options && std::strcmp(type_names[i], "float64") != 0) {
      refuse(operation, std::string("options is ") + type_names[i] + ", expected float64");
    }
    const std::size_t same = kind == Kind::tensor ? tensor : vector;
    if (kind == Kind::options || std::strcmp(type_names[i], type_names[same]) == 0) continue;
    refuse(operation, std::string(name) + " is " + type_names[i] + ", expected " + type_names[same] + ", the type of " +
                          std::string(operation.parameters[same].name));
  }
  const Types result{type_of(operation, "x", type_names[tensor]), type_of(operation, "scale", type_names[vector])};
  if (c_interface::with_types_named(result.tensors.element, result.channels.element, [](auto) {})) return result;
  refuse(operation, "scale is " + std::string(type_names[vector]) + ", which does not go with x of " + type_names[tensor]);
}

batchnorm_options options_of(const double* given) {
  batchnorm_options options = batchnorm_default_options();
  options.is_training = given[0] != 0;
  options.epsilon = given[1];
  options.momentum = given[2];
  return options;
}

/// What MindSpore hands to a function.
struct Given {
  int count;
  void** data;
  const int* ranks;
  std::int64_t* const* shapes;
  const char* const* type_names;
};

/// A call's parameters by name, checked.
template <class Arguments>
struct Call {
  const Operation& operation;
  const Given& given;
  batchnorm_options options{};
  Arguments arguments{};

  Call(const Operation& of, const Given& from) : operation(of), given(from) {
    if (given.count < 0 || static_cast<std::size_t>(given.count) != operation.parameters.size()) {
      refuse(operation, "MindSpore gives " + std::to_string(given.count) + " tensors, expected " +
                            std::to_string(operation.parameters.size()));
    }
    if (given.data == nullptr || given.ranks == nullptr || given.shapes == nullptr || given.type_names == nullptr) {
      refuse(operation, "MindSpore gives no data, ranks, shapes or types");
    }
    const std::size_t x = index_of(operation, "x");
    const Types found = types_of(operation, operation.parameters.size(), given.type_names);
    const double* const values = values_of_options();
    check_shapes(operation, operation.parameters.size(), given.ranks, given.shapes, values[3] != 0);
    options = options_of(values);
    arguments.struct_size = sizeof arguments;
    arguments.type = found.tensors.code;
    arguments.parameter_type = found.channels.code;
    arguments.format = values[3] != 0 ? BATCHNORM_NHWC : BATCHNORM_NCHW;
    arguments.rank = given.ranks[x];
    arguments.shape = given.shapes[x];
  }

  /// The memory of a parameter and how many elements it has.
  struct Memory {
    void* data;
    std::int64_t length;

    operator batchnorm_vector() const { return {data, length}; }
    operator batchnorm_const_vector() const { return {data, length}; }
    operator batchnorm_tensor() const { return {data, length, 0, nullptr, 0}; }
    operator batchnorm_const_tensor() const { return {data, length, 0, nullptr, 0}; }
  };
  Memory operator[](std::string_view name) const {
    const std::size_t i = index_of(operation, name);
    const std::int64_t length =
        batchnorm::element_count(shape_of(operation, i, given.ranks, given.shapes), operation.name, name);
    if (given.data[i] == nullptr && length > 0) refuse(operation, std::string(name) + " has no data");
    return {given.data[i], length};
  }

 private:
  const double* values_of_options() const {
    check_shape_of_options(operation, shape_of(operation, index_of(operation, "options"), given.ranks, given.shapes));
    return static_cast<const double*>((*this)["options"].data);
  }
};

/// Runs body(); a failure goes to standard error, since MindSpore shows no more than the status.
template <class Body>
int reported(Body&& body) noexcept {
  batchnorm_status status = BATCHNORM_OK;
  const batchnorm_status boundary = c_interface::guarded([&] { status = body(); });
  if (boundary != BATCHNORM_OK) {
    std::fprintf(stderr, "%s\n", c_interface::last_error);
    return boundary;
  }
  if (status != BATCHNORM_OK) std::fprintf(stderr, "%s\n", batchnorm_last_error());
  return status;
}

batchnorm_status run_forward(const Given& given) {
  Call<batchnorm_forward_arguments> call(operations[0], given);
  call.arguments.x = call["x"];
  call.arguments.scale = call["scale"];
  call.arguments.bias = call["bias"];
  call.arguments.mean = call["mean"];
  call.arguments.variance = call["variance"];
  call.arguments.output_x = call["output_x"];
  call.arguments.batch_mean = call["batch_mean"];
  call.arguments.batch_variance = call["batch_variance"];
  call.arguments.reserve_space_1 = call["reserve_space_1"];
  call.arguments.reserve_space_2 = call["reserve_space_2"];
  return batchnorm_forward(&call.options, &call.arguments);
}

batchnorm_status run_backward(const Given& given) {
  Call<batchnorm_backward_arguments> call(operations[1], given);
  call.arguments.dy = call["dy"];
  call.arguments.x = call["x"];
  call.arguments.scale = call["scale"];
  call.arguments.mean = call["mean"];
  call.arguments.variance = call["variance"];
  call.arguments.dx = call["dx"];
  call.arguments.dscale = call["dscale"];
  call.arguments.dbias = call["dbias"];
  return batchnorm_backward(&call.options, &call.arguments);
}

batchnorm_status run_double_backward(const Given& given) {
  Call<batchnorm_double_backward_arguments> call(operations[2], given);
  call.arguments.x = call["x"];
  call.arguments.dy = call["dy"];
  call.arguments.scale = call["scale"];
  call.arguments.mean = call["mean"];
  call.arguments.variance = call["variance"];
  call.arguments.ddx = call["ddx"];
  call.arguments.ddscale = call["ddscale"];
  call.arguments.ddbias = call["ddbias"];
  call.arguments.dx = call["dx"];
  call.arguments.ddy = call["ddy"];
  call.arguments.dscale = call["dscale"];
  return batchnorm_double_backward(&call.options, &call.arguments);
}

}  // namespace

// ---- for ops.Custom

BATCHNORM_MINDSPORE_API int batchnorm_mindspore_forward(int count, void** data, int* ranks, std::int64_t** shapes,
                                                        const char** type_names, void*, void*) noexcept {
  return reported([&] { return run_forward({count, data, ranks, shapes, type_names}); });
}

BATCHNORM_MINDSPORE_API int batchnorm_mindspore_backward(int count, void** data, int* ranks, std::int64_t** shapes,
                                                         const char** type_names, void*, void*) noexcept {
  return reported([&] { return run_backward({count, data, ranks, shapes, type_names}); });
}

BATCHNORM_MINDSPORE_API int batchnorm_mindspore_double_backward(int count, void** data, int* ranks, std::int64_t** shapes,
                                                                const char** type_names, void*, void*) noexcept {
  return reported([&] { return run_double_backward({count, data, ranks, shapes, type_names}); });
}

// ---- for batchnorm_mindspore.py: 0, or the message is batchnorm_mindspore_last_error(). `operation` is an index of the table.

BATCHNORM_MINDSPORE_API int batchnorm_mindspore_check_shapes(int operation, const int* ranks, const std::int64_t* const* shapes,
                                                             int is_channels_last) noexcept {
  return c_interface::guarded([&] {
    const Operation& of = operation_of(operation);
    if (ranks == nullptr || shapes == nullptr) refuse(of, "ranks or shapes is NULL");
    check_shapes(of, of.inputs, ranks, shapes, is_channels_last != 0);
  });
}

BATCHNORM_MINDSPORE_API int batchnorm_mindspore_check_types(int operation, const char* const* type_names) noexcept {
  return c_interface::guarded([&] {
    const Operation& of = operation_of(operation);
    if (type_names == nullptr) refuse(of, "type_names is NULL");
    types_of(of, of.inputs, type_names);
  });
}

BATCHNORM_MINDSPORE_API int batchnorm_mindspore_check_options(const double* options) noexcept {
  return c_interface::guarded([&] {
    if (options == nullptr) refuse(operations[0], "options is NULL");
    const batchnorm::Options given{.is_training = options[0] != 0, .epsilon = options[1], .momentum = options[2]};
    batchnorm::arguments::check_options(operations[0].name, given);
  });
}

BATCHNORM_MINDSPORE_API const char* batchnorm_mindspore_last_error() noexcept { return c_interface::last_error; }
