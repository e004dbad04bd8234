// SPDX-License-Identifier: MIT
#pragma once

#include <memory>
#include <string_view>

#include <batchnorm/batch_norm.hpp>
#include <batchnorm/in_place.hpp>
#include <batchnorm/prepared.hpp>

#include "batchnorm_c.h"

// The calls of the C interface once their types are known. Each element type is compiled in a file of its own, since each is
// minutes to compile.
namespace c_interface {

using batchnorm::Element;
using batchnorm::ParameterOf;

/// What follows x in an inference.
enum class Activation { none, relu, leaky_relu };

/// What all calls have beside their pointers, checked.
struct Setting {
  std::string_view name;  ///< of the function, as messages begin
  batchnorm::Format format;
  batchnorm::Shape shape;
  batchnorm::Options options;
  batchnorm::CallOptions call;
  Activation activation = Activation::none;
};

template <Element T, ParameterOf<T> P>
void forward(const Setting& setting, const batchnorm_forward_arguments& arguments);

template <Element T, ParameterOf<T> P>
void backward(const Setting& setting, const batchnorm_backward_arguments& arguments);

template <Element T, ParameterOf<T> P>
void double_backward(const Setting& setting, const batchnorm_double_backward_arguments& arguments);

template <Element T, ParameterOf<T> P>
void forward_in_place(const Setting& setting, const batchnorm_forward_in_place_arguments& arguments);

template <Element T, ParameterOf<T> P>
void backward_in_place(const Setting& setting, const batchnorm_backward_in_place_arguments& arguments);

}  // namespace c_interface

/// An inference of some types.
struct batchnorm_prepared {
  batchnorm_prepared() = default;
  batchnorm_prepared(const batchnorm_prepared&) = delete;
  batchnorm_prepared& operator=(const batchnorm_prepared&) = delete;
  virtual ~batchnorm_prepared() = default;

  virtual batchnorm::Format format() const noexcept = 0;
  virtual std::string_view type() const noexcept = 0;
  virtual std::string_view parameter_type() const noexcept = 0;
  virtual void refresh(const c_interface::Setting& setting, const batchnorm_prepare_arguments& arguments) = 0;
  virtual void infer(const c_interface::Setting& setting, const batchnorm_infer_arguments& arguments) const = 0;
};

namespace c_interface {

/// The shape of the setting has C channels; `known` is that of x, or of rank 0.
template <Element T, ParameterOf<T> P>
std::unique_ptr<batchnorm_prepared> prepare(const Setting& setting, const batchnorm::Shape& known,
                                            const batchnorm_prepare_arguments& arguments);

}  // namespace c_interface
