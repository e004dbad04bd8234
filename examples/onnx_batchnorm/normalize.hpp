// SPDX-License-Identifier: MIT
#pragma once

#include <vector>

#include <batchnorm/options.hpp>

#include "any_tensor.hpp"

namespace onnx_tool {

struct Operands {
  AnyTensor x, scale, bias, mean, variance;
};

/// What a node BatchNormalization puts out: Y, and in training the updated running mean and variance.
///
///   x                [N, C, ...] of any rank from 1 (C is 1 then) to 8
///   scale, bias      [C]; of one type, which may be another than that of mean and variance
///   mean, variance   [C]; the running statistics that come out have their type
///
/// The operator computes with parameters of the type that the node has, where all four have one that it knows beside x;
/// otherwise all are widened to float (beside x of double: to double), which loses nothing, and the running statistics are
/// rounded to that type and then to their own. An epsilon of 0 or above 1, which ONNX allows and the operator does not, is put
/// into ONNX's formula for y in double: a variance of 0 beside epsilon 0 gives an infinite y, or NaN where x is the mean.
/// @throws UsageError   float64 parameters beside another x
/// @throws batchnorm::ShapeError, batchnorm::ValueError
std::vector<AnyTensor> normalize(const batchnorm::Options& options, const Operands& operands,
                                 const batchnorm::CallOptions& call);

/// The same with statistics for each position, as opsets 7 and 8 have them with spatial = 0: x is [N, C, D1, ...], the other
/// four have the C * D1 * ... elements that x has after its first axis.
std::vector<AnyTensor> normalize_positions(const batchnorm::Options& options, const Operands& operands,
                                           const batchnorm::CallOptions& call);

/// The shape as which the operator takes one of any rank: the same elements and channels in ranks 2 to 5.
batchnorm::Shape operator_shape(const batchnorm::Shape& shape);

/// The same for x of type T and an epsilon in (0, 1]. Each type is compiled in a file of its own.
template <Element T>
std::vector<AnyTensor> normalize(const batchnorm::Options& options, const Tensor<T>& x, const Operands& operands,
                                 const batchnorm::CallOptions& call);

}  // namespace onnx_tool
