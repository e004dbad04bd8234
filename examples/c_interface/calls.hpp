// SPDX-License-Identifier: MIT
#pragma once

#include <string_view>

#include <batchnorm/batch_norm.hpp>

#include "batchnorm_c.h"

// The calls of the C interface once their types are known. Each element type is compiled in a file of its own, since each is
// minutes to compile.
namespace c_interface {

using batchnorm::Element;
using batchnorm::ParameterOf;

/// What all calls have beside their pointers, checked.
struct Setting {
  std::string_view name;  ///< of the function, as messages begin
  batchnorm::Format format;
  batchnorm::Shape shape;
  batchnorm::Options options;
  batchnorm::CallOptions call;
};

template <Element T, ParameterOf<T> P>
void forward(const Setting& setting, const batchnorm_forward_arguments& arguments);

template <Element T, ParameterOf<T> P>
void backward(const Setting& setting, const batchnorm_backward_arguments& arguments);

template <Element T, ParameterOf<T> P>
void double_backward(const Setting& setting, const batchnorm_double_backward_arguments& arguments);

}  // namespace c_interface
